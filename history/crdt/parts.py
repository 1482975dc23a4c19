"""Parts of an update: what of it a document can take now, when it cannot take all of it.

The bytes of the structs are copied as they are, so whatever was checked of them still holds."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from history.crdt.lib0 import var_uint
from history.crdt.updates import (
    DeletedRange,
    MissingDependency,
    PartsReader,
    Struct,
    check_deletes,
    in_causal_order,
    read_deleted_ranges,
    read_struct,
)


def part_of(update: bytes, known: Mapping[int, int], *, without: AbstractSet[int] = frozenset()) -> bytes | None:
    """The part of an update (v1) that a document with the state vector `known` can take and does not have.

    Left out are the structs of the clients in `without`, all that builds on what is not there, and deletions of what
    would still be missing; None where nothing remains. Raises: Malformed, RefusedUpdate."""
    structs, spans, deletes = _with_spans(update)
    reached: dict[int, int] = {}
    kept: dict[int, list[Struct]] = {}
    try:
        wanted = [struct for struct in structs if struct.client not in without]
        for struct, next_clock in in_causal_order(wanted, known, reached):
            if struct.clock + struct.length > next_clock:
                kept.setdefault(struct.client, []).append(struct)
    except MissingDependency:
        pass  # raised after all that can be taken
    clipped = _clipped(deletes, {**known, **reached})
    if not kept and not clipped:
        return None
    return _encode_structs(update, spans, kept) + _encode_deletes(clipped)


WHOLE_PARTS_MAX = 1_000_000
"""Structs, deleted ranges and values of an update that is to be cut into pieces: all are in memory then, in about
1 KB each."""


def pieces_of(update: bytes, known: Mapping[int, int], *, bytes_max: int, parts_max: int) -> Iterator[bytes]:
    """An update (v1) of at most WHOLE_PARTS_MAX as several that say the same one after the other: each builds on those
    before it alone, and has about `bytes_max` bytes and `parts_max` structs, deleted ranges and values at most; a
    larger struct is a piece.

    `known` is the state vector of the document that takes them all.
    Raises, before the first piece: MissingDependency where the whole needs more than that; Malformed, RefusedUpdate."""
    structs, spans, deletes = _with_spans(update, parts_max=WHOLE_PARTS_MAX)
    reached: dict[int, int] = {}
    ordered = [struct for struct, _ in in_causal_order(structs, known, reached)]
    check_deletes(deletes, known, reached)
    room = _Room(bytes_max, parts_max)
    kept: dict[int, list[Struct]] = {}
    for struct in ordered:
        start, stop = spans[struct.client, struct.clock]
        values = len(struct.content) if isinstance(struct.content, list) else 0
        if not room.takes(stop - start, 1 + values) and kept:
            yield _encode_structs(update, spans, kept) + _encode_deletes({})
            kept = {}
        kept.setdefault(struct.client, []).append(struct)
    if kept:
        yield _encode_structs(update, spans, kept) + _encode_deletes({})
    ranges_max = max(1, min(parts_max, bytes_max // RANGE_BYTES_MAX))
    for start in range(0, len(deletes), ranges_max):
        clipped = _clipped(deletes[start : start + ranges_max], {**known, **reached})
        yield _encode_structs(update, spans, {}) + _encode_deletes(clipped)


RANGE_BYTES_MAX = 32
"""Of one deleted range, its client's head included."""


class _Room:
    """What a piece still has room for; what does not go in begins the next one."""

    def __init__(self, bytes_max: int, parts_max: int) -> None:
        self._most = bytes_max, parts_max
        self._bytes = self._parts = 0

    def takes(self, bytes_: int, parts: int) -> bool:
        bytes_max, parts_max = self._most
        self._bytes, self._parts = self._bytes + bytes_, self._parts + parts
        fits = self._bytes <= bytes_max and self._parts <= parts_max
        if not fits:
            self._bytes, self._parts = bytes_, parts
        return fits


def _encode_structs(
    update: bytes, spans: Mapping[tuple[int, int], tuple[int, int]], kept: Mapping[int, list[Struct]]
) -> bytes:
    encoded = [var_uint(len(kept))]
    # Higher client ids first, as Yjs writes them.
    for client in sorted(kept, reverse=True):
        mine = kept[client]
        encoded += [var_uint(len(mine)), var_uint(client), var_uint(mine[0].clock)]
        encoded += [update[slice(*spans[client, struct.clock])] for struct in mine]
    return b"".join(encoded)


def _with_spans(
    update: bytes, *, parts_max: int | None = None
) -> tuple[list[Struct], dict[tuple[int, int], tuple[int, int]], list[DeletedRange]]:
    """An update's structs, where the bytes of each are by (client, clock), and what it deletes."""
    reader = PartsReader(update, parts_max)
    structs: list[Struct] = []
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for _ in range(reader.count()):
        count, client, clock = reader.count(), reader.var_uint(), reader.var_uint()
        for _ in range(count):
            start = reader.position
            struct = read_struct(reader, client, clock)
            spans[client, clock] = start, reader.position
            structs.append(struct)
            clock += struct.length
    deletes = read_deleted_ranges(reader)
    reader.finish()
    return structs, spans, deletes


def _clipped(deletes: list[DeletedRange], there: Mapping[int, int]) -> dict[int, list[tuple[int, int]]]:
    clipped: dict[int, list[tuple[int, int]]] = {}
    for client, clock, length in deletes:
        stop = min(clock + length, there.get(client, 0))
        if stop > clock:
            clipped.setdefault(client, []).append((clock, stop - clock))
    return clipped


def _encode_deletes(deletes: Mapping[int, list[tuple[int, int]]]) -> bytes:
    encoded = [var_uint(len(deletes))]
    for client, ranges in deletes.items():
        encoded += [var_uint(client), var_uint(len(ranges))]
        encoded += [var_uint(number) for span in ranges for number in span]
    return b"".join(encoded)
