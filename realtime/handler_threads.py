"""Threads on which synchronous consumers' handlers run: one that blocks keeps neither the event loop waiting nor the
one thread that Django shares.

Made when they are needed, bounded, ended with their database connections once they were idle for a while."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Thread
from typing import ParamSpec, TypeVar

from channels.db import DatabaseSyncToAsync
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from documents.conf import conf
from realtime.databases import cut

logger = logging.getLogger(__name__)

IDLE_SECONDS_MAX = 10.0
"""A thread that had nothing to do for so long ends: a burst does not hold connections to the database for ever."""

P = ParamSpec("P")
R = TypeVar("R")


class NoThreadFree(Exception):
    """Raised when all HANDLER_THREADS were busy for HANDLER_WAIT_SECONDS: the handler was not called."""


class HandlerThreads:
    """The threads of one kind of consumer, at most HANDLER_THREADS: those of another one are not held up by them."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._busy: set[_Thread] = set()
        self._waiting: deque[asyncio.Future[_Thread]] = deque()
        self._stopped = False

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `work` on a thread of its own. Who waits may give up; the thread goes on, and serves nobody else
        meanwhile. Raises: NoThreadFree, and what `work` raises."""
        thread = await self._take()
        task = asyncio.ensure_future(thread.run(work, *args, **kwargs))
        task.add_done_callback(lambda _: self._give_back(thread))
        return await asyncio.shield(task)

    async def stop(self, *, seconds_max: float) -> None:
        """End all threads; those that are busy for longer end when their handler does."""
        self._stopped = True
        for waiting in self._waiting:
            waiting.cancel()
        idle, self._idle = self._idle, []
        for thread in idle:
            thread.ends.cancel()
        ended = [each.end() for each in (*idle, *self._busy)]
        if ended:
            await asyncio.wait(ended, timeout=seconds_max)

    async def _take(self) -> "_Thread":
        if self._stopped:
            raise NoThreadFree
        if self._idle:
            thread = self._idle.pop()  # the last used one: those that are not needed stay idle
            thread.ends.cancel()
        elif len(self) < max(conf().handler_threads, 1):
            thread = _Thread()
        else:
            return await self._next_free()
        self._busy.add(thread)
        return thread

    async def _next_free(self) -> "_Thread":
        waiting: asyncio.Future[_Thread] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(conf().handler_wait_seconds):
                return await asyncio.shield(waiting)
        except BaseException as error:
            if not waiting.cancel() and not waiting.cancelled():
                self._give_back(waiting.result())  # it came at the very moment
            if not isinstance(error, TimeoutError):
                raise
            logger.warning("no thread for a handler: %d are busy: HANDLER_THREADS", len(self._busy))
            raise NoThreadFree from None

    def _give_back(self, thread: "_Thread") -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(thread)
                return
        self._busy.discard(thread)
        if not self._stopped:
            self._idle.append(thread)
            thread.ends = asyncio.get_running_loop().call_later(IDLE_SECONDS_MAX, self._end_idle, thread)

    def _end_idle(self, thread: "_Thread") -> None:
        self._idle.remove(thread)
        thread.end()


class _Thread:
    """One thread, which can be told to close its own connections."""

    ends: asyncio.TimerHandle
    """When it does, while it is idle."""

    def __init__(self) -> None:
        self._executor = _DaemonThread()
        self._database: BaseDatabaseWrapper | None = None

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        def work_here() -> R:
            self._database = connections[DEFAULT_DB_ALIAS]  # this thread's own
            return work(*args, **kwargs)

        run = DatabaseSyncToAsync(work_here, thread_sensitive=False, executor=self._executor)
        limit = conf().load_seconds_max
        timer = asyncio.get_running_loop().call_later(limit, self._cut) if limit else None
        try:
            result: R = await run()
            return result
        finally:
            if timer is not None:
                timer.cancel()

    def end(self) -> "asyncio.Future[None]":
        """After what it is at."""
        ended = asyncio.get_running_loop().run_in_executor(self._executor, connections.close_all)
        self._executor.shutdown()
        return ended

    def _cut(self) -> None:
        """A database that is there and says nothing would hold the thread for ever."""
        logger.warning("a handler takes long: its connection to the database is cut")
        cut(self._database)


class _DaemonThread(Executor):
    """An executor of one thread, which does not keep the process from ending: a handler may never return."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._run, name="handler", daemon=True).start()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        future: Future[R] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  (it is of whoever waits for the future)
                future.set_exception(error)

        self._work.put(work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End behind what was submitted."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work
