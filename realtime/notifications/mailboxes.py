"""One person's sockets for notifications in this process: who hears that something is new, and looks.

A message in one of the account's groups is a reason to look at its rows, and every HEAD_CHECK_SECONDS the watch looks
for all accounts at once. So a channel layer that loses everything costs seconds; what it repeats or forges, nothing."""

import asyncio
from collections.abc import Collection, Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, cast

from realtime.closing import Closing
from realtime.groups import mailbox_group, notifications_group
from realtime.guests import Guest, Lobby
from realtime.notifications.changes import Change, changes_since, floor_now, unread_ids
from realtime.notifications.readers import Reader

if TYPE_CHECKING:
    from realtime.hub import Hub

LOOK_PAUSE_SECONDS = 0.1
"""However many messages ask for it, one account's rows are looked at again this far apart."""


class MailboxGuest(Guest):
    """One socket at one mailbox."""

    def __init__(self, mailbox: "Mailbox", reader: Reader, **how: Any) -> None:
        super().__init__(mailbox, written=reader.written, **how)
        self.reader = reader

    def leave(self) -> None:
        super().leave()
        self.reader.close()

    def close(self, closing: Closing) -> None:
        self.leave()
        super().close(closing)


class Mailbox(Lobby):
    """All sockets of one account here. `floor`: what was changed in earlier transactions has been seen; None until
    somebody has looked."""

    members: set[MailboxGuest]  # type: ignore[assignment]

    def __init__(self, hub: "Hub", key: Hashable, *, user_key: Any) -> None:
        super().__init__(hub, key)
        self.user_key = user_key
        self.floor: int | None = None
        self._is_due = False
        self._is_looking = False

    async def opened(self) -> None:
        await asyncio.gather(
            self.hub.groups.join(notifications_group(self.user_key), self._hear_public),
            self.hub.groups.join(mailbox_group(self.user_key), self._hear_hint),
        )

    async def ended(self) -> None:
        await self.hub.groups.leave(notifications_group(self.user_key), self._hear_public)
        await self.hub.groups.leave(mailbox_group(self.user_key), self._hear_hint)

    async def unread(self) -> list[int]:
        """The ids of all that is unread, oldest first, for a guest who stands here already: what is committed from here
        on is found by a look. Raises: DatabaseError."""
        floor, ids = await self.hub.load(_floor_and_unread, self.user_key)
        if self.floor is None:
            self.floor = floor
            if self._is_due:
                self.look_soon()
        return ids

    def hear(self, changes: Sequence[Change], floor: int) -> None:
        """Pass on what was found, up to `floor`."""
        self.floor = floor if self.floor is None else max(self.floor, floor)
        for guest in self.members:
            guest.reader.hear(changes)

    def look_soon(self) -> None:
        """Look now, or once more when the look under way is over, LOOK_PAUSE_SECONDS apart."""
        self._is_due = True
        if not self._is_looking and self.floor is not None:
            self._is_looking = True
            self.hub.spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._is_due and not self.closed:
                self._is_due = False
                floor, changes = await self.hub.load(_floor_and_changes, self.floor or 0, {self.user_key})
                self.hear(changes, floor)
                await asyncio.sleep(LOOK_PAUSE_SECONDS)
        finally:
            self._is_looking = False

    @classmethod
    async def look_at_all(cls, hub: "Hub", lobbies: Collection[Lobby]) -> None:
        watched = {each.user_key: each for each in cast("Collection[Mailbox]", lobbies) if each.floor is not None}
        if not watched:
            return
        oldest = min(mailbox.floor or 0 for mailbox in watched.values())
        floor, changes = await hub.load(_floor_and_changes, oldest, watched.keys())
        by_user: dict[Any, list[Change]] = {}
        for change in changes:
            by_user.setdefault(change.user_key, []).append(change)
        for user_key, mailbox in watched.items():
            mailbox.hear(by_user.get(user_key, ()), floor)

    def _hear_public(self, message: dict[str, Any]) -> None:
        """What is stored comes with its id, and is read where it is stored; anything else is of somebody's own code."""
        if "id" in message:
            self.look_soon()
        elif message["type"] == "send_notification":
            for guest in self.members:
                guest.reader.pass_on(message)

    def _hear_hint(self, _: dict[str, Any]) -> None:
        self.look_soon()


def _floor_and_unread(user_key: Any) -> tuple[int, list[int]]:
    return floor_now(), unread_ids(user_key)  # in this order: see `changes`


def _floor_and_changes(floor: int, user_keys: AbstractSet[Any]) -> tuple[int, list[Change]]:
    """Of several people everybody's changes are read: to ask for 20,000 people by name takes half a second, and what
    has just changed is little."""
    seen_to = floor_now()
    changes = changes_since(floor, *user_keys) if len(user_keys) == 1 else changes_since(floor)
    return seen_to, [change for change in changes if change.user_key in user_keys]
