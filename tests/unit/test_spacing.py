"""Where snapshots stand: bounded distances, bounded bytes, and a plan that has been carried out stays as it is."""

from itertools import pairwise

from hypothesis import given, strategies

from history.ladder import PLANS_MAX
from history.spacing import KEY_EVERY, plan_snapshots, thinned_by_age

sizes_of = strategies.dictionaries(strategies.integers(1, 100_000), strategies.integers(1, 50_000), max_size=40)
log_sizes = strategies.integers(0, 2_000_000)
distances = strategies.integers(1, 5000).map(lambda rows: rows + 200)


@given(sizes_of, log_sizes, strategies.integers(0, 50_000), distances)
def test_all_snapshots_but_the_newest_stay_within_their_share_of_the_log(
    sizes: dict[int, int], log_bytes: int, full_bytes: int, rows: int
) -> None:
    plan = plan_snapshots(sizes, full_bytes=full_bytes, log_bytes=log_bytes, rows_between=rows, log_percent=200)
    assert plan.keep <= sizes.keys()
    assert not sizes or max(sizes) in plan.keep
    kept = sum(sizes[seq] for seq in plan.keep) + full_bytes
    assert len(plan.keep) <= 1 or kept <= 2 * log_bytes


@given(sizes_of, distances)
def test_a_long_log_of_a_small_document_has_a_snapshot_within_the_distance_of_every_moment(
    sizes: dict[int, int], rows: int
) -> None:
    plan = plan_snapshots(sizes, full_bytes=0, log_bytes=10**12, rows_between=rows, log_percent=200)
    rungs = sorted({0, *plan.keep, *plan.make})
    assert all(above - below <= rows for below, above in pairwise(rungs))
    assert plan.make == sorted(plan.make)
    assert not plan.keep & set(plan.make)


@given(
    strategies.integers(1000, 100_000),
    strategies.integers(1, 100),
    log_sizes,
    distances,
)
def test_a_plan_that_was_carried_out_is_not_made_again(newest: int, slope: int, log_bytes: int, rows: int) -> None:
    """For a document that grows evenly; differences take less than is expected at first."""
    sizes, differences = {newest: newest * slope}, set[int]()
    for _ in range(PLANS_MAX + 1):
        plan = plan_snapshots(sizes, differences, full_bytes=0, log_bytes=log_bytes, rows_between=rows, log_percent=200)
        sizes = {seq: sizes[seq] for seq in plan.keep} if not plan.make else sizes
        sizes |= {seq: seq * slope // (5 if seq in plan.bases else 1) for seq in plan.make}
        differences = (differences | plan.bases.keys()) & sizes.keys()
    assert not plan.make
    assert plan.keep == sizes.keys()


@given(sizes_of, distances)
def test_a_difference_is_made_to_a_whole_one_that_stands_before_it(sizes: dict[int, int], rows: int) -> None:
    plan = plan_snapshots(sizes, full_bytes=0, log_bytes=10**12, rows_between=rows, log_percent=200)
    there = plan.keep | set(plan.make)
    for seq, base in plan.bases.items():
        assert base < seq <= base + KEY_EVERY * rows
        assert base in there
        assert base not in plan.bases


@given(sizes_of, log_sizes, distances)
def test_old_snapshots_serve_until_the_new_ones_are_there(sizes: dict[int, int], log_bytes: int, rows: int) -> None:
    plan = plan_snapshots(sizes, full_bytes=0, log_bytes=log_bytes, rows_between=rows, log_percent=200)
    made = sizes | dict.fromkeys(plan.make, 1)
    room = (
        sum(made.values()) <= 2 * log_bytes
        and sum(sizes.values()) + sum(max(sizes.values()) for _ in plan.make) <= 2 * log_bytes
    )
    assert not (plan.make and room) or plan.keep == sizes.keys()


def test_a_grid_that_stands_moves_only_when_a_much_finer_one_fits() -> None:
    sizes = dict.fromkeys(range(1331, 10000, 1331), 100) | {10_000: 100}

    def widths(log_bytes: int) -> set[int]:
        plan = plan_snapshots(
            sizes, range(2662, 10_000, 1331), full_bytes=0, log_bytes=log_bytes, rows_between=1000, log_percent=100
        )
        return {seq for seq in {*plan.keep, *plan.make} if seq < 10_000}

    standing = set(range(1331, 10_000, 1331))
    assert widths(900) == standing  # one every 1,210 would fit too
    assert widths(10**6) == standing | set(range(1000, 10_000, 1000))
    assert len(widths(700)) <= 6


def test_nothing_is_planned_for_a_document_without_a_snapshot() -> None:
    plan = plan_snapshots({}, full_bytes=0, log_bytes=10, rows_between=10, log_percent=200)
    assert (plan.keep, plan.make) == (frozenset(), [])


@given(strategies.sets(strategies.integers(1, 10**6), max_size=200))
def test_thinning_by_age_keeps_few_and_thinning_again_keeps_them_all(seqs: set[int]) -> None:
    falling = sorted(seqs, reverse=True)
    kept = thinned_by_age(falling)
    assert kept[:2] == falling[:2]
    assert len(kept) <= 45
    assert thinned_by_age(kept) == kept
