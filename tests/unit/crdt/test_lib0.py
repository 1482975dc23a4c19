"""Integers are read within bounds, whatever the bytes claim."""

import pytest

from history.crdt.lib0 import SAFE_INTEGER_MAX, Malformed, Reader, var_uint


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
