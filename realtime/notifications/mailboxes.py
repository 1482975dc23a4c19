"""The people whose sockets for notifications this process has: who hears that something is new, and looks.

A message in one of an account's groups is a reason to look at its rows, and every HEAD_CHECK_SECONDS the watch looks
for all accounts at once. So a channel layer that loses everything costs seconds; what it repeats or forges, nothing."""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from documents.conf import conf
from realtime.groups import mailbox_group, notifications_group
from realtime.notifications.changes import Change, changes_since, floor_now, unread_ids
from realtime.notifications.readers import Reader

if TYPE_CHECKING:
    from realtime.hub import Hub


class Mailboxes:
    """All of one process. Lives on the event loop."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._by_user: dict[Any, Mailbox] = {}

    def __len__(self) -> int:
        return len(self._by_user)

    async def enter(self, reader: Reader) -> list[int]:
        """Have a reader hear from now on; return what is unread, for it to begin with. Raises: DatabaseError."""
        mailbox = self._by_user.get(reader.user_key)
        if mailbox is None:
            mailbox = self._by_user[reader.user_key] = Mailbox(self._hub, reader.user_key)
        # First it hears, and then it looks: what is committed in between is found twice, and sent once.
        mailbox.readers.add(reader)
        await mailbox.joined
        floor, unread = await self._hub.load(_floor_and_unread, reader.user_key)
        mailbox.begin(floor)
        return unread

    def leave(self, reader: Reader) -> None:
        """Twice is once."""
        mailbox = self._by_user.get(reader.user_key)
        if mailbox is not None and reader in mailbox.readers:
            mailbox.readers.discard(reader)
            if not mailbox.readers:
                del self._by_user[reader.user_key]
                self._hub.spawn(mailbox.leave())

    def look_soon(self, user_key: Any) -> None:
        """This process has changed something of this account."""
        if user_key in self._by_user:
            self._by_user[user_key].look_soon()

    async def look(self) -> None:
        """By the watch: find all that was not heard of. Raises: DatabaseError."""
        watched = {key: mailbox for key, mailbox in self._by_user.items() if mailbox.floor is not None}
        if not watched:
            return
        oldest = min(mailbox.floor or 0 for mailbox in watched.values())
        floor, changes = await self._hub.load(_floor_and_changes, oldest, list(watched))
        by_user: dict[Any, list[Change]] = {}
        for change in changes:
            by_user.setdefault(change.user_key, []).append(change)
        for key, mailbox in watched.items():
            mailbox.hear(by_user.get(key, ()), floor)


class Mailbox:
    """One account's readers in this process. `floor`: all that was changed in earlier transactions has been seen; None
    until somebody has looked."""

    def __init__(self, hub: "Hub", user_key: Any) -> None:
        self.readers: set[Reader] = set()
        self.floor: int | None = None
        self._hub = hub
        self._user_key = user_key
        self.joined = asyncio.ensure_future(self._join())
        self._is_due = False
        self._is_looking = False

    async def _join(self) -> None:
        await asyncio.gather(
            self._hub.groups.join(notifications_group(self._user_key), self._hear_public),
            self._hub.groups.join(mailbox_group(self._user_key), self._hear_hint),
        )

    async def leave(self) -> None:
        await self.joined
        await self._hub.groups.leave(notifications_group(self._user_key), self._hear_public)
        await self._hub.groups.leave(mailbox_group(self._user_key), self._hear_hint)

    def begin(self, floor: int) -> None:
        if self.floor is None:
            self.floor = floor
        if self._is_due:
            self.look_soon()

    def hear(self, changes: Sequence[Change], floor: int) -> None:
        """Pass on what was found, up to `floor`."""
        self.floor = floor if self.floor is None else max(self.floor, floor)
        for reader in self.readers:
            reader.hear(changes)

    def look_soon(self) -> None:
        """Look now, or once more when the look under way is over, RECHECK_PAUSE_SECONDS apart."""
        self._is_due = True
        if not self._is_looking and self.floor is not None:
            self._is_looking = True
            self._hub.spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._is_due and self.readers:
                self._is_due = False
                floor, changes = await self._hub.load(_floor_and_changes, self.floor or 0, [self._user_key])
                self.hear(changes, floor)
                await asyncio.sleep(conf().recheck_pause_seconds)
        finally:
            self._is_looking = False

    def _hear_public(self, message: dict[str, Any]) -> None:
        """What is stored comes with its id, and is read where it is stored; anything else is of somebody's own code."""
        if "id" in message:
            self.look_soon()
        elif message["type"] == "send_notification":
            for reader in self.readers:
                reader.pass_on(message)

    def _hear_hint(self, _: dict[str, Any]) -> None:
        self.look_soon()


def _floor_and_unread(user_key: Any) -> tuple[int, list[int]]:
    return floor_now(), unread_ids(user_key)  # in this order: see `changes`


def _floor_and_changes(floor: int, user_keys: Collection[Any]) -> tuple[int, list[Change]]:
    seen_to = floor_now()
    return seen_to, list(changes_since(floor, user_keys))
