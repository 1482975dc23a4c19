"""Parts of an update: what of it a document can take now, when it cannot take all of it.

The bytes of the structs are copied as they are, so whatever was checked of them still holds."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from history.crdt.lib0 import Reader, var_uint
from history.crdt.updates import (
    DeletedRange,
    MissingDependency,
    Struct,
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
    encoded = [var_uint(len(kept))]
    # Higher client ids first, as Yjs writes them.
    for client in sorted(kept, reverse=True):
        mine = kept[client]
        encoded += [var_uint(len(mine)), var_uint(client), var_uint(mine[0].clock)]
        encoded += [update[slice(*spans[client, struct.clock])] for struct in mine]
    return b"".join(encoded) + _encode_deletes(clipped)


def _with_spans(update: bytes) -> tuple[list[Struct], dict[tuple[int, int], tuple[int, int]], list[DeletedRange]]:
    """An update's structs, where the bytes of each are by (client, clock), and what it deletes."""
    reader = Reader(update)
    structs: list[Struct] = []
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for _ in range(reader.count()):
        count, client, clock = reader.var_uint(), reader.var_uint(), reader.var_uint()
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
