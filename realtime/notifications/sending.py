"""Telling people: from views, tasks, the shell and other floors' signals.

A notification is a row of the caller's transaction. What the channel layer then carries is a hint: whoever has a
socket open reads the row, and finds it within HEAD_CHECK_SECONDS where the hint was lost."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import Error as DatabaseError
from django.db import transaction

from documents.conf import conf
from documents.opening import NoSuchDocument
from realtime.chat.places import document_of
from realtime.chat.posting import send_chat_message
from realtime.groups import chat_group, mailbox_group, notifications_group
from realtime.notifications.changes import trim_unread
from realtime.notifications.messages import checked
from realtime.notifications.models import REQUEST_KEY_LENGTH_MAX, CurrentTransaction, Notification

logger = logging.getLogger(__name__)

Hint: TypeAlias = tuple[str, dict[str, Any]]
"""A group of the channel layer, and a message for it."""

LOOK = {"type": "look"}
"""Between processes: something about this account's notifications is new. Whoever forged it has the rows looked at."""


class NoSuchUser(LookupError):
    """Raised when there is no account of this key."""

    def __init__(self, user_id: Any) -> None:
        super().__init__(f"There is no account of the key {user_id!r}, so nobody can be told.")
        self.user_id = user_id


def send_notification_to_user(user_id: Any, message: Any, *, request_key: str | None = None) -> int:
    """Store one notification for an account, and send it to its open sockets; return its id.

    `message` is any JSON of at most NOTIFICATION_BYTES_MAX. Inside `atomic()` it is part of the caller's transaction,
    and told on its commit. The same `request_key` (at most 200 characters) is told this person once: the second time
    the first one's id is returned. Raises: NoSuchUser, NotificationInvalid; nothing is stored then."""
    user_key = _existing(user_id)
    stored = notify([user_key], message, request_key=request_key)
    if stored:
        return stored[0].pk
    return Notification.objects.values_list("pk", flat=True).get(user=user_key, request_key=request_key)


def send_message_to_group(room_name: str, message: Any) -> None:
    """Say something to everyone in a room's chat (`chat_<room_name>`), in the name of the server.

    A text is a message like any other: stored, and there for who comes later. Any other JSON, of at most
    NOTIFICATION_BYTES_MAX, is an event `chat_message` for those who are there. Inside `atomic()` either is told on its
    commit. Raises: NoSuchDocument for a deleted document and a name that no room can have; MessageRefused for a text
    that is empty or too long; NotificationInvalid."""
    if isinstance(message, str):
        send_chat_message(room_name, message)
        return
    said = checked(message)
    document = document_of(room_name)
    if document is not None and document.deleted_at is not None:
        raise NoSuchDocument(room_name)
    event = {"type": "chat_message", "message": said}
    transaction.on_commit(lambda: _hints.send([(chat_group(room_name), event)]))


async def asend_message_to_group(room_name: str, message: Any) -> None:
    """As `send_message_to_group`, for async code."""
    await sync_to_async(send_message_to_group)(room_name, message)


def notify(user_keys: Sequence[Any], message: Any, *, request_key: str | None = None) -> list[Notification]:
    """As `send_notification_to_user`, for people who are known to be there, in two statements; return what is new."""
    said = checked(message)
    if request_key is not None and len(request_key) > REQUEST_KEY_LENGTH_MAX:
        raise ValueError(f"a request key has at most {REQUEST_KEY_LENGTH_MAX} characters")
    rows = [Notification(user_id=key, message=said, request_key=request_key) for key in user_keys]
    with transaction.atomic():
        stored = Notification.objects.bulk_create(rows, ignore_conflicts=request_key is not None)
        if request_key is not None:
            mine = Notification.objects.filter(changed_in=CurrentTransaction(), request_key=request_key, read_at=None)
            stored = list(mine.filter(user__in=user_keys).order_by("pk"))
        transaction.on_commit(lambda: _told(stored))
    return stored


async def asend_notification_to_user(user_id: Any, message: Any, *, request_key: str | None = None) -> int:
    """As `send_notification_to_user`, for async code."""
    return await sync_to_async(send_notification_to_user)(user_id, message, request_key=request_key)


def event_of(notification: Notification) -> dict[str, Any]:
    """The event `send_notification` of a stored one, for the group of its account."""
    return {
        "type": "send_notification",
        "id": notification.pk,
        "at": notification.created_at.isoformat(),
        "message": notification.message,
    }


def say_that_some_were_read(user_key: Any) -> None:
    """Tell an account's open sockets, on commit, to look at what was marked as read. Raises nothing."""
    transaction.on_commit(lambda: _hints.send([(mailbox_group(user_key), LOOK)]))


async def tell_of_change(user_key: Any) -> None:
    """Tell the processes that hold sockets of an account that something of it was read. Raises nothing."""
    try:
        await _group_send([(mailbox_group(user_key), LOOK)])
    except Exception as error:  # noqa: BLE001  (whatever a layer raises; the watch finds it)
        logger.info("channel layer: a hint was not sent: %s", type(error).__name__)


def _existing(user_id: Any) -> Any:
    """The key of an account, as the database has it. Raises: NoSuchUser."""
    model = get_user_model()
    try:
        user_key = model._meta.pk.to_python(user_id)  # noqa: SLF001  (Django documents it)
        found = user_key is not None and model._base_manager.filter(pk=user_key).exists()  # noqa: SLF001
    except (ValidationError, ValueError, TypeError) as error:
        raise NoSuchUser(user_id) from error
    if not found:
        raise NoSuchUser(user_id)
    return user_key


def _told(stored: Sequence[Notification]) -> None:
    """Raises nothing: what is not heard is found by the watch."""
    try:
        trim_unread({each.user_id for each in stored})
    except DatabaseError as error:  # the next notification does it
        logger.warning("unread notifications were not trimmed: %s", type(error).__name__)
    _hints.send([(notifications_group(each.user_id), event_of(each)) for each in stored])


class _Hints:
    """Sends into the channel layer from any thread. One that hangs costs LAYER_TIMEOUT_SECONDS, not as much for each of
    many who are told in one transaction: as long again nothing is sent."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def send(self, hints: Sequence[Hint]) -> None:
        if not hints or time.monotonic() < self._silent_until:
            return
        try:
            async_to_sync(_group_send)(hints)
        except Exception as error:  # noqa: BLE001  (whatever a layer raises)
            logger.info("channel layer: a notification was not sent: %s", type(error).__name__)
            self._silent_until = time.monotonic() + conf().layer_timeout_seconds


_hints = _Hints()


async def _group_send(hints: Sequence[Hint]) -> None:
    """Raises: TimeoutError, and whatever a layer raises."""
    layer = get_channel_layer()
    if layer is not None:
        async with asyncio.timeout(conf().layer_timeout_seconds):
            for group, message in hints:
                await layer.group_send(group, message)
