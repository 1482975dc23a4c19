"""Refused updates on their way to where they are kept: gathered while one write is under way, bounded, off the path
of everybody else's edits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from documents.conf import conf
from history.refusals import RefusedUpdate
from realtime.closing import CloseCode, Closing

if TYPE_CHECKING:
    from realtime.members import Member

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    refused: RefusedUpdate
    sender: "Member"


class RefusalKeeper:
    """Keeps what was refused by `keep`, one call at a time, with all that came during the one before."""

    def __init__(self, keep: Callable[[Sequence[RefusedUpdate]], Awaitable[None]]) -> None:
        self._keep = keep
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._room_for_more = asyncio.Event()
        self._room_for_more.set()
        self._task: asyncio.Task[None] | None = None

    def offer(self, refused: RefusedUpdate, sender: "Member") -> None:
        """Line up an update that `sender` sent. Where it cannot be kept, the sender's socket is closed with 1013: its
        client then still holds it, and brings it again."""
        self._waiting.append(_Waiting(refused, sender))
        self._bytes += len(refused.update)
        if self._bytes > conf().refused_waiting_bytes_max:
            self._room_for_more.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def room_for_more(self) -> None:
        """Wait while too many bytes wait: who sends what is refused is read no faster than it can be kept."""
        await self._room_for_more.wait()

    async def flushed(self) -> None:
        """Wait until all that was offered is kept or given up."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._keep_batch(batch)
                finally:
                    self._bytes -= sum(len(each.refused.update) for each in batch)
                    if self._bytes <= conf().refused_waiting_bytes_max:
                        self._room_for_more.set()
        finally:
            self._task = None

    async def _keep_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._keep([each.refused for each in batch])
        except Exception as error:  # noqa: BLE001  (without this task nothing is ever kept again)
            logger.warning("%d refused updates could not be kept: %s", len(batch), type(error).__name__)
            for each in batch:
                each.sender.close(Closing(CloseCode.TRY_AGAIN, "what was refused could not be kept"))
