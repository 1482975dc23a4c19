"""What was written is read back, and whatever bytes claim is read within bounds."""

import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from history.crdt.lib0 import (
    ANY_DEPTH_MAX,
    SAFE_INTEGER_MAX,
    AnyValue,
    Malformed,
    Reader,
    var_bytes,
    var_string,
    var_uint,
)

INTEGERS = st.integers(0, SAFE_INTEGER_MAX) | st.integers(0, 60).map(lambda bits: min(1 << bits, SAFE_INTEGER_MAX))


def written(value: AnyValue) -> bytes:
    """As lib0's `writeAny` does, but that integers beyond 31 bits are written as such too."""
    match value:
        case None:
            return b"\x7e"
        case bool():
            return b"\x78" if value else b"\x79"
        case int():
            magnitude = abs(value)
            first = (0x40 if value < 0 else 0) | magnitude & 0x3F
            return b"\x7d" + (bytes([first]) if magnitude < 64 else bytes([first | 0x80]) + var_uint(magnitude >> 6))
        case float():
            return b"\x7b" + struct.pack(">d", value)
        case str():
            return b"\x77" + var_string(value)
        case bytes():
            return b"\x74" + var_bytes(value)
        case list():
            return b"\x75" + var_uint(len(value)) + b"".join(map(written, value))
        case dict():
            pairs = b"".join(var_string(key) + written(item) for key, item in value.items())
            return b"\x76" + var_uint(len(value)) + pairs


VALUES: st.SearchStrategy[AnyValue] = st.recursive(
    st.none()
    | st.booleans()
    | INTEGERS
    | INTEGERS.map(lambda number: -number)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(INTEGERS)
def test_an_integer_comes_back_and_has_one_form(number: int) -> None:
    reader = Reader(var_uint(number) + b"?")
    assert (reader.var_uint(), reader.remaining) == (number, 1)


@given(st.lists(st.sampled_from([0, 1, 0x10, 0x7F, 0x80, 0xFF]), max_size=9).map(bytes))
def test_bytes_that_are_read_as_an_integer_are_those_that_it_is_written_as(data: bytes) -> None:
    reader = Reader(data)
    with suppress(Malformed):
        assert var_uint(reader.var_uint()) == data[: reader.position]


@given(VALUES)
@example([[]] * 3 + [{"": {}}, []])
def test_any_value_comes_back_as_it_was(value: AnyValue) -> None:
    reader = Reader(written(value) + b"?")
    assert repr(reader.any()) == repr(value)
    assert reader.remaining == 1


@given(VALUES, st.data())
def test_a_value_that_is_cut_off_is_malformed(value: AnyValue, data: st.DataObject) -> None:
    encoded = written(value)
    with pytest.raises(Malformed):
        Reader(encoded[: data.draw(st.integers(0, len(encoded) - 1))]).any()


@given(st.lists(st.sampled_from([*range(116, 128), 0, 1, 2, 0x7F, 0x80, 0xFF]), max_size=40).map(bytes))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    reader = Reader(data)
    with suppress(Malformed):
        reader.any()
        assert 0 < reader.position <= len(data)


@pytest.mark.parametrize(("depth", "is_read"), [(ANY_DEPTH_MAX, True), (ANY_DEPTH_MAX + 1, False), (30_000, False)])
def test_values_are_read_to_a_certain_depth(depth: int, is_read: bool) -> None:
    encoded = b"\x75\x01" * depth + b"\x7e"
    if is_read:
        Reader(encoded).any()
    else:
        with pytest.raises(Malformed, match="deeper"):
            Reader(encoded).any()


@pytest.mark.parametrize("encoded", [b"\xff" * 7 + b"\x10", b"\x80" * 7 + b"\x10"])
def test_an_integer_just_above_53_bits_is_malformed(encoded: bytes) -> None:
    assert Reader(var_uint(SAFE_INTEGER_MAX)).var_uint() == SAFE_INTEGER_MAX
    with pytest.raises(Malformed):
        Reader(encoded).var_uint()


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"\x00", 0),
        (b"\x40", 0),  # JavaScript's negative zero
        (b"\x7f", -63),
        (b"\x80\x01", 64),
        (b"\xbf" + b"\xff" * 6 + b"\x1f", SAFE_INTEGER_MAX),
        (b"\xff" + b"\xff" * 6 + b"\x1f", -SAFE_INTEGER_MAX),
    ],
)
def test_a_signed_integer_is_read_up_to_53_bits(encoded: bytes, value: int) -> None:
    reader = Reader(encoded)
    assert (reader.var_int(), reader.remaining) == (value, 0)


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x80" + b"\x80" * 6 + b"\x20",  # 2^53
        b"\xbf" + b"\xff" * 8 + b"\x7f",  # 69 bits, which yrs reads as -1
        b"\xff" * 400_000 + b"\x01",
        b"\x80\x00",
        b"\xc0\x80\x00",
        b"\x80",
        b"",
    ],
)
def test_a_signed_integer_that_is_longer_or_not_in_its_shortest_form_is_malformed(encoded: bytes) -> None:
    with pytest.raises(Malformed):
        Reader(encoded).var_int()
