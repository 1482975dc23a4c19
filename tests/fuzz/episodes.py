"""An episode: one room that starts with some honest editing and then gets one hostile input after another.

Case K of a run is input K % EPISODE_CASES of episode K // EPISODE_CASES; seed and number say everything about it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from history.crdt.state_vectors import decode_state_vector
from tests.fuzz.inputs import Case, Inputs
from tests.fuzz.rooms import Fate, Room, WrongError
from tests.fuzz.yjs import History, Yjs, comparable

EPISODE_CASES = 40

HISTORIES = 48
HISTORY_EDITS = 50

BULK_SHARE = 0.008
"""Of the episodes that end with an input of 64 KiB."""

HONEST_SHARE = 0.15
"""How often the next honest update comes between two inputs."""

CHECK_SHARE = 0.1
"""Of the refused inputs after which the whole room is compared with what it was."""

CPU_SECONDS_MAX = 0.050
"""What one input may cost for each 64 KiB or part of them."""

CPU_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Failure:
    case: int
    what: str


@dataclass(slots=True)
class Tally:
    """What the cases so far came to. `slowest` is (CPU seconds for each 64 KiB begun, case, way)."""

    cases: int = 0
    fates: Counter[tuple[str, Fate]] = field(default_factory=Counter)
    compared: int = 0
    judged: int = 0
    split: int = 0
    slowest: tuple[float, int, str] = (0.0, 0, "")
    failures: list[Failure] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    """What pycrdt said of updates that the guard had let through, and one case of each."""

    def add(self, other: "Tally") -> None:
        self.cases += other.cases
        self.fates += other.fates
        self.compared += other.compared
        self.judged += other.judged
        self.split += other.split
        self.slowest = max(self.slowest, other.slowest)
        self.failures += other.failures
        self.broken = {**other.broken, **self.broken}


class Episode:
    """`begin` is told each case's number before it goes into the room: should the process die, it is known of what."""

    def __init__(
        self,
        number: int,
        *,
        seed: int,
        corpus: Sequence[History],
        guarded: bool = True,
        way: str | None = None,
        begin: Callable[[int], object] = lambda case: None,
    ) -> None:
        self.first = number * EPISODE_CASES
        self._again = partial(Episode, number, seed=seed, corpus=corpus, guarded=guarded, way=way)
        self._rng = random.Random(f"{seed}:{number}")
        # Apart from what makes the cases: whoever makes them again need not draw what else was drawn.
        self._sampling = random.Random(f"{seed}:{number}:sampling")
        self._begin = begin
        self.room = Room(guarded=guarded)
        history = self._rng.choice(corpus)
        start = self._rng.randrange(len(history.rows))
        for row in history.rows[:start]:
            self.room.take(row)
        self._to_come = iter(history.rows[start:])
        self._inputs = Inputs(self._rng, [each.rows for each in corpus], self.room, way=way)

    def cases(self) -> Iterator[tuple[int, Case]]:
        """Yield each case with its number; the room must have heard it before the next one is made."""
        last = self._inputs.bulk_case if self._rng.random() < BULK_SHARE else self._inputs.case
        for place in range(EPISODE_CASES):
            if self._rng.random() < HONEST_SHARE and (row := next(self._to_come, None)) is not None:
                self.room.take(row)
            yield self.first + place, last() if place == EPISODE_CASES - 1 else self._inputs.case()

    def run(self, tally: Tally, *, upto: int | None = None) -> float:
        """Play the cases into the tally, all or up to one of them; return the CPU seconds of the last one.

        Raises: WrongError, after which the episode is over."""
        seconds = 0.0
        for number, case in self.cases():
            self._begin(number)
            before = self.room.fingerprint() if self._sampling.random() < CHECK_SHARE else None
            started = time.process_time()
            try:
                fate = self.room.hear(case.frame, owner=case.owner)
                seconds = time.process_time() - started
            except WrongError as error:
                raise WrongCase(number, f"{case.way}: {error}") from None
            tally.cases += 1
            tally.fates[case.way, fate] += 1
            if fate is Fate.BROKEN:
                tally.broken.setdefault(self.room.broken_by, number)
            if before is not None and fate in (Fate.MALFORMED, Fate.REFUSED, Fate.MISSING) and _is_one_message(case):
                tally.compared += 1
                if self.room.fingerprint() != before:
                    raise WrongCase(number, f"{case.way}: {fate.value}, and yet it changed something")
            if number == upto:
                return seconds
            if upto is None:
                self._judge_cost(tally, number, case, seconds)
        return seconds

    def _judge_cost(self, tally: Tally, number: int, case: Case, seconds: float) -> None:
        parts = -(-len(case.frame) // CPU_BYTES) or 1
        for _ in range(3):
            if seconds <= CPU_SECONDS_MAX * parts:
                break
            # Something else may have had the caches: the same case in a room of the same past, measured again.
            seconds = min(seconds, self._again().run(Tally(), upto=number))
        if seconds > CPU_SECONDS_MAX * parts:
            tally.failures.append(
                Failure(number, f"{case.way}: {seconds * 1000:.0f} ms of CPU for {len(case.frame)} bytes")
            )
        tally.slowest = max(tally.slowest, (seconds / parts, number, case.way))


class WrongCase(Exception):
    """Raised when a case did what no case may do."""

    def __init__(self, case: int, what: str) -> None:
        super().__init__(what)
        self.case = case
        self.what = what


def _is_one_message(case: Case) -> bool:
    return case.way not in ("several_messages", "altered_frame")


def play(episode: Episode, tally: Tally) -> dict[str, Any] | None:
    """Run an episode; return what Yjs is to be asked about it, or None when there is nothing to ask."""
    last = episode.first + EPISODE_CASES - 1
    try:
        episode.run(tally)
        tally.split += bool(episode.room.splits)
        reading = episode.room.reading()
    except WrongCase as wrong:
        tally.failures.append(Failure(wrong.case, wrong.what))
        return None
    except WrongError as error:
        tally.failures.append(Failure(last, f"after the episode: {error}"))
        return None
    return {**reading, "case": last}


def judge(yjs: Yjs, readings: Sequence[dict[str, Any]], tally: Tally) -> None:
    """Ask real Yjs what it reads of these episodes."""
    answers = yjs.judge([reading["told"] for reading in readings])
    for reading, answer in zip(readings, answers, strict=True):
        tally.judged += 1
        if problem := disagreement(reading, answer):
            tally.failures.append(Failure(reading["case"], f"after the episode: {problem}"))


def disagreement(reading: dict[str, Any], answer: dict[str, Any]) -> str | None:
    """Say how Yjs differs from the server, if it does."""
    if "error" in answer:
        return f"Yjs threw: {answer['error'].splitlines()[0][:200]}"
    for name in ("live", "loaded"):
        theirs = answer[name]
        if decode_state_vector(bytes.fromhex(theirs["state_vector"])) != reading["state_vector"]:
            return f"Yjs has another state vector ({name})"
        if comparable(theirs["trees"]) != reading["trees"]:
            return f"Yjs reads another content ({name})"
    return None
