"""Packed rows: a run of the log as columns under zstd, a seventh of what the payloads alone take.

Lossless: `unpack(pack(rows)) == rows`. Bytes that `pack` did not make raise `Malformed` and nothing else, before
more than BODY_BYTES_MAX is allocated. Squash writes segments with it, every reader of the log reads them."""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import zstandard

from history.crdt.lib0 import Malformed, Reader, var_uint

CODEC = 1
"""The first byte of what `pack` writes, and `codec` of the segments that hold it."""

BODY_BYTES_MAX = 256 * 1024 * 1024
"""Rows of one segment, unpacked; a header that claims more is refused unread."""

ROWS_MAX = 100_000
"""Rows of one segment; a body of zeros would else become hundreds of bytes of objects for each twelve of its own."""

LEVEL = 15
"""B4 in segments of 4,000 rows, bytes an update with its simulated time: 3.51 at level 9, 3.44 at 12, 3.32 at 15,
3.31 at 19, which takes three times as long. Concatenated payloads in place of planes: 2.3 bytes more at each."""

WINDOW_LOG_MAX = 22
"""4 MiB: a segment at human speed is 150 KiB, so that a larger window saves nothing and costs every reader memory."""

PLANES_LENGTH_MAX = 64
"""Payloads up to this length are laid out as planes; longer ones are texts of their own, which zstd does as well."""

_WORD = 1 << 64


class PackedRow(NamedTuple):
    """One update of a log without its seq and hash: the first follows from its place, the second from the chain.

    `session_id` and `at_microseconds` (since 1970) are 64-bit, `kind` 16-bit signed integers, as in the database."""

    session_id: int
    kind: int
    at_microseconds: int
    payload: bytes


class PackedColumns(NamedTuple):
    """The same updates as columns of equal length: who folds a segment needs its payloads alone."""

    session_ids: list[int]
    kinds: list[int]
    at_microseconds: list[int]
    payloads: list[bytes]


def pack(rows: Sequence[PackedRow]) -> bytes:
    """Pack rows, in their order.

    Raises: ValueError above ROWS_MAX, or above BODY_BYTES_MAX of payloads and 12 bytes a row."""
    body = b"".join(
        (
            var_uint(len(rows)),
            _runs([row.session_id for row in rows]),
            _runs([row.kind for row in rows]),
            _planes(b"".join(struct.pack("<Q", gap) for gap in _gaps(rows)), width=8),
            _planes(struct.pack(f"<{len(rows)}I", *(len(row.payload) for row in rows)), width=4),
            _payload_planes([row.payload for row in rows]),
        )
    )
    if len(rows) > ROWS_MAX or len(body) > BODY_BYTES_MAX:
        raise ValueError(f"{len(rows)} rows of {len(body)} bytes do not fit one segment")
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(body), window_log=_window_log(len(body)), write_checksum=True
    )
    return bytes([CODEC]) + zstandard.ZstdCompressor(compression_params=parameters).compress(body)


def unpack(data: bytes) -> list[PackedRow]:
    """Read what `pack` wrote. Raises: Malformed."""
    return list(map(PackedRow, *unpack_columns(data)))


def unpack_columns(data: bytes) -> PackedColumns:
    """Read what `pack` wrote, without an object for each row: 1.8 ms for 4,000 keystrokes, not 2.6.

    Raises: Malformed."""
    reader = Reader(_body(data))
    count = reader.count(item_bytes_min=12)
    if count > ROWS_MAX:
        raise Malformed("more packed rows than ROWS_MAX")
    sessions = _read_runs(reader, count)
    kinds = _read_runs(reader, count)
    times = _read_times(reader, count)
    lengths = struct.unpack(f"<{count}I", _read_planes(reader, count, width=4))
    payloads = _read_payload_planes(reader, lengths)
    reader.finish()
    return PackedColumns(sessions, kinds, times, payloads)


