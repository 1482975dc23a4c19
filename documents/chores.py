"""What keeps house in the background, written down while it goes: one row of `documents_chore` for each turn of a task.

The work only sets fields of its `Turn`. A thread writes them with a connection of its own: what is told outlives a
transaction that is rolled back, goes on in the middle of a long one, and no trouble with it is the work's."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from django.db import Error, connection
from django.db.models.functions import Now

from documents.models import Chore

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
"""How often a turn that goes on is written; one UPDATE of one row."""

END_SECONDS_MAX = 5.0
"""How long a turn that has ended waits for its last line to be written."""

KEPT_MAX = 100
"""Turns of one task that are kept when another begins; of those with trouble, findings or no end TROUBLED_KEPT_MAX."""

TROUBLED_KEPT_MAX = 20

FINDINGS_MAX = 100
"""Findings of one turn that are written; all are counted and logged."""

FORGET = """
DELETE FROM documents_chore WHERE task = %(task)s
  AND id NOT IN (SELECT id FROM documents_chore WHERE task = %(task)s ORDER BY id DESC LIMIT %(kept)s)
  AND id NOT IN (
    SELECT id FROM documents_chore WHERE task = %(task)s AND (troubles > 0 OR found > 0 OR ended_at IS NULL)
    ORDER BY id DESC LIMIT %(troubled)s
  )
"""


@dataclass(slots=True)
class Turn:
    """What one turn tells of itself. `done` of `total` documents are through; `made` counts what it made or removed, in
    the task's own unit; `about` is what it was asked for or looked at. None of it holds content."""

    done: int = 0
    total: int | None = None
    made: int = 0
    document_id: int | None = None
    troubles: int = 0
    error: str = ""
    found: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def each(self, documents: Sequence[int]) -> Iterator[int]:
        """Give out documents (ids) one by one, and tell how far it has come."""
        self.total = len(documents)
        for document_id in documents:
            self.document_id = document_id
            yield document_id
            self.done += 1
        self.document_id = None

    def trouble(self, error: BaseException) -> None:
        """One document's trouble, which is no other's: its class alone, as the words of an error may be anybody's."""
        self.troubles += 1
        self.error = type(error).__name__

    def find(self, **finding: Any) -> None:
        """Something that somebody has to look at."""
        self.found += 1
        if self.found <= FINDINGS_MAX:
            self.findings.append(finding)


@contextmanager
def chore(task: str) -> Iterator[Turn]:
    """Write one turn of a task down, from its first moment to its end, however it ends. One whose process is killed is
    told by the silence that follows (`with_state`)."""
    turn = Turn()
    pen = _Pen(task, turn)
    pen.start()
    outcome = Chore.Outcome.FAILED
    try:
        yield turn
        outcome = Chore.Outcome.DONE
    except BaseException as error:
        turn.trouble(error)
        raise
    finally:
        pen.end(outcome)


class _Pen(Thread):
    def __init__(self, task: str, turn: Turn) -> None:
        super().__init__(name=f"chore {task}", daemon=True)
        self._task = task
        self._turn = turn
        self._ended = Event()
        self._outcome = Chore.Outcome.NONE
        self._row: int | None = None

    def end(self, outcome: Chore.Outcome) -> None:
        self._outcome = outcome
        self._ended.set()
        self.join(END_SECONDS_MAX)

    def run(self) -> None:
        try:
            is_last = False
            while not is_last:
                is_last = self._ended.is_set()
                self._write(is_last=is_last)
                self._ended.wait(BEAT_SECONDS)
        finally:
            connection.close()

    def _write(self, *, is_last: bool) -> None:
        """Raises nothing: a turn that cannot be told of is done all the same."""
        try:
            if self._row is None:
                self._forget_old()
                self._row = Chore.objects.create(
                    task=self._task,
                    worker=f"{socket.gethostname()}:{os.getpid()}"[-Chore.WORKER_LENGTH_MAX :],
                    started_at=Now(),
                    seen_at=Now(),
                ).pk
            told = {name: getattr(self._turn, name) for name in Chore.TOLD}
            if is_last:
                told |= {"ended_at": Now(), "outcome": self._outcome}
            Chore.objects.filter(pk=self._row).update(seen_at=Now(), **told)
        except Error as error:
            logger.warning("a turn could not be told of: task=%s error=%s", self._task, type(error).__name__)
            connection.close()

    def _forget_old(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(FORGET, {"task": self._task, "kept": KEPT_MAX, "troubled": TROUBLED_KEPT_MAX})
