"""States of one document are the same unit by unit however they are encoded, and nothing else is."""

import random
from typing import Any

import pytest
from pycrdt import Array, Doc, Text

from history.crdt.idsets import delete_set_of
from history.crdt.sameness import first_difference
from history.crdt.updates import Id
from tests.histories import random_history, updates_of


def _loaded(*updates: bytes, skip_gc: bool = False) -> Doc[Any]:
    doc: Doc[Any] = Doc(skip_gc=skip_gc)
    for update in updates:
        doc.apply_update(update)
    return doc


def _difference(doc: Doc[Any], full: Doc[Any]) -> Id | None:
    return first_difference(doc.get_update(), full.get_update(), delete_set_of(full))


@pytest.mark.parametrize("seed", range(60))
def test_a_document_is_the_same_however_it_came_about(seed: int) -> None:
    updates = [row.update for row in random_history(seed, edits=40, skip_gc=True)]
    full = _loaded(*updates, skip_gc=True)
    served = _loaded(*updates)
    for doc in (full, served, _loaded(full.get_update()), _loaded(served.get_update())):
        assert _difference(doc, full) is None


def _text(*pieces: str, client_id: int = 1) -> bytes:
    doc: Doc[Any] = Doc(client_id=client_id, skip_gc=True)
    root = doc.get("text", type=Text)
    for piece in pieces:
        root.insert(len(root), piece)
    root.clear()
    return doc.get_update()


def test_what_was_deleted_is_compared_too() -> None:
    full = _loaded(_text("abc", "d😀f"), skip_gc=True)
    assert _difference(_loaded(_text("abcd😀f"), skip_gc=True), full) is None
    assert _difference(_loaded(_text("abcX😀f"), skip_gc=True), full) == (1, 0)
    assert _difference(_loaded(full.get_update()), full) is None


def test_what_is_left_out_must_have_been_deleted() -> None:
    full: Doc[Any] = Doc(client_id=1, skip_gc=True)
    updates_of(full, lambda: full.get("text", type=Text).insert(0, "abc"))
    gone = bytes([1, 1, 1, 0, 1, 1, 4]) + b"text" + bytes([3, 0])
    assert first_difference(gone, full.get_update(), {1: ((0, 3),)}) is None
    assert first_difference(gone, full.get_update(), {1: ((0, 2),)}) == (1, 0)
    assert first_difference(gone, full.get_update(), {}) == (1, 0)
    elsewhere = gone.replace(b"text", b"note")
    assert first_difference(elsewhere, full.get_update(), {1: ((0, 3),)}) == (1, 0)


def test_values_are_compared_by_kind_and_not_by_the_order_of_their_keys() -> None:
    def doc_of(*values: object) -> Doc[Any]:
        doc: Doc[Any] = Doc(client_id=1)
        doc.get("array", type=Array).extend(list(values))
        return doc

    keys = [f"key {number}" for number in range(20)]
    one, other = dict.fromkeys(keys, 1), dict.fromkeys(random.Random(1).sample(keys, 20), 1)
    full = doc_of(one, [1.5, float("nan")], True)
    assert _difference(doc_of(other, [1.5, float("nan")], True), full) is None
    assert _difference(doc_of(other, [1.5, float("nan")], 1), full) == (1, 0)
