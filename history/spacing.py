"""Where a document's snapshots stand: on a grid over its whole life, so that opening any moment replays a bounded
number of rows, and closer to each other the nearer they are to the newest. Pure: seqs and bytes in, seqs out."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

GRID_STEP_PERCENT = 110
"""Grids are tried in steps of a tenth: a coarser step would leave part of what snapshots may take unused."""

GRID_STAYS_PERCENT = 135
"""A grid that stands is kept until one this much finer would fit: laying one anew folds the whole log once."""


class Plan(NamedTuple):
    """`keep` are seqs of snapshots that are there, `make` those to be made, rising. The others may go once all of
    `make` are there."""

    keep: frozenset[int]
    make: list[int]


def plan_snapshots(
    sizes: Mapping[int, int], *, full_bytes: int, log_bytes: int, rows_between: int, log_percent: int
) -> Plan:
    """Plan a document's snapshots from those it has.

    `sizes` are the bytes of each snapshot's state by seq, `full_bytes` those of the newest one's full state besides.
    Below the newest there is one at least every `rows_between` rows, or less often where all of them would take more
    than `log_percent` of `log_bytes`: that limit holds always, but the newest stays whatever it takes. What the grid
    leaves over holds the ones that `thinned_by_age` picks. Planning again what was planned changes nothing, as long
    as the sizes of new ones are near those of their neighbours."""
    if not sizes:
        return Plan(frozenset(), [])
    newest = max(sizes)
    left = log_bytes * log_percent // 100 - sizes[newest] - full_bytes
    grid = _grid(sizes, newest, left, rows_between)
    make = [seq for seq in grid if seq not in sizes]
    keep = {newest, *(seq for seq in grid if seq in sizes)}
    left -= sum(_size_at(sizes, grid))
    others = sorted(sizes.keys() - keep, reverse=True)
    # The old ones serve until the new ones are there.
    for seq in others if make else thinned_by_age([newest, *others])[1:]:
        left -= sizes[seq]
        if left < 0:
            break
        keep.add(seq)
    return Plan(frozenset(keep), make)


def thinned_by_age(seqs: Sequence[int]) -> list[int]:
    """Of seqs in falling order, the newest two and then each that lies at least half its distance from the newest
    behind the last one kept: about log2(n) of n remain, dense where people look most."""
    kept: list[int] = []
    for seq in seqs:
        if len(kept) < 2 or kept[-1] - seq >= (seqs[0] - seq) // 2:
            kept.append(seq)
    return kept


def _grid(sizes: Mapping[int, int], newest: int, bytes_max: int, rows_between: int) -> range:
    """The seqs of the finest grid that fits, or of a little coarser one that stands already."""
    fitting: int | None = None
    for rows in _widths(rows_between, newest):
        grid = range(rows, newest, rows)
        if fitting is None and sum(_size_at(sizes, grid)) <= bytes_max:
            fitting = rows
        if fitting is None:
            continue
        if fitting == rows_between:
            break  # nothing could be finer: what stands has no say
        if rows * 100 > fitting * GRID_STAYS_PERCENT:
            break
        if grid and sum(seq in sizes for seq in grid) * 4 >= len(grid) * 3:
            return grid
    return range(fitting, newest, fitting) if fitting is not None else range(0)


def _widths(rows_between: int, newest: int) -> Iterator[int]:
    """Each the last one's and a tenth; the last one leaves a grid of nothing."""
    rows = max(rows_between, 1)
    while rows < newest:
        yield rows
        rows = max(rows * GRID_STEP_PERCENT // 100, rows + 1)
    yield rows


def _size_at(sizes: Mapping[int, int], seqs: Sequence[int]) -> Iterator[int]:
    """What a snapshot takes at each seq, or would take, between its neighbours: an empty document takes nothing."""
    known = [0, *sorted(sizes)]
    for seq in seqs:
        if seq in sizes:
            yield sizes[seq]
            continue
        above = bisect_left(known, seq)
        low, high = known[above - 1], known[above]
        low_bytes = sizes.get(low, 0)
        yield low_bytes + (sizes[high] - low_bytes) * (seq - low) // (high - low)
