"""Stateless messages: texts of the host project's own, to and from the providers that have a document open.

Nothing keeps them. What comes is told by a signal, one message at a time for each process, off the path of the edits;
what goes out reaches those who are there."""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.dispatch import Signal

from documents.models import Document
from documents.opening import NoSuchDocument
from realtime.bus import send_now
from realtime.frames import SharedMessage
from realtime.groups import document_group
from realtime.hub import Hub, running_hub
from realtime.protocols.messages import Stateless

if TYPE_CHECKING:
    from realtime.hocuspocus.connections import HocuspocusConnection

logger = logging.getLogger(__name__)

STATELESS_BYTES_MAX = 64 * 1024
"""A message of the server's, which goes through the channel layer; what clients send has FRAME_BYTES_MAX."""

STATELESS_WAITING_BYTES_MAX = 4 * 1024 * 1024
"""Messages of clients that wait for the signal's receivers; whoever sends one more is read no further meanwhile."""

stateless_received = Signal()
"""Public: a provider has sent a stateless message. `document` (Document), `payload` (str), `actor` (a user, or None),
`role` (documents.models.Role), `reply` (called with a str, from any thread, it answers that provider alone).

Receivers run on a thread that may use the database, one message at a time: what takes long belongs into a task."""


async def broadcast_stateless(room_name: str, payload: str) -> None:
    """Send a stateless message to everyone who has the document open through Hocuspocus' provider, in all processes.

    From sync code: `async_to_sync(broadcast_stateless)(…)`. It may be lost, as all that the channel layer carries.
    Raises: NoSuchDocument, ValueError for more than STATELESS_BYTES_MAX."""
    if len(payload.encode()) > STATELESS_BYTES_MAX:
        raise ValueError(f"a stateless message has at most {STATELESS_BYTES_MAX} bytes")
    document_id = await sync_to_async(_document_id)(room_name)
    if get_channel_layer() is not None:
        message = {"type": "stateless", "document": document_id, "payload": payload}
        await sync_to_async(send_now)(document_group(document_id), message)
    elif (hub := running_hub()) is not None and (room := hub.rooms.get(document_id)) is not None:
        room.say(SharedMessage(Stateless(payload)))  # this process is alone


def _document_id(room_name: str) -> int:
    document = Document.objects.present().filter(name=room_name).only("pk").first()
    if document is None:
        raise NoSuchDocument(room_name)
    return document.pk


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a client's."""

    connection: "HocuspocusConnection"
    payload: str

    @property
    def cost(self) -> int:
        return 4 * len(self.payload) + 512


class Inbox:
    """The messages of one process's clients that wait to be told of."""

    def __init__(self) -> None:
        self._waiting: deque[Heard] = deque()
        self._bytes = 0
        self._room_for_more = asyncio.Event()
        self._room_for_more.set()
        self._is_telling = False

    async def offer(self, heard: Heard) -> None:
        """Line up a message; returns later than at once where too many wait."""
        if not stateless_received.has_listeners(Document):
            return
        while not self._room_for_more.is_set():  # again after each wait: all are woken, and the first may fill it up
            await self._room_for_more.wait()
        self._waiting.append(heard)
        self._bytes += heard.cost
        if self._bytes > STATELESS_WAITING_BYTES_MAX:
            self._room_for_more.clear()
        if not self._is_telling:
            self._is_telling = True
            heard.connection.room.hub.spawn(self._tell())

    async def _tell(self) -> None:
        try:
            while self._waiting:
                heard = self._waiting.popleft()
                self._bytes -= heard.cost
                if self._bytes <= STATELESS_WAITING_BYTES_MAX:
                    self._room_for_more.set()
                await self._tell_of(heard)
        finally:
            self._is_telling = False

    async def _tell_of(self, heard: Heard) -> None:
        loop, say = asyncio.get_running_loop(), heard.connection.say_stateless

        def reply(payload: str) -> None:
            loop.call_soon_threadsafe(say, payload)

        try:
            await heard.connection.room.hub.load(_send, heard, reply)
        except Exception as error:  # noqa: BLE001  (whatever a database raises; the next may do better)
            logger.warning("nobody was told of a stateless message: %s", type(error).__name__)


def _send(heard: Heard, reply: Any) -> None:
    session = heard.connection.session
    document = Document.objects.filter(pk=session.document_id).first()
    if document is not None:
        stateless_received.send_robust(
            sender=Document,
            document=document,
            payload=heard.payload,
            actor=session.user,
            role=session.admission.role,
            reply=reply,
        )


_inboxes: "WeakKeyDictionary[Hub, Inbox]" = WeakKeyDictionary()


def inbox_of(hub: Hub) -> Inbox:
    """The one of this process."""
    if hub not in _inboxes:
        _inboxes[hub] = Inbox()
    return _inboxes[hub]
