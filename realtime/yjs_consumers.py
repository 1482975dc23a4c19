"""The door of Yjs clients. `YjsConsumer` speaks the y-websocket protocol and has the methods of pycrdt-websocket's."""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, TypedDict, cast
from weakref import ref

from asgiref.sync import async_to_sync
from pycrdt import Channel, Doc, Subscription

from documents.models import Document, Role
from documents.roles import RoleRule, role_for
from history.errors import UpdateRefused
from history.fates import Refused
from history.models import Kind, Via
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing
from realtime.connections import Connection
from realtime.entrance import enter
from realtime.hub import current_hub
from realtime.protocols.frames import Y_WEBSOCKET
from realtime.protocols.messages import Awareness, Opaque, SyncStep2, Update
from realtime.public_groups import append_once, read_message, speaker
from realtime.rooms import Room
from realtime.served import begins_empty
from realtime.sockets import Receiver, Socket

APPENDING_BYTES_MAX = 16 * 1024 * 1024
"""Updates that one socket's code has applied to its document and that the log has not taken; with more of them
`apply_update` fails, and closes the socket whose frame it was for."""

APPENDING_COST_BYTES = 2048
"""What each of them takes besides."""


class _WebsocketShim(Channel):
    """A consumer as something that sends: what pycrdt-websocket's consumers have for code that wants a `Channel`."""

    def __init__(self, path: str, send_func: Callable[[bytes], Awaitable[None]]) -> None:
        self._path = path
        self._send_func = send_func

    @property
    def path(self) -> str:
        return self._path

    def __aiter__(self) -> Any:
        raise NotImplementedError("a consumer's frames come to `receive`")

    async def __anext__(self) -> bytes:
        raise NotImplementedError("a consumer's frames come to `receive`")

    async def send(self, message: bytes) -> None:
        await self._send_func(message)

    async def recv(self) -> bytes:
        raise NotImplementedError("a consumer's frames come to `receive`")


