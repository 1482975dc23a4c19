"""What became of each document of an import, and of all of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from history.imports.sources import BadRow

PROBLEMS_TOLD_MAX = 20
"""Bad rows of one document that are named; the others are counted."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the rows and bytes of the document that have been read."""


class Result(Enum):
    IMPORTED = "imported"
    THERE = "already there"
    FAILED = "not imported"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """`rows` and `bytes` were read from the source, `stored` rows are in the log; `first_at` and `last_at` are theirs.
    `untimed` rows had no time of their own. `why` says why it is there already, or was not imported."""

    name: str
    result: Result = Result.FAILED
    why: str = ""
    rows: int = 0
    bytes: int = 0
    stored: int = 0
    untimed: int = 0
    bad: int = 0
    problems: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    first_at: datetime | None = None
    last_at: datetime | None = None

    def note_bad(self, row: BadRow) -> None:
        self.bad += 1
        if len(self.problems) < PROBLEMS_TOLD_MAX:
            self.problems.append(row)

    def note_time(self, at: datetime) -> None:
        self.first_at = self.first_at or at
        self.last_at = at


@dataclass(slots=True)
class Summary:
    results: Counter[Result] = field(default_factory=Counter)
    stored: int = 0
    bad: int = 0
    bytes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None

    def add(self, outcome: Outcome) -> None:
        self.results[outcome.result] += 1
        self.bad += outcome.bad
        self.bytes += outcome.bytes
        if outcome.result is Result.IMPORTED:
            self.stored += outcome.stored
            self.first_at = min(filter(None, (self.first_at, outcome.first_at)), default=None)
            self.last_at = max(filter(None, (self.last_at, outcome.last_at)), default=None)

    @property
    def failed(self) -> int:
        return self.results[Result.FAILED]
