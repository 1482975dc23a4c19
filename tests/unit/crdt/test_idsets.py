"""Sets of ids: algebra against plain Python sets, and the bytes that pycrdt reads and writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import IdSet as PycrdtIdSet

from history.crdt.idsets import (
    IdSet,
    between,
    delete_set_of,
    encode_id_set,
    id_set,
    subtract,
    triples,
)
from history.crdt.lib0 import Malformed, Reader
from history.crdt.updates import read_deleted_ranges
from tests.histories import random_history, replay

TRIPLES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30), st.integers(0, 8)), max_size=12)


def units(ids: IdSet) -> set[tuple[int, int]]:
    return {(client, clock + i) for client, clock, length in triples(ids) for i in range(length)}


def read(data: bytes) -> IdSet:
    reader = Reader(data)
    ids = id_set(read_deleted_ranges(reader))
    reader.finish()
    return ids


@given(TRIPLES, TRIPLES)
def test_the_algebra_is_that_of_sets(first: list[tuple[int, int, int]], second: list[tuple[int, int, int]]) -> None:
    a, b = id_set(first), id_set(second)
    assert units(a) == {(client, clock + i) for client, clock, length in first for i in range(length)}
    assert units(subtract(a, b)) == units(a) - units(b)


@given(TRIPLES)
def test_equal_sets_have_one_encoding(ranges: list[tuple[int, int, int]]) -> None:
    ids = id_set(ranges)
    assert encode_id_set(id_set(reversed(ranges))) == encode_id_set(ids)
    assert read(encode_id_set(ids)) == ids
    assert read(PycrdtIdSet.decode(encode_id_set(ids)).encode()) == ids


def test_a_cut_set_is_malformed() -> None:
    encoded = encode_id_set(id_set([(1, 2, 3), (5, 0, 200)]))
    for stop in range(len(encoded)):
        with pytest.raises(Malformed):
            read(encoded[:stop])


def test_between_two_state_vectors_lies_what_was_inserted() -> None:
    assert between({1: 3, 2: 5}, {1: 4, 2: 5, 7: 2}) == {1: ((3, 4),), 7: ((0, 2),)}


@pytest.mark.parametrize("seed", range(10))
def test_the_delete_set_of_a_document_is_the_union_of_its_rows_deletes(seed: int) -> None:
    rows = random_history(seed, skip_gc=True)
    middle = len(rows) // 2
    at, head = replay(rows[:middle], skip_gc=True), replay(rows, skip_gc=True)
    assert subtract(delete_set_of(at), delete_set_of(head)) == {}
    assert delete_set_of(replay(rows)) == delete_set_of(head)
