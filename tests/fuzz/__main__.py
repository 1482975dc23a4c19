"""`make fuzz`: a million hostile inputs through the server's own path, and what Yjs makes of what was let through.

`make fuzz ARGS="--seed 7 --only 1234"` repeats one case exactly."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.fuzz.episodes import CPU_SECONDS_MAX, EPISODE_CASES, Failure, Tally
from tests.fuzz.rooms import Fate
from tests.fuzz.running import HANG_SECONDS, Run, honest_failures, record_corpus, run
from tests.fuzz.yjs import History


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=1_000_000, help=f"rounded up to episodes of {EPISODE_CASES}")
    parser.add_argument("--only", type=int, metavar="K", help="repeat case K of this seed, with its episode")
    parser.add_argument("--way", help="only inputs that are made in this way, such as fresh_structs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--without-guard", action="store_true", help="to see that the fuzz finds what the guard stops")
    parser.add_argument("--hang-seconds", type=float, default=HANG_SECONDS)
    parser.add_argument("--failures-max", type=int, default=20, help="stop when there are as many")
    arguments = parser.parse_args()
    started = time.monotonic()
    corpus = record_corpus(arguments.seed)
    only = arguments.only
    failures = honest_failures(corpus) if only is None else []
    first = 0 if only is None else only // EPISODE_CASES
    what = Run(
        seed=arguments.seed,
        first=first,
        stop=-(-arguments.cases // EPISODE_CASES) if only is None else first + 1,
        workers=arguments.workers,
        guarded=not arguments.without_guard,
        way=arguments.way,
        hang_seconds=arguments.hang_seconds,
        failures_max=arguments.failures_max,
    )
    _show_failures(failures, what.seed)
    tally = run(what, corpus, told=lambda tally: _show_progress(tally, what.seed, started))
    _show_failures(tally.failures, what.seed)
    tally.failures = failures + tally.failures
    _report(tally, corpus, time.monotonic() - started)
    if only is not None:
        _show_case(only, what, corpus)
    print("FAILED" if tally.failures else "passed")
    return 1 if tally.failures else 0


_shown_at = 0.0
_shown: set[int] = set()


def _show_failures(failures: Sequence[Failure], seed: int) -> None:
    """As they come: a run of a million takes long."""
    for failure in failures:
        if failure.case not in _shown:
            _shown.add(failure.case)
            print(f"FAILED case {failure.case}: {failure.what}")
            print(f'  make fuzz ARGS="--seed {seed} --only {failure.case}"', flush=True)


def _show_progress(tally: Tally, seed: int, started: float) -> None:
    global _shown_at
    now = time.monotonic()
    _show_failures(tally.failures, seed)
    if now - _shown_at > 10:
        _shown_at = now
        print(f"{tally.cases:,} cases in {now - started:.0f} s, {len(tally.failures)} failures", flush=True)


def _report(tally: Tally, corpus: list[History], seconds: float) -> None:
    by_fate: Counter[Fate] = Counter()
    for (_, fate), count in tally.fates.items():
        by_fate[fate] += count
    print(f"{sum(len(each.rows) for each in corpus)} updates of {len(corpus)} recorded histories went in first")
    print(f"{tally.cases:,} cases in {seconds:.0f} s, {tally.cases / seconds:,.0f} a second")
    for fate in Fate:
        print(f"  {by_fate[fate]:>9,}  {fate.value}")
    for way in sorted({way for way, _ in tally.fates}):
        counts = (f"{fate.name.lower()} {tally.fates[way, fate]:,}" for fate in Fate if tally.fates[way, fate])
        print(f"  {way}: {', '.join(counts)}")
    print(f"{tally.compared:,} times the whole room was compared after a refusal")
    print(f"{tally.judged:,} episodes were read by Yjs, {tally.split:,} of them with split emoji")
    for said, case in tally.broken.items():
        print(f"broken, such as case {case}: {said}")
    slowest, case, way = tally.slowest
    limit = CPU_SECONDS_MAX * 1000
    print(f"slowest: {slowest * 1000:.1f} ms of CPU per 64 KiB (limit {limit:.0f}), case {case}, {way}")


def _show_case(only: int, what: Run, corpus: list[History]) -> None:
    """Make the case again without giving it to anyone: it may be deadly."""
    episode = what.episode(what.first, corpus)
    for number, case in episode.cases():
        if number == only:
            print(f"case {number}, {case.way}, {len(case.frame)} bytes: {case.frame[:2000].hex()}")
            return
        episode.room.hear(case.frame, owner=case.owner)


if __name__ == "__main__":
    sys.exit(main())
