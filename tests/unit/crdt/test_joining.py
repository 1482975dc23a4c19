"""Joining says the same in fewer structs: yrs copies the growing text of neighbours once for each of them."""

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, merge_updates

from history.crdt import joining
from history.crdt.content import canonical
from history.crdt.guard import Guard
from history.crdt.idsets import delete_set_of
from history.crdt.joining import CUTS_MIN, JOINED_BYTES_MIN, joined
from history.crdt.lib0 import var_uint
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import decode_runs, decode_update
from tests.histories import random_history, replay, updates_of


def edits_of(name: str, root_type: Any, edits: Sequence[Callable[[Any], object]]) -> list[bytes]:
    doc: Doc[Any] = Doc(client_id=1)
    root = doc.get(name, type=root_type)
    return [update for edit in edits for update in updates_of(doc, partial(edit, root))]


def typed(word: str, times: int) -> list[bytes]:
    return edits_of("text", Text, [lambda text: text.insert(len(str(text).encode()), word)] * times)


def pushed(value: object, times: int) -> list[bytes]:
    return edits_of("array", Array, [lambda array: array.append(value)] * times)


def says(*updates: bytes, skip_gc: bool) -> tuple[object, ...]:
    doc = replay(updates, skip_gc=skip_gc)
    return canonical(doc), decode_state_vector(doc.get_state()), delete_set_of(doc)


def lengths(update: bytes) -> list[int]:
    return [struct.length for struct in decode_update(update).structs]


@pytest.mark.parametrize(
    ("updates", "units"),
    [
        (typed("keys", 600), 2400),
        (typed("é😀", 400), 1200),
        (pushed({"k": [1, "é"]}, 400), 400),
        (pushed(True, 900), 900),
    ],
    ids=["text", "text beyond ASCII", "values", "small values"],
)
def test_what_was_written_in_one_go_becomes_one_struct(updates: list[bytes], units: int) -> None:
    merged = merge_updates(*updates)
    assert len(lengths(merged)) == len(updates)  # merging alone joins nothing
    assert lengths(joined(merged)) == [units]
    assert says(joined(merged), skip_gc=True) == says(*updates, skip_gc=True)
    assert Guard().check(joined(merged)).update.structs[0].length == units


def test_text_in_front_of_other_text_is_joined_too() -> None:
    end, *typing = edits_of("text", Text, [lambda text: text.insert(max(0, len(str(text)) - 1), "key")] * 500)
    merged = merge_updates(*typing)
    assert lengths(joined(merged)) == [3 * len(typing)]
    assert says(end, joined(merged), skip_gc=True) == says(end, *typing, skip_gc=True)


def test_a_small_update_is_left_alone() -> None:
    merged = merge_updates(*typed("a", 100))
    assert len(merged) < JOINED_BYTES_MIN
    assert joined(merged) is merged


def test_values_of_a_key_are_joined_but_for_the_last_as_all_others_are_deleted() -> None:
    updates = edits_of("map", Map, [lambda entries: entries.update({"key": "value"})] * 500)
    merged = merge_updates(*updates)
    assert lengths(joined(merged)) == [499, 1]
    for skip_gc in (True, False):
        assert says(joined(merged), skip_gc=skip_gc) == says(*updates, skip_gc=skip_gc)


def test_what_the_document_has_is_joined_to_nothing() -> None:
    merged = merge_updates(*typed("keys", 600))
    assert lengths(joined(merged, known={1: 12})) == [4, 4, 4, 2388]


def cut(starts: Iterable[int], *, client: int = 1) -> bytes:
    """An update that deletes one unit at each of these clocks."""
    ranges = [var_uint(start) + b"\1" for start in starts]
    return b"\0\1" + var_uint(client) + var_uint(len(ranges)) + b"".join(ranges)


@pytest.mark.parametrize("order", [1, -1])
def test_many_cuts_begin_with_some_that_halve_the_text_and_then_rise(order: int) -> None:
    update = cut(range(0, 20_000, 2)[::order])
    starts = [each.clock for each in decode_update(joined(update)).deletes]
    coarse, fine = starts[:250], starts[250:]
    assert sorted(starts) == list(range(0, 20_000, 2))
    assert coarse[:3] == [10_000, 4_960, 15_040]
    assert sorted(coarse) == list(range(0, 20_000, 80))
    assert fine == sorted(fine)
    assert joined(joined(update)) == joined(update)
    [text] = edits_of("text", Text, [lambda text: text.insert(0, "text" * 5_000)])
    assert says(text, joined(update), skip_gc=True) == says(text, update, skip_gc=True)


def test_few_cuts_are_left_in_their_order() -> None:
    update = cut(range(0, 2 * (CUTS_MIN - 1), 2))
    assert joined(update, decoded=decode_runs(update)) is update
    more = cut(range(0, 2 * CUTS_MIN, 2))
    assert joined(more, decoded=decode_runs(more)) != more


def test_cuts_in_text_that_comes_with_them_stay_cuts_of_the_same_update() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc["text"] = text = Text()
    for place in range(900):
        text.insert(0 if place % 2 else len(str(text)), "keys")
    for place in range(900):
        del text[2 * place : 2 * place + 1]
    update = doc.get_update()
    assert len(joined(update)) <= len(update) and joined(update) != update
    for skip_gc in (True, False):
        assert says(joined(update), skip_gc=skip_gc) == says(update, skip_gc=skip_gc)


@pytest.mark.parametrize("skip_gc", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_a_joined_history_is_the_same_document(seed: int, skip_gc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOINED_BYTES_MIN", 0)
    monkeypatch.setattr(joining, "CUTS_MIN", 2)
    monkeypatch.setattr(joining, "COARSE_CUTS", 3)
    rows = [row.update for row in random_history(seed, edits=60, clients=2, concurrency=0.1, skip_gc=True)]
    cut = random.Random(seed).randrange(len(rows))
    before, after = rows[:cut], merge_updates(*rows[cut:])
    known = decode_state_vector(replay(before).get_state())
    assert says(joined(merge_updates(*rows)), skip_gc=skip_gc) == says(*rows, skip_gc=skip_gc)
    assert says(*before, joined(after, known=known), skip_gc=skip_gc) == says(*rows, skip_gc=skip_gc)
    # Of a repeated update only the end is new.
    overlap = joined(merge_updates(*rows[cut // 2 :]), known=known)
    assert says(*before, overlap, skip_gc=skip_gc) == says(*rows, skip_gc=skip_gc)
