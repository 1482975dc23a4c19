"""How an import is told while it goes: a bar on a terminal, else a line for each document; and what it came to."""

import time
from datetime import datetime

from django.core.management.base import OutputWrapper

from history.imports.outcomes import Outcome, Result, Summary
from history.imports.sources import BadRow

BAR_WIDTH = 24
DRAWN_EVERY_SECONDS = 0.1
CLEAR_LINE = "\r\x1b[K"


class Telling:
    """Speaks on `out`; the bar is drawn on `bar`, where that is a terminal."""

    def __init__(self, out: OutputWrapper, bar: OutputWrapper) -> None:
        self._out = out
        self._bar = bar if bar.isatty() else None
        self._documents = self._done = self._rows = 0
        self._began = time.monotonic()
        self._drawn = 0.0
        self.summary = Summary()

    def expect(self, documents: int) -> None:
        self._documents += documents

    def reading(self, name: str, size: int, rows: int, bytes_: int) -> None:
        """So much of a document of about `size` bytes has been read."""
        if self._bar is None or time.monotonic() - self._drawn < DRAWN_EVERY_SECONDS:
            return
        self._drawn = time.monotonic()
        share = (self._done + min(bytes_ / max(size, 1), 1.0)) / max(self._documents, 1)
        full = round(share * BAR_WIDTH)
        speed = (self._rows + rows) / max(time.monotonic() - self._began, 0.001)
        self._bar.write(
            f"{CLEAR_LINE}[{'=' * full}{' ' * (BAR_WIDTH - full)}] {self._done}/{self._documents} documents, "
            f"{self._rows + rows:,} rows, {speed:,.0f} rows/s  {printable(name)[:40]}",
            ending="",
        )
        self._bar.flush()

    def finish(self, outcome: Outcome) -> None:
        self._done += 1
        self._rows += outcome.rows
        self.summary.add(outcome)
        if self._bar is not None:
            self._bar.write(CLEAR_LINE, ending="")
            self._bar.flush()
        self._out.write(line_of(outcome))
        for note in outcome.notes:
            self._out.write(f"  {printable(note)}")
        for problem in outcome.problems:
            self._tell_problem(problem)
        if outcome.bad > len(outcome.problems):
            self._out.write(f"  and {outcome.bad - len(outcome.problems)} more")

    def _tell_problem(self, problem: BadRow) -> None:
        self._out.write(f"  {printable(problem.place)}: {printable(problem.what)}")

    def conclude(self) -> None:
        summary, seconds = self.summary, time.monotonic() - self._began
        results = ", ".join(f"{summary.results[result]} {result.value}" for result in Result)
        self._out.write(
            f"{results}; {summary.stored:,} rows in the log{_between(summary.first_at, summary.last_at)}, "
            f"{summary.bad:,} bad rows, {summary.bytes:,} bytes read in {seconds:,.1f} s"
        )


def line_of(outcome: Outcome) -> str:
    """What became of one document, in one line."""
    told = f"{printable(outcome.name)}: {outcome.result.value}"
    if outcome.why:
        told += f": {printable(outcome.why)}" if outcome.result is Result.FAILED else f" ({outcome.why})"
    if outcome.result is Result.IMPORTED:
        told += f", {outcome.stored:,} rows in the log{_between(outcome.first_at, outcome.last_at)}"
        told += f" of {outcome.rows:,} read" if outcome.rows != outcome.stored else ""
        told += f", {outcome.untimed:,} without a time of their own" if outcome.untimed else ""
        told += f", {outcome.bad:,} bad ones left out" if outcome.bad else ""
    return told


def _between(first: datetime | None, last: datetime | None) -> str:
    if first is None or last is None:
        return ""
    return f" of {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def printable(text: str) -> str:
    """A name from a foreign store cannot move the cursor, nor be two lines."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
