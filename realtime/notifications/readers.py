"""What one socket is sent: each notification once, oldest first, and that it was read where another tab did that.

Holds ids alone. What they say is read from the database a page at a time, when the socket has taken what was before."""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseError

from documents.conf import conf
from realtime.notifications.changes import Change, still_unread
from realtime.notifications.sending import event_of

if TYPE_CHECKING:
    from realtime.hub import Hub

logger = logging.getLogger(__name__)

PAGE_MAX = 50
"""Notifications that are read, and held in memory, for one socket at a time."""

PASSED_ON_MAX = 100
"""Events of one's own code, stored nowhere, that wait for a slow socket; the oldest go first."""


class Reader:
    """One socket of one account. `show` sends an event `send_notification`, `tell_read` that ids were read."""

    def __init__(
        self,
        hub: "Hub",
        user_key: Any,
        *,
        show: Callable[[dict[str, Any]], Awaitable[None]],
        tell_read: Callable[[Sequence[int]], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.user_key = user_key
        self._hub = hub
        self._show = show
        self._tell_read = tell_read
        self._failed = failed
        self._waiting: set[int] = set()
        self._shown: set[int] = set()
        """Unread ones that the socket was sent, or is being sent."""
        self._read: set[int] = set()
        self._passed_on: deque[dict[str, Any]] = deque(maxlen=PASSED_ON_MAX)
        self._pump: asyncio.Task[None] | None = None
        self._is_open = False

    def begin(self, unread: Collection[int]) -> None:
        """Send from now on, these first; what was heard until now has waited."""
        self._is_open = True
        self._waiting.update(unread)
        self._ensure_pump()

    def hear(self, changes: Sequence[Change]) -> None:
        """Take what has changed; what was heard before, or has been sent, is nothing new."""
        for change in changes:
            if not change.is_read and change.id not in self._shown:
                self._waiting.add(change.id)
            elif change.is_read:
                self._waiting.discard(change.id)
                if change.id in self._shown:
                    self._shown.discard(change.id)
                    self._read.add(change.id)
        self._ensure_pump()

    def pass_on(self, event: dict[str, Any]) -> None:
        """Send an event of somebody's own code as it is."""
        self._passed_on.append(event)
        self._ensure_pump()

    def shown_up_to(self, last_id: int) -> list[int]:
        """The unread ones that this socket was sent, up to and with this id."""
        return sorted(id_ for id_ in self._shown if id_ <= last_id)

    def read_here(self, ids: Collection[int]) -> None:
        """This socket has said so, and is answered: it need not be told."""
        self._shown.difference_update(ids)
        self._waiting.difference_update(ids)

    async def written(self) -> None:
        """Wait until nothing waits to be sent."""
        while self._pump is not None:
            await asyncio.wait([self._pump])

    def close(self) -> None:
        self._is_open = False
        if self._pump is not None:
            self._pump.cancel()

    def _ensure_pump(self) -> None:
        if self._pump is None and self._is_open and (self._waiting or self._read or self._passed_on):
            self._pump = asyncio.create_task(self._run())
            self._pump.add_done_callback(self._pump_ended)

    async def _run(self) -> None:
        while self._waiting or self._read or self._passed_on:
            while self._passed_on:
                await self._show_as_it_is(self._passed_on.popleft())
            if self._read:
                ids, self._read = self._read, set()
                await self._tell_read(sorted(ids))
            if self._waiting:
                await self._show_page()

    async def _show_as_it_is(self, event: dict[str, Any]) -> None:
        try:
            await self._show(event)
        except (TypeError, ValueError) as error:  # anyone on the layer can send anything
            logger.warning("an event is no JSON and was passed over: %s", type(error).__name__)

    async def _show_page(self) -> None:
        ids = heapq.nsmallest(PAGE_MAX, self._waiting)
        self._waiting.difference_update(ids)
        self._shown.update(ids)  # before they are looked at: that one is read in between is told behind it
        try:
            page = await self._hub.load(still_unread, self.user_key, ids)
        except DatabaseError as error:
            logger.warning("notifications wait for the database: %s", type(error).__name__)
            self._shown.difference_update(ids)
            self._waiting.update(ids)
            await asyncio.sleep(conf().head_check_seconds)
            return
        gone = set(ids) - {each.pk for each in page}
        self._shown -= gone
        self._read -= gone
        for notification in page:
            await self._show(event_of(notification))

    def _pump_ended(self, task: "asyncio.Task[None]") -> None:
        self._pump = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._failed(error)
        else:
            self._ensure_pump()
