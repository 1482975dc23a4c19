"""The door of Yjs clients. `YjsConsumer` speaks the y-websocket protocol and has the methods of pycrdt-websocket's."""

from typing import Any, TypedDict, cast

from pycrdt import Doc

from history.errors import UpdateRefused
from history.fates import Refused
from history.models import Kind, Via
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing
from realtime.connections import Connection
from realtime.entrance import enter
from realtime.hub import current_hub
from realtime.protocols.frames import Y_WEBSOCKET, decode_frame
from realtime.protocols.messages import Awareness, SyncStep2, Update
from realtime.rooms import Room
from realtime.sockets import Receiver, Socket


class YjsConsumer(Socket):
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

    async def enter(self) -> None:
        if self.seats is None:
            raise RuntimeError("a socket enters once it has a seat")
        self.room_name = self.make_room_name()
        self.connection = await enter(
            current_hub(),
            self.scope,
            self.room_name,
            via=self.via,
            seats=self.seats,
            make_doc=self.make_ydoc,
            make_member=self._connection,
        )

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.leave()

    def forget(self) -> None:
        self.connection = None

    def _connection(self, room: Room, user: Any, session: WriteSession) -> Connection:
        return Connection(
            room,
            user=user,
            session=session,
            wire=Y_WEBSOCKET,
            send=self._send_payload,
            writer=None if self._overrides_sending() else self.frame_writer(),
            close=self.close_soon,
        )

    def _entered(self) -> Connection:
        if self.connection is None:
            raise Closing(CloseCode.TRY_AGAIN, "the socket is not in its room yet")
        return self.connection

    def _overrides_sending(self) -> bool:
        return type(self).send_message is not YjsConsumer.send_message

    async def _send_payload(self, payload: bytes) -> None:
        await self.send_message({"message": payload})

    @property
    def receive_late(self) -> Receiver | None:
        return None if self.connection is None else self.connection.receive_late