class YjsConsumer(Socket):
    """One editor's socket at `/ws/<room>`. A consumer written for pycrdt-websocket's works with its import changed.

    Override `make_room_name`, `make_ydoc`, `get_role`, `connect`, `disconnect`, `receive`, `send_message` and
    `doc_update`. A method of one's own is called for what is sent to the room's public group under its name as the type
    (`realtime.groups.group_name`). `self.room_name`, `self.ydoc` and `self._websocket_shim` are None before `connect`.

    `self.ydoc` is the room's document, shared by all its sockets and fed from the log: read it, observe it, apply
    updates to it, which are logged first. Edited in any other way, it is thrown away and loaded again."""

    class WrappedMessage(TypedDict):
        """A message of y-sync or awareness."""

        message: bytes

    class WrappedUpdate(TypedDict):
        """An update (v1)."""

        update: bytes

    via = Via.WEBSOCKET

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection: Connection | None = None
        self.room_name: str = cast(str, None)
        self._websocket_shim: _WebsocketShim = cast(_WebsocketShim, None)
        self._room: Callable[[], Room | None] = _no_room
        self._observers: list[Subscription] = []
        self._appending_bytes = 0

    @property
    def ydoc(self) -> "Doc[Any]":
        """The room's document, for as long as the room is there, which may be longer than this socket."""
        room = self._room()
        return cast("Doc[Any]", None) if room is None else room.lend(self._append_soon, self._observers)

    # To be overridden

    def make_room_name(self) -> str:
        """The name of the room that this socket asks for."""
        return cast(str, self.scope["url_route"]["kwargs"]["room"])

    @begins_empty
    async def make_ydoc(self) -> "Doc[Any]":
        """The document that the room begins with: called once for each room and process, not for each socket, and
        again where the room has to fold its document anew.

        Attach observers here, async ones too; they live as long as the room. They are told of what the log holds
        already, in one event, and then of each committed edit of any process. Content becomes the log's first update
        while the log is empty, and is ignored afterwards."""
        return Doc()

    def get_role(self, user: Any, document: Document) -> Role | None:
        """What a user may do here: asked on the way in, and in the append and everywhere else again when the rights on
        the document have changed (`access_changed`). It may be async, reads the database, and must not write.

        A document that is deleted and an account that has ended give nobody any role, whatever this says."""
        return role_for(user, document)

    async def connect(self) -> None:
        """Admit the user, open the room and greet. Refused sockets are accepted first and closed with a 44xx code:
        a close before accept reaches browsers as a bare failure."""
        await super().connect()

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
        """Send a message to everyone in the room, in all processes. An update is appended to the log first, as this
        socket's user; awareness is shown as theirs; all else reaches y-websocket clients as it is.

        Raises: Malformed, MissingDependency, UpdateRefused, OutcomeUnknown, Closing, ValueError."""
        connection = self._entered()
        room, is_heard_by_all = connection.room, speaker(connection.session.document_id) is not None
        for said in read_message(message):
            match said:
                case SyncStep2(update) | Update(update):
                    await self._append(update)
                case Awareness(entries) if is_heard_by_all:
                    room.hear_from_nobody(entries)
                case Awareness(entries):
                    room.hear(connection, entries)
                case Opaque(payload):
                    room.pass_on(payload)
                    if not is_heard_by_all:
                        room.hub.bus.publish_message(room.document_id, payload)

    async def doc_update(self, update_wrapper: WrappedUpdate) -> None:
        """Apply an update (v1) to the room's document: it is appended, then reaches everyone.

        Called for what is sent to the public group under this name, once in each process that has the room open, for
        any of its sockets: then what this writes has no author, and the log takes it once from all of them.
        Raises: as `group_send_message`."""
        await self._append(update_wrapper["update"])

    async def _append(self, update: bytes) -> None:
        connection = self._entered()
        session = speaker(connection.session.document_id)
        if session is not None:
            await append_once(connection.room, session, update)
            return
        fate = await connection.room.write_and_wait(connection.session, update, kind=Kind.SYNC)
        if isinstance(fate, Refused):
            raise UpdateRefused(connection.room.document_id, fate.reason.value)

    def _append_soon(self, update: bytes) -> None:
        """For `apply_update` of the document, which does not wait. Raises: Closing."""
        room = self._entered().room
        if self._appending_bytes > APPENDING_BYTES_MAX:
            raise Closing(CloseCode.TRY_AGAIN, "too much waits for the log")
        self._appending_bytes += len(update) + APPENDING_COST_BYTES
        room.hub.spawn(self._append_counted(update))

    async def _append_counted(self, update: bytes) -> None:
        try:
            await self._append(update)
        finally:
            self._appending_bytes -= len(update) + APPENDING_COST_BYTES

    # The way in and out

    async def enter(self) -> None:
        self.room_name = self.make_room_name()
        self._websocket_shim = self._make_websocket_shim(self.scope["path"])
        self.connection = await enter(
            current_hub(),
            self.scope,
            self.room_name,
            via=self.via,
            seats=self.seats,
            make_doc=self.make_ydoc,
            make_member=self._connection,
            rule=self._rule(),
        )
        self.connection.room.public.enter(self)

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.room.public.leave(self)
            self.connection.room.served.end(self._observers)
            self.connection.leave()

    def forget(self) -> None:
        self.connection = None

    def _connection(self, room: Room, user: Any, session: WriteSession) -> Connection:
        self._room = ref(room)  # observers, which the room has, have the consumer: it must not have the room
        return Connection(
            room,
            user=user,
            session=session,
            wire=Y_WEBSOCKET,
            send=self._send_payload,
            writer=None if self.overrides("send_message") else self.frame_writer(),
            close=self.close_soon,
        )

    def _rule(self) -> RoleRule | None:
        if not self.overrides("get_role"):
            return None
        return async_to_sync(self.get_role) if iscoroutinefunction(self.get_role) else self.get_role

    def _make_websocket_shim(self, path: str) -> _WebsocketShim:
        return _WebsocketShim(path, self.group_send_message)

    def _entered(self) -> Connection:
        if self.connection is None:
            raise Closing(CloseCode.TRY_AGAIN, "the socket is not in its room yet")
        return self.connection

    def overrides(self, name: str) -> bool:
        """Whether a subclass has its own form of a method that all consumers have."""
        return getattr(type(self), name) is not getattr(YjsConsumer, name)

    def has_own(self, name: str) -> bool:
        return super().has_own(name) and not hasattr(YjsConsumer, name)

    async def _send_payload(self, payload: bytes) -> None:
        await self.send_message({"message": payload})

    @property
    def receive_late(self) -> Receiver | None:
        return None if self.connection is None else self.connection.receive_late


def _no_room() -> None:
    return None
