"""Whether a state is that of a document unit by unit: not only what it says, but who wrote it, and what was deleted.

Equal documents have many encodings: structs are cut and joined anywhere, clients and keys come in any order, and what
was deleted may have been collected. `history.proof.verify` holds snapshots to the log with it."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from math import isnan
from typing import Any

from history.crdt.idsets import IdSet
from history.crdt.updates import Id, Kind, Struct, decode_update

_COLLECTED = frozenset({Kind.GC, Kind.DELETED})


def first_difference(state: bytes, full: bytes, deleted: IdSet) -> Id | None:
    """The first unit that `state` has not as `full` has it; None where both are states of one document.

    `full` has never been collected; `state` may be, where `deleted` says that it was deleted. That both know equally
    much and have deleted the same is the caller's to compare. Raises: Malformed, RefusedUpdate."""
    ours, theirs = _by_client(state), _by_client(full)
    for client in sorted(ours.keys() | theirs.keys()):
        clock = _differs(ours.get(client, ()), theirs.get(client, ()), deleted.get(client, ()))
        if clock is not None:
            return client, clock
    return None


def _by_client(state: bytes) -> dict[int, list[Struct]]:
    structs: dict[int, list[Struct]] = {}
    for struct in decode_update(state).structs:
        structs.setdefault(struct.client, []).append(struct)
    return structs


def _differs(ours: Sequence[Struct], theirs: Sequence[Struct], deleted: Sequence[tuple[int, int]]) -> int | None:
    """The clock of the first unit that differs; both are one client's structs, in rising order and without gaps."""
    clock = mine = other = 0
    while mine < len(ours) and other < len(theirs):
        one, two = ours[mine], theirs[other]
        if not (one.clock <= clock < one.stop and two.clock <= clock < two.stop):
            return clock
        stop = min(one.stop, two.stop)
        if not _same(one, two, clock, stop) and not _is_collected(one, two, clock, stop, deleted):
            return clock
        mine += stop == one.stop
        other += stop == two.stop
        clock = stop
    return clock if mine < len(ours) or other < len(theirs) else None


def _same(one: Struct, two: Struct, clock: int, stop: int) -> bool:
    return (
        one.kind is two.kind
        and _place(one, clock) == _place(two, clock)
        and _same_content(one.kind, _content(one, clock, stop), _content(two, clock, stop))
    )


def _is_collected(one: Struct, two: Struct, clock: int, stop: int, deleted: Sequence[tuple[int, int]]) -> bool:
    """Whether these units of the first are only left out because they were deleted."""
    span = bisect_right(deleted, clock, key=lambda each: each[0]) - 1
    if one.kind not in _COLLECTED or span < 0 or deleted[span][1] < stop:
        return False
    return one.kind is Kind.GC or _place(one, clock) == _place(two, clock)


def _place(struct: Struct, clock: int) -> tuple[object, ...]:
    """Where the unit stands: one inside a struct stands behind the one before it."""
    if clock > struct.clock:
        return (struct.client, clock - 1), struct.right_origin, None, None
    return struct.origin, struct.right_origin, struct.parent, struct.parent_key


def _content(struct: Struct, clock: int, stop: int) -> Any:
    begin, end = clock - struct.clock, stop - struct.clock
    match struct.content:
        case str() as text if struct.kind is Kind.STRING:
            if begin == 0 and end == struct.length:
                return text
            if text.isascii():
                return text[begin:end]
            return text.encode("utf-16-le")[2 * begin : 2 * end].decode("utf-16-le", "surrogatepass")
        case list() as values:
            return values[begin:end]
        case content:
            return content


def _same_content(kind: Kind, one: Any, two: Any) -> bool:
    if kind is Kind.ANY:
        return _same_value(one, two)
    if one == two:
        return True
    if kind is Kind.EMBED:
        return _same_value(json.loads(one), json.loads(two))
    if kind is Kind.FORMAT:
        return bool(one.key == two.key) and _same_value(json.loads(one.value), json.loads(two.value))
    return False


def _same_value(one: Any, two: Any) -> bool:
    """As `==`, but 1 is not true, and what is not a number is itself."""
    if type(one) is not type(two):
        return False
    match one:
        case dict():
            return one.keys() == two.keys() and all(_same_value(each, two[key]) for key, each in one.items())
        case list():
            return len(one) == len(two) and all(map(_same_value, one, two))
        case float():
            return bool(one == two) or (isnan(one) and isnan(two))
        case _:
            return bool(one == two)
