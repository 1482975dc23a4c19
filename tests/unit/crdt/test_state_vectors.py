"""State vectors are decoded in full before pycrdt sees them, and cost no more than their own bytes."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from history.crdt.lib0 import Malformed, var_uint
from history.crdt.state_vectors import EMPTY_STATE_VECTOR, decode_state_vector
from tests.unit.protocols.builders import encode_state_vector, state_vectors


@given(state_vectors)
def test_a_state_vector_is_read_back_as_it_was_written(clocks: dict[int, int]) -> None:
    assert decode_state_vector(encode_state_vector(clocks)) == clocks


def test_a_single_zero_byte_is_the_empty_state_vector() -> None:
    assert decode_state_vector(EMPTY_STATE_VECTOR) == {}
    assert encode_state_vector({}) == EMPTY_STATE_VECTOR == Doc[Text]().get_state()


def test_the_state_vector_of_a_pycrdt_document_is_read() -> None:
    doc = Doc[Text](client_id=77)
    doc["body"] = Text("hello")
    assert decode_state_vector(doc.get_state()) == {77: 5}


@given(state_vectors)
def test_a_state_vector_cut_short_or_followed_by_a_byte_is_malformed(clocks: dict[int, int]) -> None:
    encoded = encode_state_vector(clocks)
    for damaged in [*(encoded[:length] for length in range(len(encoded))), encoded + b"\0"]:
        with pytest.raises(Malformed):
            decode_state_vector(damaged)


@pytest.mark.parametrize("claimed", [1 << 28, (1 << 53) - 1, 1 << 53, 1 << 80])
def test_a_few_bytes_that_claim_many_clients_allocate_nothing(claimed: int) -> None:
    hostile = var_uint(claimed)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode_state_vector(hostile)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


@given(st.integers(0, 100))
def test_a_client_that_is_named_twice_is_malformed(clock: int) -> None:
    with pytest.raises(Malformed):
        decode_state_vector(b"\x02\x07" + var_uint(clock) + b"\x07\x01")


def test_a_clock_that_yrs_cannot_count_is_malformed() -> None:
    assert decode_state_vector(b"\x01\x07" + var_uint(2**31 - 1)) == {7: 2**31 - 1}
    with pytest.raises(Malformed):
        decode_state_vector(b"\x01\x07" + var_uint(2**31))


def test_more_clients_than_the_limit_are_malformed() -> None:
    encoded = encode_state_vector(dict.fromkeys(range(5), 1))
    assert len(decode_state_vector(encoded, clients_max=5)) == 5
    with pytest.raises(Malformed):
        decode_state_vector(encoded, clients_max=4)
