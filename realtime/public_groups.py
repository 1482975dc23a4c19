"""The public group of a room: what code of one's own says to it through the channel layer, as to any Channels consumer.

Nobody signs it, so nobody is its author. Every process that has the room open hears it, and the log takes it once.
Nothing that is said here closes a socket."""

import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from channels.consumer import get_handler_name
from django.utils import timezone

from documents.conf import conf
from history.errors import UpdateRefused
from history.fates import Reason, Refused
from history.models import Kind, Via
from history.sessions import WriteSession
from realtime.protocols.frames import MessageType, decode_frame, holds_one_update
from realtime.protocols.messages import Awareness, Opaque, QueryAwareness, SyncStep1, SyncStep2, Update

if TYPE_CHECKING:
    from realtime.hub import Hub
    from realtime.rooms import Room
    from realtime.yjs_consumers import YjsConsumer

logger = logging.getLogger(__name__)

WAITING_MAX = 1000
"""Messages that wait in one room of one process; of more the newest are dropped, as the layer drops them."""

Said: TypeAlias = SyncStep2 | Update | Awareness | Opaque
"""What may be said to a whole room."""

_speaking: ContextVar[WriteSession | None] = ContextVar("speaking", default=None)


class PublicGroup:
    """What one process hears in `group`, the public one of a room. Lives on the event loop."""

    def __init__(self, hub: "Hub", document_id: int, group: str) -> None:
        self._hub = hub
        self._document_id = document_id
        self.group = group
        self._consumers: dict[YjsConsumer, None] = {}
        self._waiting: deque[dict[str, Any]] = deque()
        self._waiting_bytes = 0
        self._is_taking = False
        self._has_ignored = False
        self.session = WriteSession(
            document_id=document_id, user=None, via=Via.CHANNEL, opened_at=timezone.now(), requires_role=False
        )

    def enter(self, consumer: "YjsConsumer") -> None:
        """Have a consumer's own methods called: `doc_update` of one that has it, others of each that has them."""
        self._consumers[consumer] = None

    def leave(self, consumer: "YjsConsumer") -> None:
        self._consumers.pop(consumer, None)

    def hear(self, message: dict[str, Any]) -> None:
        """Line up one message, each of a room after the other."""
        if not conf().channel_messages:
            if not self._has_ignored:
                self._has_ignored = True
                logger.warning("CHANNEL_MESSAGES is off: ignored what was sent to document=%s", self._document_id)
            return
        size = _size(message)
        if len(self._waiting) == WAITING_MAX or self._waiting_bytes + size > conf().hints_waiting_bytes_max:
            logger.warning("too much is sent to document=%s by the channel layer: a message is lost", self._document_id)
            return
        self._waiting.append(message)
        self._waiting_bytes += size
        if not self._is_taking:
            self._is_taking = True
            self._hub.spawn(self._take_all())

    async def _take_all(self) -> None:
        try:
            while self._waiting:
                message = self._waiting.popleft()
                self._waiting_bytes -= _size(message)
                room = self._hub.rooms.get(self._document_id)
                if room is None:
                    continue
                try:
                    await self._take(room, message)
                except Exception as error:  # noqa: BLE001  (anyone on the layer can send anything)
                    logger.warning(
                        "not taken from the channel layer: document=%s: %s", self._document_id, type(error).__name__
                    )
        finally:
            self._is_taking = False

    async def _take(self, room: "Room", message: dict[str, Any]) -> None:
        name = get_handler_name(message)
        match name:
            case "doc_update":
                consumer = next((each for each in self._consumers if each.overrides("doc_update")), None)
                if consumer is None:
                    await append_once(room, self.session, message["update"])
                    return
                with _speaking_as(self.session):
                    await consumer.doc_update(cast("YjsConsumer.WrappedUpdate", message))
            case "send_message":
                for said in read_message(message["message"]):
                    match said:
                        case SyncStep2(update) | Update(update):
                            await append_once(room, self.session, update)
                        case Awareness(entries):
                            room.hear_from_nobody(entries)
                        case Opaque(payload):
                            room.pass_on(payload)
            case _:
                takers = [each for each in self._consumers if each.has_own(name)]
                if not takers:
                    raise ValueError("no handler for a message of this type")
                for each in takers:
                    each.hear(message)


async def append_once(room: "Room", session: WriteSession, update: bytes) -> None:
    """Append what was said to the whole room, for the first process that does.

    Raises: Malformed, MissingDependency, UpdateRefused, OutcomeUnknown, Closing."""
    if not isinstance(update, bytes) or len(update) > conf().update_bytes_max:
        raise UpdateRefused(room.document_id, Reason.TOO_LARGE.value)
    key = f"channel:{hashlib.sha256(update).hexdigest()}"
    fate = await room.write_and_wait(session, update, kind=Kind.EDIT, request_key=key)
    if isinstance(fate, Refused):
        raise UpdateRefused(room.document_id, fate.reason.value)


def read_message(payload: bytes) -> list[Said]:
    """What one message for a whole room says: updates and awareness are read, all else is passed on as it is. It may be
    as large as a client's.

    Raises: Malformed; ValueError for what is too large, or for questions beside other messages."""
    bytes_max = conf().sync_frame_bytes_max if holds_one_update(payload) else conf().frame_bytes_max
    if not 0 < len(payload) <= bytes_max:
        raise ValueError("a message is empty or too large")
    if payload[0] not in (MessageType.SYNC, MessageType.AWARENESS, MessageType.QUERY_AWARENESS):
        decoded: list[Any] = [Opaque(payload)]
    else:
        decoded = decode_frame(payload)
    if len(decoded) == 1 and isinstance(decoded[0], SyncStep1 | QueryAwareness):
        decoded = [Opaque(payload)]
    if any(isinstance(each, SyncStep1 | QueryAwareness) for each in decoded):
        raise ValueError("a question is a message of its own")
    return decoded


def speaker(document_id: int) -> WriteSession | None:
    """Under which session a consumer's code writes to a document while it handles what its public group was sent; None
    where it does not, and writes for its own user."""
    session = _speaking.get()
    return session if session is not None and session.document_id == document_id else None


@contextmanager
def _speaking_as(session: WriteSession) -> Iterator[None]:
    token = _speaking.set(session)
    try:
        yield
    finally:
        _speaking.reset(token)


def _size(message: dict[str, Any]) -> int:
    return sum(len(each) for each in message.values() if isinstance(each, bytes | str))
