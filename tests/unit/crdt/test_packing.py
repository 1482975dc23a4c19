"""Packed rows lose nothing, and bytes that are none are refused without harm."""

import contextlib
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from history.crdt import packing
from history.crdt.lib0 import Malformed, var_uint
from history.crdt.packing import CODEC, PackedRow, pack, unpack
from tests.builders import typed

_INT64 = st.integers(-(2**63), 2**63 - 1)
_ROWS = st.lists(
    st.builds(
        PackedRow,
        st.sampled_from([1, 2, 2**52 - 1]) | _INT64,
        st.integers(1, 7) | st.integers(-(2**15), 2**15 - 1),
        _INT64,
        st.binary(max_size=20) | st.binary(min_size=60, max_size=70),
    )
)


def _keystrokes(count: int) -> list[PackedRow]:
    rng = random.Random(1)
    at = 1_790_000_000_000_000
    rows = []
    for update in typed("".join(rng.choice("etaoin shrdlu") for _ in range(count)), client_id=3_000_000_000):
        at += int(rng.lognormvariate(-1.9, 0.8) * 1_000_000)
        rows.append(PackedRow(2**52 - 5, 1, at, update))
    return rows


def _recompressed(body: bytes) -> bytes:
    return bytes([CODEC]) + zstandard.ZstdCompressor().compress(body)


def _body(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data[1:])


@given(_ROWS)
def test_rows_come_back_as_they_were(rows: list[PackedRow]) -> None:
    assert unpack(pack(rows)) == rows


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_malformed(data: bytes) -> None:
    for each in (data, bytes([CODEC]) + data, _recompressed(data)):
        with contextlib.suppress(Malformed):
            unpack(each)


@given(_ROWS.filter(bool), st.data())
def test_a_garbled_body_under_a_right_checksum_is_rows_or_malformed(rows: list[PackedRow], data: st.DataObject) -> None:
    body = bytearray(_body(pack(rows)))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Malformed):
        unpack(_recompressed(bytes(body)))


def test_input_cut_at_any_byte_is_malformed() -> None:
    packed = pack(_keystrokes(50))
    body = _body(packed)
    for end in range(len(packed)):
        with pytest.raises(Malformed):
            unpack(packed[:end])
    for end in range(len(body)):
        with pytest.raises(Malformed):
            unpack(_recompressed(body[:end]))
    for longer in (packed + b"\x00", packed + packed[1:], _recompressed(body + b"\x00")):
        with pytest.raises(Malformed):
            unpack(longer)


def test_a_flipped_bit_is_found_by_the_checksum() -> None:
    packed = pack(_keystrokes(20))
    for place in range(1, len(packed)):
        for bit in range(8):
            garbled = bytearray(packed)
            garbled[place] ^= 1 << bit
            with contextlib.suppress(Malformed):
                assert unpack(bytes(garbled)) == unpack(packed)  # a header bit that says nothing


def test_a_body_larger_than_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = _recompressed(bytes(1_000_000))
    assert len(bomb) < 200
    monkeypatch.setattr(packing, "BODY_BYTES_MAX", 999_999)
    with pytest.raises(Malformed, match="larger"):
        unpack(bomb)
    with pytest.raises(ValueError, match="do not fit"):
        pack([PackedRow(1, 1, 1, bytes(1_000_000))])


def test_a_frame_that_does_not_say_its_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(Malformed):
        unpack(bytes([CODEC]) + compressor.compress(_body(pack(_keystrokes(3)))))


def test_more_rows_than_the_limit_are_refused() -> None:
    with pytest.raises(Malformed, match="ROWS_MAX"):
        unpack(_recompressed(var_uint(packing.ROWS_MAX + 1) + bytes(13 * packing.ROWS_MAX)))
    with pytest.raises(ValueError, match="do not fit"):
        pack([PackedRow(1, 1, 1, b"")] * (packing.ROWS_MAX + 1))


def test_an_unknown_codec_is_malformed() -> None:
    with pytest.raises(Malformed, match="codec"):
        unpack(bytes([CODEC + 1]) + pack([])[1:])


def test_a_keystroke_takes_less_than_five_bytes_with_its_time_and_session() -> None:
    rows = _keystrokes(4000)
    assert len(pack(rows)) < 5 * len(rows)
