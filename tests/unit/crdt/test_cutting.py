"""A moment cut out of a later state is byte for byte what a replay up to it gives, deleted content included."""

import random
from functools import partial
from typing import Any

import pytest
from pycrdt import Array, Doc, Text

from history.crdt.cutting import cut
from history.crdt.idsets import delete_set_of, encode_id_set, encoded_delete_set_of, id_set
from history.crdt.lib0 import Malformed
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import decode_update
from tests.histories import random_history, replay, updates_of

HISTORIES = 1000
PARTS = 10


def cut_at(full_state: bytes, then: Doc[Any]) -> Doc[Any]:
    """The full document that `then`, collected or not, is of."""
    doc: Doc[Any] = Doc(skip_gc=True)
    known = decode_state_vector(then.get_state())
    doc.apply_update(cut(full_state, known=known, delete_set=encoded_delete_set_of(then)))
    return doc


@pytest.mark.parametrize("part", range(PARTS))
def test_every_moment_of_a_random_history_is_what_a_replay_gives(part: int) -> None:
    for seed in range(part, HISTORIES, PARTS):
        rng = random.Random(seed)
        rows = random_history(
            seed, clients=rng.choice([1, 3, 5]), concurrency=rng.choice([0, 0.3, 0.7]), skip_gc=rng.random() < 0.5
        )
        full_state = replay(rows, skip_gc=True).get_update()
        for k in rng.sample(range(len(rows) + 1), 4):
            there = cut_at(full_state, replay(rows[:k]))
            replayed = replay(rows[:k], skip_gc=True)
            assert there.get_update() == replayed.get_update(), (seed, k)
            assert delete_set_of(there) == delete_set_of(replayed)


def test_text_and_values_that_were_joined_are_cut_between_two_of_their_units() -> None:
    doc: Doc[Any] = Doc(client_id=1, skip_gc=True)
    text, array = doc.get("t", type=Text), doc.get("a", type=Array)
    updates = []
    for letter in ("é", "b", "😀", "d"):
        updates += updates_of(doc, partial(text.insert, len(str(text).encode()), letter))
    for value in (1, {"k": [2]}, "three"):
        updates += updates_of(doc, partial(array.append, value))
    joined = doc.get_update()
    assert len(decode_update(joined).structs) == 2
    for k in range(len(updates) + 1):
        assert cut_at(joined, replay(updates[:k])).get_update() == replay(updates[:k], skip_gc=True).get_update()


def test_deleted_and_collected_units_are_cut_too() -> None:
    collected = b"\x01\x02\x00\x00\x05"
    deleted = b"\x01\x01\x00\x01\x01\x01r\x05"
    there = cut(b"\x02" + collected + deleted + b"\x00", known={1: 2, 2: 3}, delete_set=b"\0")
    assert [(each.client, each.length) for each in decode_update(there).structs] == [(2, 3), (1, 2)]


def test_a_moment_inside_of_a_character_is_refused() -> None:
    doc: Doc[Any] = Doc({"t": Text("a😀")}, client_id=1)
    with pytest.raises(UnicodeDecodeError):
        cut(doc.get_update(), known={1: 2}, delete_set=b"\0")


def test_a_state_that_ends_too_early_is_refused() -> None:
    state = replay(random_history(1), skip_gc=True).get_update()
    doc: Doc[Any] = Doc()
    doc.apply_update(state)
    structs = len(state) - len(encode_id_set(delete_set_of(doc)))
    for length in range(0, structs, 7):
        with pytest.raises(Malformed):
            cut(state[:length], known=decode_state_vector(doc.get_state()), delete_set=b"\0")


@pytest.mark.parametrize("seed", range(20))
def test_an_encoded_delete_set_is_what_is_deleted(seed: int) -> None:
    doc = replay(random_history(seed))
    assert id_set(decode_update(b"\0" + encoded_delete_set_of(doc)).deletes) == delete_set_of(doc) != {}
