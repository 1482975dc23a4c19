"""How much of what holds whole documents in memory one process does at a time; what comes on top waits a while.

A read that opens documents takes one of HEAVY_READS_MAX places for as long as it computes, a playback one of
PLAYBACKS_MAX for as long as somebody reads it: a slow reader of one keeps nobody from the other."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from documents.conf import conf
from history.errors import HistoryError


class Busy(HistoryError):
    """This process reads as much as it may at a time, and went on doing so for HEAVY_READS_WAIT_SECONDS."""


class _Places:
    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    def take(self) -> None:
        """Raises: Busy."""
        with self._changed:
            if not self._changed.wait_for(self._is_free, conf().heavy_reads_wait_seconds):
                raise Busy("too much is read at a time")
            self._taken += 1

    def give_back(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    def _is_free(self) -> bool:
        return self._taken < self._limit()


playbacks = _Places(lambda: conf().playbacks_max)

_reads = _Places(lambda: conf().heavy_reads_max)


class _Mine(threading.local):
    depth = 0


_mine = _Mine()


@contextmanager
def heavy_read() -> Iterator[None]:
    """Hold a place, also as a decorator; one within another of the same thread takes none. Raises: Busy."""
    if _mine.depth == 0:
        _reads.take()
    _mine.depth += 1
    try:
        yield
    finally:
        _mine.depth -= 1
        if _mine.depth == 0:
            _reads.give_back()
