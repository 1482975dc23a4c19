"""Joining what one client wrote in one go but sends in many structs, before pycrdt sees it.

At the end of a transaction yrs joins neighbours pair by pair and keeps every copy until it is done: 40 KB in 4,000
structs took 1.4 GB. Stock clients join what they send; `mergeUpdates`, of Yjs and pycrdt alike, does not."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from history.crdt.idsets import IdSet, id_set
from history.crdt.lib0 import Reader, var_uint
from history.crdt.updates import Kind, Struct, Update, content_position, decode_update, read_struct

JOINED_BYTES_MIN = 4096
"""Smaller updates are left alone: joining theirs costs yrs 8 MB at most."""

_STRING, _ANY = Kind.STRING, Kind.ANY
_NOTHING: Mapping[int, int] = {}


def joined(update: bytes, *, decoded: Update | None = None, known: Mapping[int, int] = _NOTHING) -> bytes:
    """The same update (v1), each text or list of values that goes on where the struct before it ends in that one.

    `decoded` spares reading it; `known` is the state vector of the document that is to take it: what that holds is
    joined to nothing. Neighbours of which the same update deletes one stay apart, as in Yjs: so does the value of a key
    from those that it replaced. The same object is returned where nothing is joined.
    Raises: Malformed, RefusedUpdate."""
    if len(update) < JOINED_BYTES_MIN:
        return update
    decoded = decoded or decode_update(update)
    if not any(_goes_on(before, struct) for before, struct in pairwise(decoded.structs)):
        return update
    deleted = id_set(decoded.deletes)
    reader = Reader(update)
    clients = reader.count()
    pieces = [var_uint(clients)]
    for _ in range(clients):
        count, client, clock = reader.count(), reader.var_uint(), reader.var_uint()
        runs = _runs(reader, count, client, clock, known=known.get(client, 0), deleted=deleted)
        pieces += var_uint(len(runs)), var_uint(client), var_uint(clock)
        pieces += map(_written, runs)
    pieces.append(update[reader.position :])
    return b"".join(pieces)


class _Run(NamedTuple):
    """Structs that become one: the first one's bytes as far as its content, or whole where it stands alone."""

    start: bytes
    contents: list[bytes]


def _runs(reader: Reader, count: int, client: int, clock: int, *, known: int, deleted: IdSet) -> list[_Run]:
    """Read one client's structs."""
    update = reader.data
    runs: list[_Run] = []
    last: Struct | None = None
    for _ in range(count):
        start = reader.position
        struct = read_struct(reader, client, clock)
        clock += struct.length
        if struct.kind is not _STRING and struct.kind is not _ANY:
            runs.append(_Run(update[start : reader.position], []))
            last = None
            continue
        content = content_position(update, start)
        if last is None or last.clock < known or not _goes_on(last, struct) or _parted(struct, deleted):
            runs.append(_Run(update[start:content], []))
        runs[-1].contents.append(update[content : reader.position])
        last = struct
    return runs


def _goes_on(before: Struct, struct: Struct) -> bool:
    """Whether a struct goes on where the one before it in the update ends."""
    kind = struct.kind
    return (
        (kind is _STRING or kind is _ANY)
        and kind is before.kind
        and struct.client == before.client
        and struct.origin == (struct.client, struct.clock - 1)
        and struct.right_origin == before.right_origin
    )


def _parted(struct: Struct, deleted: IdSet) -> bool:
    """Whether only one of two neighbours is deleted."""
    if not deleted:
        return False
    return _covers(deleted, struct.client, struct.clock - 1) != _covers(deleted, struct.client, struct.clock)


def _covers(ids: IdSet, client: int, clock: int) -> bool:
    ranges = ids.get(client, ())
    place = bisect_right(ranges, clock, key=itemgetter(0)) - 1
    return place >= 0 and clock < ranges[place][1]


def _written(run: _Run) -> bytes:
    if len(run.contents) < 2:
        return run.start + b"".join(run.contents)
    # Of a text the number counts bytes, of a list values.
    readers = [Reader(content) for content in run.contents]
    numbers = [reader.var_uint() for reader in readers]
    return b"".join([run.start, var_uint(sum(numbers)), *(each.data[each.position :] for each in readers)])
