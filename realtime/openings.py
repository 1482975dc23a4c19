"""Who opened a document, on the way into the audit: gathered while one write is under way, bounded, off the path of
everybody who opens one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from history.audit.entries import Act, act_of_session
from history.models import Action
from history.sessions import WriteSession

logger = logging.getLogger(__name__)

WAITING_MAX = 20_000
"""Openings that wait while the database does not take them: as many as a process has sockets (SOCKETS_MAX)."""

RETRY_SECONDS = 2.0


class OpeningRecorder:
    """Writes openings by `record`, one call at a time, with all that came during the one before."""

    def __init__(self, record: Callable[[Sequence[tuple[int, Act]]], Awaitable[None]]) -> None:
        self._record = record
        self._waiting: list[tuple[int, Act]] = []
        self._task: asyncio.Task[None] | None = None

    def offer(self, session: WriteSession) -> None:
        """Line up that somebody opened a document. Where WAITING_MAX wait, it is dropped, and the log says so."""
        if len(self._waiting) >= WAITING_MAX:
            logger.error("an opening is not in the audit: document=%s session=%s", session.document_id, session.id)
            return
        self._waiting.append(act_of_session(Action.OPENED, session))
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def flushed(self) -> None:
        """Wait until all that was offered is written."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            logger.error("%d openings and more are not in the audit: the server is stopping", len(self._waiting))

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._record(batch)
                except Exception as error:  # noqa: BLE001  (whatever a database that is away raises)
                    logger.warning("%d openings wait for the audit: %s", len(batch), type(error).__name__)
                    self._waiting = (batch + self._waiting)[:WAITING_MAX]
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._task = None