def _body(data: bytes) -> bytes:
    if data[:1] != bytes([CODEC]):
        raise Malformed("packed rows of an unknown codec")
    frame = data[1:]
    try:
        # The size in the header is what the library allocates, so it is looked at first.
        size = zstandard.get_frame_parameters(frame).content_size
        if size > BODY_BYTES_MAX:  # also where the header does not say: CONTENTSIZE_UNKNOWN is 2^64 - 1
            raise Malformed("packed rows are larger than BODY_BYTES_MAX")
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MAX)
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(f"packed rows do not decompress: {error}") from None


def _window_log(size: int) -> int:
    """The smallest window that holds the body, within zstd's least and WINDOW_LOG_MAX."""
    return min(max(size.bit_length(), zstandard.WINDOWLOG_MIN), WINDOW_LOG_MAX)


def _runs(values: Sequence[int]) -> bytes:
    """A dictionary of 64-bit values in order of appearance, then runs of (place in it, length)."""
    place = {value: number for number, value in enumerate(dict.fromkeys(values))}
    parts = [var_uint(len(place)), struct.pack(f"<{len(place)}q", *place)]
    for value, run in groupby(values):
        parts += (var_uint(place[value]), var_uint(len(list(run))))
    return b"".join(parts)


def _read_runs(reader: Reader, count: int) -> list[int]:
    size = reader.count(item_bytes_min=8)
    if size > count:
        raise Malformed("a dictionary of packed rows is larger than its column")
    dictionary = struct.unpack(f"<{size}q", reader.take(8 * size))
    values: list[int] = []
    while len(values) < count:
        place, length = reader.var_uint(), reader.var_uint()
        if place >= size or not 0 < length <= count - len(values):
            raise Malformed("a run of packed rows reaches past its column")
        values += [dictionary[place]] * length
    return values


def _gaps(rows: Sequence[PackedRow]) -> list[int]:
    """The first time and then each distance to the one before, modulo 2^64: lossless also where times fall."""
    times = [0, *(row.at_microseconds for row in rows)]
    return [(after - before) % _WORD for before, after in pairwise(times)]


def _read_times(reader: Reader, count: int) -> list[int]:
    times = list(accumulate(struct.unpack(f"<{count}Q", _read_planes(reader, count, width=8))))
    if times and times[-1] >= _WORD // 2:  # some of them fall, or lie before 1970
        return [(time + _WORD // 2) % _WORD - _WORD // 2 for time in times]
    return times


def _planes(items: bytes, *, width: int) -> bytes:
    """Items of `width` bytes each, laid out as all first bytes, then all second bytes, and so on."""
    return b"".join(items[place::width] for place in range(width))


def _read_planes(reader: Reader, count: int, *, width: int) -> bytes:
    items = bytearray(count * width)
    for place in range(width):
        items[place::width] = reader.take(count)
    return bytes(items)


def _payload_planes(payloads: Sequence[bytes]) -> bytes:
    """Payloads grouped by length, lengths in order of appearance.

    Keystrokes of one length differ in a clock and a letter: as planes, all else of them compresses to nothing."""
    groups: dict[int, list[bytes]] = {}
    for payload in payloads:
        groups.setdefault(len(payload), []).append(payload)
    return b"".join(
        _planes(b"".join(group), width=length) if length <= PLANES_LENGTH_MAX else b"".join(group)
        for length, group in groups.items()
    )


def _read_payload_planes(reader: Reader, lengths: Sequence[int]) -> list[bytes]:
    if sum(lengths) != reader.remaining:
        raise Malformed("payloads of packed rows are not as long as the body")
    groups: dict[int, Iterator[bytes]] = {}
    for length, count in Counter(lengths).items():
        planes = length <= PLANES_LENGTH_MAX
        group = _read_planes(reader, count, width=length) if planes else reader.take(count * length)
        groups[length] = _pieces(group, count, length)
    return [next(groups[length]) for length in lengths]


def _pieces(group: bytes, count: int, length: int) -> Iterator[bytes]:
    return (group[place * length : (place + 1) * length] for place in range(count))
