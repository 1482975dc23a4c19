"""The door at `/ws/notifications/`: what concerns the person who is signed in."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

from documents.conf import conf
from documents.roles import Applicant
from realtime.closing import CloseCode, Closing, closing_for, ended_right
from realtime.entrance import in_time, user_by_cookie
from realtime.guests import admit_by_account
from realtime.hub import current_hub
from realtime.limits import TokenBucket
from realtime.message_errors import MessageRefused, read_object
from realtime.notifications.changes import Marked, mark_read
from realtime.notifications.mailboxes import Mailbox, MailboxGuest
from realtime.notifications.readers import Reader
from realtime.notifications.sending import tell_of_change
from realtime.sockets import Socket

READ_IDS_MAX = 1000
"""Notifications that one message may mark as read."""

READS_PER_SECOND = 10
READS_BURST = 100
"""Messages that one socket is read at; who sends more is read slower."""

ID_MAX = 2**63 - 1


class NotificationConsumer(Socket):
    """One tab of somebody's. Override `send_notification` to say it in another form, `send_read`, `connect`,
    `disconnect` and `receive`; `self.user` is there once somebody is let in. Whatever finds a notification (its group,
    the watch, a connect), `send_notification` is called once for it and this socket."""

    user: Any
    mailbox: Mailbox

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guest: MailboxGuest | None = None
        self._reads_left: TokenBucket | None = None

    # To be overridden

    async def send_notification(self, event: dict[str, Any]) -> None:
        """Send one notification: `id`, `at` (ISO 8601) and `message` of a stored one, in the order of ids; of an event
        that somebody's own code sent into the group, whatever it has but its type."""
        await self._send({**event, "type": "notification"})

    async def send_read(self, ids: Sequence[int]) -> None:
        """Say that these were read: by this socket, or by another of the same person that this one was sent them."""
        await self._send({"type": "read", "ids": list(ids)})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one message: `{"type": "read", "ids": […]}` or `{"type": "read", "up_to": id}`."""
        if self.guest is None or self._reads_left is None:
            return
        if text_data is None:
            raise Closing(CloseCode.UNSUPPORTED, "only text frames are understood here")
        if len(text_data) > conf().frame_bytes_max:
            raise Closing(CloseCode.TOO_LARGE, "the frame is too large")
        try:
            await self._mark_read(_ids_in(text_data, self.guest.reader), self.guest)
        except MessageRefused as error:
            await self._send(error.shown())
        if pause := self._reads_left.take(1, now=current_hub().now()):
            await asyncio.sleep(pause)

    # The way in and out

    async def enter(self) -> None:
        async with in_time():
            await self._stand()

    async def _stand(self) -> None:
        hub = current_hub()
        began = hub.now()
        user, credential = user_by_cookie(self.scope)
        if not user.is_authenticated:
            raise Closing(CloseCode.SIGNED_OUT, "sign in to hear what concerns you")
        self.seats.take("SOCKETS_PER_USER_MAX", user.pk, at_most=conf().sockets_per_user_max)
        key = "notifications", user.pk
        mailbox = await hub.guests.enter(key, lambda: Mailbox(hub, key, user_key=user.pk))
        try:
            applicant = Applicant(credential)
            admission = (await hub.load(admit_by_account, {applicant: user}))[applicant]
            if (closing := ended_right(admission)) is not None:
                raise closing
            reader = Reader(
                hub, user.pk, show=self.send_notification, tell_read=self.send_read, failed=self._sending_failed
            )
            self.user, self.mailbox = user, cast(Mailbox, mailbox)
            self._reads_left = TokenBucket(rate=READS_PER_SECOND, burst=READS_BURST, now=began)
            self.guest = MailboxGuest(
                self.mailbox, reader, user=user, credential=credential, admission=admission, close=self.close_soon
            )
            self.guest.greet(since=began)
            unread = await self.mailbox.unread()
        finally:
            hub.guests.entered(key)
        if self.closing is None:
            await self._send({"type": "connection_established", "unread": len(unread)})
            reader.begin(unread)

    def leave(self) -> None:
        if self.guest is not None:
            self.guest.leave()

    def forget(self) -> None:
        self.guest = None

    def _sending_failed(self, error: BaseException) -> None:
        self.close_soon(closing_for(error))

    async def _mark_read(self, ids: Sequence[int], guest: MailboxGuest) -> None:
        hub = current_hub()
        guest.reader.read_here(ids)
        marked: Marked = await hub.load(mark_read, guest.user.pk, ids)
        await self.send_read(marked.read)
        if marked.newly:
            self.mailbox.look_soon()
            hub.spawn(tell_of_change(guest.user.pk))

    async def _send(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message, ensure_ascii=False))


def _ids_in(text: str, reader: Reader) -> list[int]:
    """The ids that a message marks as read. Raises: MessageRefused."""
    match read_object(text):
        case {"type": "read", "ids": list(ids)} if len(ids) <= READ_IDS_MAX and all(map(_is_id, ids)):
            return sorted(set(ids))
        case {"type": "read", "up_to": last_id} if _is_id(last_id):
            return reader.shown_up_to(last_id)
    raise MessageRefused("malformed", f"this door takes a `read` with `ids`, at most {READ_IDS_MAX}, or `up_to`")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value <= ID_MAX
