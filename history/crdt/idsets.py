"""Sets of unit ids (client, clock), as Yjs keeps what was deleted.

An `IdSet` is always normalised: ranges of a client rise, never touch or overlap, and are never empty, so equal sets
are equal values and have one encoding. Source: yjs src/utils/DeleteSet.js."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from sys import maxsize
from typing import Any, TypeAlias

from pycrdt import Doc, Snapshot

from history.crdt.lib0 import Reader, var_uint
from history.crdt.updates import read_deleted_ranges

Range: TypeAlias = tuple[int, int]
"""(first clock, clock after the last one), never empty."""

IdSet: TypeAlias = Mapping[int, tuple[Range, ...]]
"""client → its ranges; a client without ranges is left out."""


def id_set(ranges: Iterable[tuple[int, int, int]]) -> IdSet:
    """Build a normalised set from (client, clock, length) in any order, overlapping or not; length 0 adds nothing."""
    by_client: dict[int, list[Range]] = {}
    for client, clock, length in ranges:
        if length > 0:
            by_client.setdefault(client, []).append((clock, clock + length))
    return {client: _merged(spans) for client, spans in by_client.items()}


def _merged(spans: list[Range]) -> tuple[Range, ...]:
    spans.sort()
    merged = [spans[0]]
    for start, stop in spans[1:]:
        last_start, last_stop = merged[-1]
        if start <= last_stop:
            merged[-1] = last_start, max(last_stop, stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def triples(ids: IdSet) -> Iterable[tuple[int, int, int]]:
    """Yield (client, clock, length) of each range."""
    for client, ranges in ids.items():
        for start, stop in ranges:
            yield client, start, stop - start


def subtract(ids: IdSet, without: IdSet) -> IdSet:
    """Return the ids of the first set that are not in the second."""
    left = {client: _left_over(ranges, without.get(client, ())) for client, ranges in ids.items()}
    return {client: ranges for client, ranges in left.items() if ranges}


def _left_over(ranges: tuple[Range, ...], holes: tuple[Range, ...]) -> tuple[Range, ...]:
    left: list[Range] = []
    for start, stop in ranges:
        place = bisect_right(holes, start, key=_stop_of)  # a few ranges against many holes: not all are looked at
        while place < len(holes) and holes[place][0] < stop:
            hole_start, hole_stop = holes[place]
            if hole_start > start:
                left.append((start, hole_start))
            start = max(start, hole_stop)
            place += 1
        if start < stop:
            left.append((start, stop))
    return tuple(left)


def _stop_of(span: Range) -> int:
    return span[1]


def union(*sets: IdSet) -> IdSet:
    """Return the ids that are in any of the sets."""
    return id_set(triple for ids in sets for triple in triples(ids))


def intersect(ids: IdSet, other: IdSet) -> IdSet:
    """Return the ids that are in both sets."""
    return subtract(ids, subtract(ids, other))


def contains(ids: IdSet, client: int, clock: int) -> bool:
    """Whether one unit is in the set."""
    return span_at(ids, client, clock)[2]


def span_at(ids: IdSet, client: int, clock: int) -> tuple[int, int, bool]:
    """The range of the set, or the gap in it, that a unit is in: (first clock, clock after the last, in the set)."""
    ranges = ids.get(client, ())
    place = bisect_right(ranges, clock, key=_stop_of)
    if place < len(ranges) and ranges[place][0] <= clock:
        return *ranges[place], True
    return (ranges[place - 1][1] if place else 0), (ranges[place][0] if place < len(ranges) else maxsize), False


def clipped(ids: IdSet, client: int, start: int, stop: int) -> tuple[Range, ...]:
    """The ranges of a client in the set, as far as they lie from `start` to before `stop`."""
    ranges = ids.get(client, ())
    place = bisect_right(ranges, start, key=_stop_of)
    found: list[Range] = []
    while place < len(ranges) and ranges[place][0] < stop:
        found.append((max(ranges[place][0], start), min(ranges[place][1], stop)))
        place += 1
    return tuple(found)


def between(before: Mapping[int, int], after: Mapping[int, int]) -> IdSet:
    """Return the ids that a document with state vector `after` has and one with `before` lacks."""
    return id_set((client, before.get(client, 0), clock - before.get(client, 0)) for client, clock in after.items())


def encode_id_set(ids: IdSet) -> bytes:
    """Write an id set in its one canonical form: clients in falling order as in Yjs, ranges rising."""
    parts = [var_uint(len(ids))]
    for client in sorted(ids, reverse=True):
        parts += (var_uint(client), var_uint(len(ids[client])))
        for start, stop in ids[client]:
            parts += (var_uint(start), var_uint(stop - start))
    return b"".join(parts)


def delete_set_of(doc: Doc[Any]) -> IdSet:
    """Return what is deleted in a document.

    Must not run inside one of the document's transactions: pycrdt's snapshot would wait for it for ever."""
    return delete_set_in(encoded_snapshot(doc))


def encoded_snapshot(doc: Doc[Any]) -> bytes:
    """Return a document's delete set and state vector as bytes, for `delete_set_in`; as `delete_set_of` otherwise."""
    return Snapshot.from_doc(doc).encode()


def encoded_delete_set_of(doc: Doc[Any]) -> bytes:
    """As `delete_set_of`, as updates end with it: nothing of it is read."""
    # The state vector stands behind it, whose clients come in any order, but which is always as long.
    return encoded_snapshot(doc)[: -len(doc.get_state())]


def delete_set_in(encoded: bytes) -> IdSet:
    """Read the delete set of `encoded_snapshot`, which the state vector follows."""
    return id_set(read_deleted_ranges(Reader(encoded)))
