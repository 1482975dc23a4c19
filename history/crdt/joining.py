"""Joining what one client wrote in one go but sends in many structs, before pycrdt sees it.

At the end of a transaction yrs joins neighbours pair by pair and keeps every copy until it is done: 40 KB in 4,000
structs took 1.4 GB. Stock clients join what they send; `mergeUpdates`, of Yjs and pycrdt alike, does not."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from operator import itemgetter

from history.crdt.idsets import IdSet, id_set
from history.crdt.lib0 import var_string, var_uint
from history.crdt.updates import Kind, Struct, Update, content_position, decode_runs

JOINED_BYTES_MIN = 4096
"""Smaller updates are left alone: joining theirs costs yrs 8 MB at most."""

_STRING, _ANY = Kind.STRING, Kind.ANY
_NOTHING: Mapping[int, int] = {}


def joined(update: bytes, *, decoded: Update | None = None, known: Mapping[int, int] = _NOTHING) -> bytes:
    """The same update (v1), each text or list of values that goes on where the struct before it ends in that one.

    `decoded`, by `decode_runs` and of these very bytes, spares reading it; `known` is the state vector of the document
    that is to take it: what that holds is joined to nothing. Neighbours of which the same update deletes one stay
    apart, as in Yjs: so does the value of a key from those that it replaced. The same object is returned where nothing
    is joined. Raises: Malformed, RefusedUpdate."""
    if len(update) < JOINED_BYTES_MIN:
        return update
    decoded = decoded or decode_runs(update)
    chains = _chains(decoded, known)
    return _with_joined(update, decoded, chains) if chains else update


def _chains(decoded: Update, known: Mapping[int, int]) -> list[tuple[int, int]]:
    """The first and the last place of structs that become one."""
    chains: list[tuple[int, int]] = []
    deleted: IdSet | None = None
    for place, (before, struct) in enumerate(pairwise(decoded.structs), start=1):
        # What goes on behind equal structs is left alone: it is joined to the last of them only, so not to many.
        if not _goes_on(before, struct) or before.times > 1 or before.clock < known.get(before.client, 0):
            continue
        if deleted is None:
            deleted = id_set(decoded.deletes)
        if _parted(struct, deleted):
            continue
        if chains and chains[-1][1] == place - 1:
            chains[-1] = chains[-1][0], place
        else:
            chains.append((place - 1, place))
    return chains


def _with_joined(update: bytes, decoded: Update, chains: list[tuple[int, int]]) -> bytes:
    structs, _, spans = decoded
    counts: dict[int, int] = {}
    firsts: dict[int, int] = {}
    for place, struct in enumerate(structs):
        counts[struct.client] = counts.get(struct.client, 0) + struct.times
        firsts.setdefault(struct.client, place)
    for first, last in chains:
        counts[structs[first].client] -= last - first
    written = [(spans[first][0], spans[last][1], _as_one(update, decoded, first, last)) for first, last in chains]
    for client, place in firsts.items():
        heading = var_uint(counts[client]) + var_uint(client) + var_uint(structs[place].clock)
        written.append((spans[place - 1][1] if place else len(var_uint(len(firsts))), spans[place][0], heading))
    pieces: list[bytes] = []
    copied = 0
    for begin, end, piece in sorted(written):
        pieces += update[copied:begin], piece
        copied = end
    return b"".join([*pieces, update[copied:]])


def _as_one(update: bytes, decoded: Update, first: int, last: int) -> bytes:
    """The bytes of the struct that the structs from `first` to `last` become."""
    structs, spans = decoded.structs[first : last + 1], decoded.spans[first : last + 1]
    head = update[spans[0][0] : content_position(update, spans[0][0])]
    if structs[0].kind is _STRING:
        return head + var_string("".join(str(struct.content) for struct in structs))
    pieces = [head, var_uint(sum(struct.length for struct in structs))]
    for struct, (begin, end) in zip(structs, spans, strict=True):
        pieces.append(update[content_position(update, begin) + len(var_uint(struct.length)) : end])
    return b"".join(pieces)


def _goes_on(before: Struct, struct: Struct) -> bool:
    """Whether a struct goes on where the one before it in the update ends."""
    kind = struct[3]
    return (
        (kind is _STRING or kind is _ANY)
        and struct[4] == (struct[0], struct[1] - 1)
        and struct[0] == before[0]
        and kind is before[3]
        and struct[5] == before[5]
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
