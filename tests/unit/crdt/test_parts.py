"""What of an update a document can take now: never more than it can, and with the rest later the same document."""

import random
from typing import Any

import pytest
from pycrdt import Doc, Text

from history.crdt.guard import Guard
from history.crdt.lib0 import Malformed
from history.crdt.parts import part_of
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import decode_update, missing_dependency
from tests.histories import random_history


def known_of(doc: Doc[Any]) -> dict[int, int]:
    return decode_state_vector(doc.get_state())


@pytest.mark.parametrize("seed", range(60))
def test_a_part_can_be_taken_at_once_and_the_whole_after_it(seed: int) -> None:
    rng = random.Random(seed)
    rows = [row.update for row in random_history(seed, edits=40, clients=4)]
    here: Doc[Any] = Doc(skip_gc=True)
    guard = Guard()
    cut = rng.randrange(len(rows))
    for update in rows[:cut]:
        verdict = guard.check(update)
        here.apply_update(update)
        guard.commit(verdict)
    there: Doc[Any] = Doc(skip_gc=True)
    for update in rows:
        there.apply_update(update)
    # Later rows with some of those before them left out: what a client sends that has edits nobody else has.
    behind: Doc[Any] = Doc(skip_gc=True)
    for update in rows[: cut + rng.randrange(len(rows) - cut + 1)]:
        behind.apply_update(update)
    update = there.get_update(behind.get_state())
    without = {client for client in known_of(there) if rng.random() < 0.3}
    part = part_of(update, known_of(here), without=without)
    if part is not None:
        assert not {struct.client for struct in decode_update(part).structs} & without
        assert missing_dependency(decode_update(part), known_of(here)) is None
        verdict = guard.check(part)
        here.apply_update(part)
        guard.commit(verdict)
        assert known_of(here) == guard.known
    here.apply_update(there.get_update(here.get_state()))
    assert known_of(here) == known_of(there)
    assert here.get("text", type=Text).to_py() == there.get("text", type=Text).to_py()


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_can_be_taken_is_left_out(seed: int) -> None:
    rows = [row.update for row in random_history(seed, edits=30, clients=3)]
    there: Doc[Any] = Doc(skip_gc=True)
    for update in rows:
        there.apply_update(update)
    part = part_of(there.get_update(), {})
    assert part is not None
    whole: Doc[Any] = Doc(skip_gc=True)
    whole.apply_update(part)
    assert known_of(whole) == known_of(there)


def test_what_builds_on_what_is_left_out_is_left_out_with_it() -> None:
    ada: Doc[Any] = Doc(client_id=1)
    ada.get("text", type=Text).insert(0, "ada")
    bob: Doc[Any] = Doc(client_id=2)
    bob.get("text", type=Text).insert(0, "bob")
    bob.apply_update(ada.get_update())
    text = bob.get("text", type=Text)
    text.insert(str(text).index("ada") + 1, "<in ada's>")
    part = part_of(bob.get_update(), {}, without={1})
    assert part is not None
    mine: Doc[Any] = Doc()
    mine.apply_update(part)
    assert str(mine.get("text", type=Text)) == "bob"


def test_deletions_of_what_is_not_there_are_left_out() -> None:
    doc: Doc[Any] = Doc(client_id=1, skip_gc=True)
    text = doc.get("text", type=Text)
    text.insert(0, "abcdef")
    known = doc.get_state()
    del text[0:6]
    deletion = doc.get_update(known)
    part = part_of(deletion, {1: 4})
    assert part is not None
    assert [(each.client, each.clock, each.length) for each in decode_update(part).deletes] == [(1, 0, 4)]
    assert part_of(deletion, {}) is None


@pytest.mark.parametrize("broken", [b"", b"\x01", b"\x01\x01\x01\x00", b"\x00\x00\x00"])
def test_bytes_that_are_no_update_are_refused(broken: bytes) -> None:
    with pytest.raises(Malformed):
        part_of(broken, {})
