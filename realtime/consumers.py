"""The WebSocket doors. `YjsConsumer` speaks the y-websocket protocol and has the methods of pycrdt-websocket's."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict, cast
from urllib.parse import parse_qs

from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth.models import AnonymousUser
from pycrdt import Doc

from documents.conf import conf
from documents.credentials import Credential
from documents.opening import open_document
from documents.tickets import redeem_ticket
from history.errors import UpdateRefused
from history.fates import Refused
from history.models import Kind, Via
from history.sessions import WriteSession
from history.writes import write_session
from realtime.closing import ENDED_RIGHTS, CloseCode, Closing, closing_for
from realtime.connections import Connection
from realtime.frames import EXTENSION, FrameWriter
from realtime.hub import current_hub
from realtime.limits import Seats, address_key
from realtime.origins import is_same_origin
from realtime.protocols.frames import Awareness, SyncStep2, Update, decode_frame

logger = logging.getLogger(__name__)


class YjsConsumer(AsyncWebsocketConsumer):
    """One editor's socket at `/ws/<room>`.

    Override `make_room_name`, `make_ydoc`, `connect`, `disconnect`, `receive`, `send_message`; `self.room_name` and
    `self.ydoc` are there after `connect`. `self.ydoc` is the room's document, shared by all its sockets and fed from
    the log: read it and observe it, but write with `group_send_message` or `send_doc_update`."""

    class WrappedMessage(TypedDict):
        """A message of y-sync or awareness."""

        message: bytes

    via = Via.WEBSOCKET

    room_name: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection: Connection | None = None
        self._closing: asyncio.Task[None] | None = None
        self._seats: Seats | None = None

    @property
    def ydoc(self) -> "Doc[Any]":
        """The room's document. It is another one after an edit that cut a character in two: do not keep it."""
        return self._entered().room.doc

    # To be overridden

    def make_room_name(self) -> str:
        """The name of the room that this socket asks for."""
        return cast(str, self.scope["url_route"]["kwargs"]["room"])

    async def make_ydoc(self) -> "Doc[Any]":
        """The document that the room begins with: called once for each room and process, not for each socket, and
        again where the room has to fold its document anew.

        Attach observers here; they live as long as the room. Content becomes the log's first update while the log is
        empty, and is ignored afterwards."""
        return Doc()

    async def connect(self) -> None:
        """Admit the user, open the room and greet. Refused sockets are accepted first and closed with a 44xx code:
        a close before accept reaches browsers as a bare failure."""
        await self.accept()
        try:
            await self._enter()
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            await self._end(error)

    async def disconnect(self, code: int) -> None:
        """Called once, when the socket has ended in whatever way."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one frame. Only binary ones are part of the protocol."""
        if self.connection is None:
            return
        if bytes_data is None:
            raise Closing(CloseCode.UNSUPPORTED, "only binary frames are understood here")
        await self.connection.receive(bytes_data)

    async def send_message(self, message_wrapper: WrappedMessage) -> None:
        """Send one message of the room to this socket."""
        await self.send(bytes_data=message_wrapper["message"])

    async def group_send_message(self, message: bytes) -> None:
        """Send a message to everyone in the room, in all processes. A sync message is appended to the log first.

        Raises: Malformed, MissingDependency, UpdateRefused, OutcomeUnknown, Closing."""
        connection = self._entered()
        for decoded in decode_frame(message):
            match decoded:
                case SyncStep2(update) | Update(update):
                    await self._append(update)
                case Awareness(entries):
                    connection.room.hear(connection, entries)
                case _:
                    raise ValueError("only updates and awareness can be sent to a group")

    async def doc_update(self, message_wrapper: WrappedMessage) -> None:
        """Apply an update (v1) to the room's document: it is appended, then reaches everyone.

        Raises: as `group_send_message`."""
        await self._append(message_wrapper["message"])

    async def _append(self, update: bytes) -> None:
        connection = self._entered()
        fate = await connection.room.write_and_wait(connection.session, update, kind=Kind.SYNC)
        if isinstance(fate, Refused):
            raise UpdateRefused(connection.room.document_id, fate.reason.value)

    # The way in and out

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(conf().authenticate_seconds or None):
                await self._find_room()
        except TimeoutError:
            raise Closing(CloseCode.TRY_AGAIN, "the database is slow; AUTHENTICATE_SECONDS are over") from None

    async def _find_room(self) -> None:
        hub = current_hub()
        began = hub.now()
        self.room_name = self.make_room_name()
        seats = self._seats = hub.sockets.seats()
        seats.take("SOCKETS_MAX", None, at_most=conf().sockets_max)
        address = client_address(self.scope)
        if address is not None:
            seats.take("SOCKETS_PER_ADDRESS_MAX", address_key(address), at_most=conf().sockets_per_address_max)
        user, session = await hub.load(self._admit)
        if session.user is not None:
            seats.take("SOCKETS_PER_USER_MAX", session.user.pk, at_most=conf().sockets_per_user_max)
        seats.take("SOCKETS_PER_DOCUMENT_MAX", session.document_id, at_most=conf().sockets_per_document_max)
        room = await hub.open(session.document_id, self.make_ydoc)
        self.connection = Connection(
            room,
            user=user,
            session=session,
            send=self._send_payload,
            writer=self._writer(),
            close=self._close_soon,
        )
        self.connection.greet()
        hub.rechecks.entered(self.connection, since=began)
        hub.openings.offer(session)

    def _admit(self) -> tuple[Any, WriteSession]:
        """Who comes, and the session under which they write. Reads the database.

        Raises: NotSignedIn, NoSuchDocument, TicketInvalid, TicketExpired, Closing."""
        user, credential = user_of(self.scope, self.room_name)
        opened = open_document(user, self.room_name, credential=credential)
        headers = dict(self.scope["headers"])
        return user, write_session(
            opened.document,
            actor=user,
            credential=credential,
            admission=opened.admission,
            via=self.via,
            ip=client_address(self.scope),
            user_agent=headers.get(b"user-agent", b"").decode("latin-1"),
        )

    def _entered(self) -> Connection:
        if self.connection is None:
            raise Closing(CloseCode.TRY_AGAIN, "the socket is not in its room yet")
        return self.connection

    def _overrides_sending(self) -> bool:
        return type(self).send_message is not YjsConsumer.send_message

    def _writer(self) -> FrameWriter | None:
        return None if self._overrides_sending() else self._extension()

    def _extension(self) -> FrameWriter | None:
        return cast("FrameWriter | None", (self.scope.get("extensions") or {}).get(EXTENSION))

    async def _send_payload(self, payload: bytes) -> None:
        await self.send_message({"message": payload})

    def _close_soon(self, closing: Closing) -> None:
        """Close from outside this socket's own task; twice is once."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._end(closing))
            server = self._extension()
            if server is not None and self.connection is not None and closing.code in ENDED_RIGHTS:
                hub, receive_late = self.connection.room.hub, self.connection.receive_late
                server.heard_late = lambda frame: hub.spawn(_kept(receive_late, frame))

    async def _end(self, error: BaseException) -> None:
        closing = closing_for(error)
        if closing is not error:
            logger.info("socket closed: code=%s: %s", closing.code, type(error).__name__)
        try:
            await self.close(code=closing.code, reason=closing.reason)
        except (RuntimeError, OSError):
            logger.debug("the socket was gone before it could be closed")

    # One loop for each socket, without what Channels does for each frame: a hop to a thread to close old database
    # connections (52 µs), two tasks, and a channel of its own in the layer. The hub has one channel for the process.

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        self.base_send = send
        self.channel_layer = get_channel_layer(self.channel_layer_alias)
        code = CloseCode.NORMAL
        try:
            while True:
                message = await receive()
                match message["type"]:
                    case "websocket.connect":
                        await self._connect()
                    case "websocket.receive":
                        await self._receive(message)
                    case "websocket.disconnect":
                        code = message.get("code", code)
                        break
        except StopConsumer:
            pass
        finally:
            if self.connection is not None:
                self.connection.leave()
            if self._seats is not None:
                self._seats.give_back()
            await self.disconnect(code)
            self.connection = None  # what a socket leaves behind waits for the garbage, and shall not hold its room

    async def _connect(self) -> None:
        try:
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()

    async def _receive(self, message: dict[str, Any]) -> None:
        if self._closing is not None:
            await self._receive_late(message.get("bytes"))
            return
        try:
            await self.receive(text_data=message.get("text"), bytes_data=message.get("bytes"))
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            self._close_soon(closing_for(error))

    async def _receive_late(self, frame: bytes | None) -> None:
        """Take what was under way when the socket was closed: the server hands out nothing behind its own close, but
        what it had read by then."""
        if frame is not None and self.connection is not None:
            await _kept(self.connection.receive_late, frame)


async def _kept(receive_late: Callable[[bytes], Awaitable[None]], frame: bytes) -> None:
    try:
        await receive_late(frame)
    except Exception as error:  # noqa: BLE001  (there is no socket any more that could be closed for it)
        logger.info("not kept: %s", closing_for(error).reason)


def client_address(scope: dict[str, Any]) -> str | None:
    """The address that the connection came from; a Unix socket has none."""
    client = scope.get("client")
    return client[0] if client and client[0] else None


def user_of(scope: dict[str, Any], room_name: str) -> tuple[Any, Credential]:
    """Who asks for the room, and by what: a ticket counts for more than a cookie. Reads the database.

    Raises: TicketInvalid, TicketExpired, Closing."""
    ticket = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("ticket")
    if ticket:
        user = redeem_ticket(ticket[0], room_name)
        return user, Credential.by_password(user)
    user = scope.get("user") or AnonymousUser()
    if user.is_authenticated and not is_same_origin(scope):
        raise Closing(CloseCode.NOT_ALLOWED, "this page's origin may not use your session")
    return user, Credential.by_session(user, scope.get("session"))
