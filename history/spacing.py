"""Where a document's snapshots stand: on a grid over its whole life, so that opening any moment replays a bounded
number of rows, and closer to each other the nearer they are to the newest. Pure: seqs and bytes in, seqs out."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

GRID_STEP_PERCENT = 110
"""Grids are tried in steps of a tenth: a coarser step would leave part of what snapshots may take unused."""

GRID_STAYS_PERCENT = 135
"""A grid that stands is kept until one this much finer would fit: laying one anew folds the whole log once."""


KEY_EVERY = 8
"""Of a grid each eighth snapshot is whole, and those above it are differences to it: B4 at one every 4,000 rows takes
927 KB in place of 3.4 MB. Further apart the differences grow as fast as the whole ones get fewer."""

DIFFERENCE_PERCENT = 25
"""What a difference takes of a whole one, as long as a document has none that tells."""


MARGIN_PERCENT = 125
"""A snapshot that is not there yet is expected to take a quarter more than its neighbours tell: a grid that turned out
too large would be laid a second time."""


class Plan(NamedTuple):
    """`keep` are seqs of snapshots that are there, `make` those to be made, rising; those that are to be differences
    have the seq of what they differ from in `bases`. The others may go once all of `make` are there."""

    keep: frozenset[int]
    make: list[int]
    bases: dict[int, int]


def plan_snapshots(
    sizes: Mapping[int, int],
    differences: Collection[int] = (),
    *,
    full_bytes: int,
    log_bytes: int,
    rows_between: int,
    log_percent: int,
) -> Plan:
    """Plan a document's snapshots from those it has.

    `sizes` are the bytes of each snapshot's state by seq, of which `differences` are no whole ones, `full_bytes` those
    of the newest one's full state besides. Below the newest there is one at least every `rows_between` rows, or less
    often where all of them would take more than `log_percent` of `log_bytes`: that limit holds always, but the newest
    stays whatever it takes. What the grid leaves over holds the ones that `thinned_by_age` picks. Planning again what
    was planned changes nothing, as long as the new ones take what was expected from their neighbours."""
    if not sizes:
        return Plan(frozenset(), [], {})
    newest = max(sizes)
    left = log_bytes * log_percent // 100 - sizes[newest] - full_bytes
    expected = _Sizes(sizes, differences)
    grid = _grid(expected, newest, left, rows_between)
    make = [seq for seq in grid if seq not in sizes]
    bases = {seq: base for seq in make if (base := _base_of(seq, grid.step)) is not None}
    keep = {newest, *(seq for seq in grid if seq in sizes)}
    left -= expected.of(grid)
    others = sorted(sizes.keys() - keep, reverse=True)
    # The old ones serve until the new ones are there.
    for seq in others if make else thinned_by_age([newest, *others])[1:]:
        left -= sizes[seq]
        if left < 0:
            break
        keep.add(seq)
    return Plan(frozenset(keep), make, bases)


def _base_of(seq: int, rows: int) -> int | None:
    """What the snapshot at `seq` of a grid differs from; None for those that are whole."""
    number = seq // rows
    key = number // KEY_EVERY * KEY_EVERY or 1
    return None if key == number else key * rows


def thinned_by_age(seqs: Sequence[int]) -> list[int]:
    """Of seqs in falling order, the newest two and then each that lies at least half its distance from the newest
    behind the last one kept: about log2(n) of n remain, dense where people look most."""
    kept: list[int] = []
    for seq in seqs:
        if len(kept) < 2 or kept[-1] - seq >= (seqs[0] - seq) // 2:
            kept.append(seq)
    return kept


class _Sizes:
    """What snapshots take, or would take: a whole one between its neighbours, and an empty document nothing."""

    def __init__(self, sizes: Mapping[int, int], differences: Collection[int]) -> None:
        self.sizes = sizes
        self.whole = [0, *sorted(sizes.keys() - set(differences))]
        told = sum(self._whole_at(seq) for seq in differences)
        self.percent = sum(sizes[seq] for seq in differences) * 100 // told if told else DIFFERENCE_PERCENT

    def of(self, grid: range) -> int:
        return sum(self._at(seq, grid.step) for seq in grid)

    def _at(self, seq: int, rows: int) -> int:
        if seq in self.sizes:
            return self.sizes[seq]
        percent = 100 if _base_of(seq, rows) is None else self.percent
        return self._whole_at(seq) * percent * MARGIN_PERCENT // 10_000

    def _whole_at(self, seq: int) -> int:
        above = bisect_left(self.whole, seq)
        low, high = self.whole[above - 1], self.whole[above]
        low_bytes = self.sizes.get(low, 0)
        return low_bytes + (self.sizes[high] - low_bytes) * (seq - low) // (high - low)


def _grid(expected: _Sizes, newest: int, bytes_max: int, rows_between: int) -> range:
    """The seqs of the finest grid that fits, or of a little coarser one that stands already."""
    fitting: range | None = None
    for rows in _widths(rows_between, newest):
        grid = range(rows, newest, rows)
        if fitting is None and expected.of(grid) <= bytes_max:
            fitting = grid
        if fitting is None:
            continue
        if fitting.step == rows_between:
            break  # nothing could be finer: what stands has no say
        if rows * 100 > fitting.step * GRID_STAYS_PERCENT:
            break
        if grid and sum(seq in expected.sizes for seq in grid) * 4 >= len(grid) * 3 and expected.of(grid) <= bytes_max:
            return grid
    return fitting if fitting is not None else range(0)


def _widths(rows_between: int, newest: int) -> Iterator[int]:
    """Each the last one's and a tenth; the last one leaves a grid of nothing."""
    rows = max(rows_between, 1)
    while rows < newest:
        yield rows
        rows = max(rows * GRID_STEP_PERCENT // 100, rows + 1)
    yield rows
