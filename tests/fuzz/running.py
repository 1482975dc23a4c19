"""Runs many episodes in worker processes that may die or hang: whichever case did it is known and reported."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.fuzz.episodes import EPISODE_CASES, HISTORIES, HISTORY_EDITS, Episode, Failure, Tally, judge, play
from tests.fuzz.rooms import Fate, Room
from tests.fuzz.yjs import History, Yjs

REPORT_EPISODES = 25
"""Episodes of which Yjs is asked, and the parent told, at once."""

HANG_SECONDS = 60.0
"""A worker that stays at one case for longer hangs. Of wall time: others may use the processors too."""

POLL_SECONDS = 0.5

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is to be run: episodes `first` up to `stop`."""

    seed: int
    first: int
    stop: int
    workers: int = 2
    guarded: bool = True
    way: str | None = None
    hang_seconds: float = HANG_SECONDS
    failures_max: int = 20

    def episode(
        self, number: int, corpus: Sequence[History], *, begin: Callable[[int], object] = lambda case: None
    ) -> Episode:
        return Episode(number, seed=self.seed, corpus=corpus, guarded=self.guarded, way=self.way, begin=begin)


def record_corpus(seed: int) -> list[History]:
    with Yjs() as yjs:
        return yjs.record(seed=seed, histories=HISTORIES, edits=HISTORY_EDITS)


def honest_failures(corpus: Sequence[History]) -> list[Failure]:
    """What goes wrong with the recorded editing itself: not one update of it may be refused, and Yjs must agree."""
    tally = Tally()
    readings = []
    for number, history in enumerate(corpus):
        room = Room()
        fates = {room.take(row) for row in history.rows} - {Fate.ACCEPTED, Fate.NOTHING_NEW}
        if fates:
            tally.failures.append(Failure(-number, f"honest history {number}: {', '.join(f.value for f in fates)}"))
        else:
            readings.append({**room.reading(), "case": -number})
    with Yjs() as yjs:
        judge(yjs, readings, tally)
    return tally.failures


def run(what: Run, corpus: Sequence[History], *, told: Callable[[Tally], object] = lambda tally: None) -> Tally:
    """Run the episodes and return what came of them; `told` is called with the tally as it grows."""
    total = Tally()
    share = -(-(what.stop - what.first) // what.workers)
    shares = [(start, min(start + share, what.stop)) for start in range(what.first, what.stop, share)]
    workers = [_Worker(what, corpus, start, stop) for start, stop in shares]
    try:
        while workers and len(total.failures) < what.failures_max:
            wait([worker.reports for worker in workers], timeout=POLL_SECONDS)
            for worker in workers:
                for tally in worker.take_reports():
                    total.add(tally)
                    told(total)
                if failure := worker.failure():
                    total.cases += 1
                    total.failures.append(failure)
            workers = [worker for worker in workers if not worker.finished]
    finally:
        for worker in workers:
            worker.end()
    return total


class _Worker:
    """One worker process after another for a share of the episodes."""

    def __init__(self, what: Run, corpus: Sequence[History], start: int, stop: int) -> None:
        self._what = what
        self._corpus = corpus
        self._next = start
        self._stop = stop
        self._skipped: frozenset[int] = frozenset()
        self.finished = False
        self._begin()

    def _begin(self) -> None:
        self.reports, theirs = _SPAWN.Pipe(duplex=False)
        self._case = _SPAWN.RawValue("q", -1)
        self._process = _SPAWN.Process(
            target=_work,
            args=(self._what, self._corpus, self._next, self._stop, self._skipped, self._case, theirs),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._seen = (-1, time.monotonic())

    def take_reports(self) -> list[Tally]:
        tallies = []
        try:
            while self.reports.poll():
                tally, self._next = self.reports.recv()
                tallies.append(tally)
        except EOFError:
            self._process.join()
        return tallies

    def failure(self) -> Failure | None:
        """See to the process: what it died of, if it did, after which another one goes on behind that case."""
        case = self._case.value
        if case != self._seen[0]:
            self._seen = (case, time.monotonic())
        patience = self._what.hang_seconds if case >= 0 else HANG_SECONDS  # to begin takes its time as well
        hangs = time.monotonic() - self._seen[1] > patience
        if self._process.is_alive() and not hangs:
            return None
        if self._process.exitcode == 0:
            self.finished = not self.reports.poll() or self._next >= self._stop
            return None
        self.end()
        what = "it hangs" if hangs else f"the process died: exit code {self._process.exitcode}"
        self._skipped |= {case // EPISODE_CASES}
        self.finished = all(number in self._skipped for number in range(self._next, self._stop))
        if not self.finished:
            self._begin()
        return Failure(case, what)

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _work(
    what: Run,
    corpus: Sequence[History],
    start: int,
    stop: int,
    skipped: frozenset[int],
    current: Any,
    reports: "Connection[Any, Any]",
) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a death is expected here, and its core would take seconds

    def begin(case: int) -> None:
        current.value = case

    with Yjs() as yjs:
        for first in range(start, stop, REPORT_EPISODES):
            tally = Tally()
            readings = []
            last = min(first + REPORT_EPISODES, stop)
            for number in range(first, last):
                if number in skipped:
                    continue
                begin(number * EPISODE_CASES)
                episode = what.episode(number, corpus, begin=begin)
                if (reading := play(episode, tally)) is not None:
                    readings.append(reading)
            judge(yjs, readings, tally)
            reports.send((tally, last))
    reports.close()
