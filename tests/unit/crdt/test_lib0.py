"""Integers are read within bounds, whatever the bytes claim."""

import pytest

from history.crdt.lib0 import SAFE_INTEGER_MAX, Malformed, Reader, var_uint


@pytest.mark.parametrize("encoded", [b"\xff" * 7 + b"\x10", b"\x80" * 7 + b"\x10"])
def test_an_integer_just_above_53_bits_is_malformed(encoded: bytes) -> None:
    assert Reader(var_uint(SAFE_INTEGER_MAX)).var_uint() == SAFE_INTEGER_MAX
    with pytest.raises(Malformed):
        Reader(encoded).var_uint()


def test_a_signed_integer_has_an_end() -> None:
    with pytest.raises(Malformed):
        Reader(b"\xff" * 11 + b"\x01").var_int()
