"""The Hocuspocus wire: what one binary WebSocket frame says, of which of the socket's documents, and how each message
is written.

A frame holds one message, behind the address of its document, and is read whole or refused whole. What it says of a
document's content and awareness is y-websocket's. Source: @hocuspocus/provider 2.15.3, 3.4.4 and 4.8.0."""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, TypeAlias

from history.crdt.lib0 import Malformed, Reader, var_string
from realtime.protocols.awareness import AWARENESS_ENTRIES_MAX
from realtime.protocols.frames import Y_WEBSOCKET, SyncType, decode_message
from realtime.protocols.messages import Admitted, Message, Opaque, PermissionDenied, Saved, ServerMessage, Stateless

ADDRESS_BYTES_MAX = 1024
"""What a frame begins with: a room's name, of 800 bytes at most, and a session's id, of 11 letters."""

TOKEN_BYTES_MAX = 16 * 1024
"""A token: a ticket has 200 bytes, and those that others sign a few thousand."""

VERSION_BYTES_MAX = 64
"""What a provider calls its version."""

SESSION_SEPARATOR = "\0"
"""Between a document's name and the id of a provider's session, in the address of who asks for `sessionAwareness`."""


class MessageType(IntEnum):
    """4 and 6 are what servers of Hocuspocus tell each other."""

    SYNC = 0
    AWARENESS = 1
    AUTH = 2
    QUERY_AWARENESS = 3
    STATELESS = 5
    CLOSE = 7
    SYNC_STATUS = 8
    PING = 9
    PONG = 10


class AuthType(IntEnum):
    TOKEN = 0
    PERMISSION_DENIED = 1
    AUTHENTICATED = 2


FROM_CLIENTS = frozenset(MessageType) - {MessageType.SYNC_STATUS, MessageType.PING, MessageType.PONG}
"""What clients say of a document."""

PING, PONG = bytes((MessageType.PING,)), bytes((MessageType.PONG,))
"""Whole frames: of the socket, without an address. No other frame is a single byte."""


@dataclass(frozen=True, slots=True)
class Token:
    """ "This is who I am": the first that a provider says of a document, but for 2.15 where it has no token, which
    begins with its SyncStep1. From 4 on providers also say their version."""

    token: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """The provider leaves this document; the socket stays for the others."""


ClientMessage: TypeAlias = Message | Token | Stateless | Close


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before a message: the address of its document, and its type."""

    address: str
    type: MessageType


def read_head(data: bytes) -> Head:
    """Read how a client's frame begins; costs the same however long it is.

    Raises: Malformed for a type that a client may not send, and an address above ADDRESS_BYTES_MAX."""
    return _read_head(Reader(data))


def decode_message_of(data: bytes, *, entries_max: int = AWARENESS_ENTRIES_MAX) -> ClientMessage:
    """Decode the one message of a client's frame, other than PING and PONG; its address is `read_head`'s.

    Raises: Malformed for what no client may say, and for missing or trailing bytes."""
    reader = Reader(data)
    message = _decode(reader, entries_max=entries_max)
    reader.finish()
    return message


def holds_one_update(data: bytes) -> bool:
    """Whether a frame is a SyncStep2 or an Update; costs the same however long it is."""
    reader = Reader(data)
    try:
        return (
            _read_head(reader).type is MessageType.SYNC
            and reader.var_uint() in (SyncType.STEP_2, SyncType.UPDATE)
            and reader.var_uint() == reader.remaining
        )
    except Malformed:
        return False


def is_sync_step1(data: bytes) -> bool:
    """Whether a frame is a SyncStep1; costs the same however long it is."""
    reader = Reader(data)
    try:
        return _read_head(reader).type is MessageType.SYNC and reader.var_uint() == SyncType.STEP_1
    except Malformed:
        return False


def document_name(address: str) -> str:
    """The room that an address is of, whichever of its sessions asks."""
    return address.partition(SESSION_SEPARATOR)[0]


def _read_head(reader: Reader) -> Head:
    address = _short_string(reader, bytes_max=ADDRESS_BYTES_MAX)
    type_ = reader.var_uint()
    if type_ not in FROM_CLIENTS:
        raise Malformed(f"a client sent a message of type {type_}")
    return Head(address, MessageType(type_))


def _decode(reader: Reader, *, entries_max: int) -> ClientMessage:
    match _read_head(reader).type:
        case MessageType.AUTH:
            return _decode_token(reader)
        case MessageType.STATELESS:
            return Stateless(reader.var_string())
        case MessageType.CLOSE:
            return Close()
        case _:
            reader.position -= 1  # y-websocket's messages begin with the type, of one byte
            return decode_message(reader, entries_max=entries_max)


def _decode_token(reader: Reader) -> Token:
    if reader.var_uint() != AuthType.TOKEN:
        raise Malformed("a client sent what a server says of authentication")
    token = _short_string(reader, bytes_max=TOKEN_BYTES_MAX)
    return Token(token, _short_string(reader, bytes_max=VERSION_BYTES_MAX) if reader.remaining else None)


def _short_string(reader: Reader, *, bytes_max: int) -> str:
    start = reader.position
    if reader.var_uint() > bytes_max:
        raise Malformed(f"a text is longer than {bytes_max} bytes")
    reader.position = start
    return reader.var_string()


@dataclass(frozen=True, slots=True)
class HocuspocusWire:
    """How a provider is spoken to of one document. A plain name is the address of everybody who has the document open;
    with a session's id in it, it is one provider's own.

    An edit that was not taken is not denied as y-websocket's is: at a denial these providers take themselves for locked
    out, and 2.15 leaves the document."""

    address: str
    is_text: ClassVar[bool] = False

    @property
    def is_shared(self) -> bool:
        return SESSION_SEPARATOR not in self.address

    def encode(self, message: ServerMessage) -> bytes | None:
        match message:
            case Saved(applied):
                return self._framed(MessageType.SYNC_STATUS, bytes((applied,)))
            case Admitted(may_write):
                scope = var_string("read-write" if may_write else "readonly")
                return self._framed(MessageType.AUTH, bytes((AuthType.AUTHENTICATED,)) + scope)
            case Stateless(payload):
                return self._framed(MessageType.STATELESS, var_string(payload))
            case PermissionDenied() | Opaque():
                return None
            case _:
                said = Y_WEBSOCKET.encode(message)
                return None if said is None else var_string(self.address) + said

    def encode_token_wanted(self) -> bytes:
        """Ask for a fresh token. Providers before 3 do not know this, and pass over it."""
        return self._framed(MessageType.AUTH, bytes((AuthType.TOKEN,)))

    def encode_denied(self, reason: str) -> bytes:
        """Tell a provider that it is not let in; 2.15 leaves the document then."""
        return self._framed(MessageType.AUTH, bytes((AuthType.PERMISSION_DENIED,)) + var_string(reason))

    def encode_closed(self, reason: str) -> bytes:
        """Tell a provider that the server has left its document. 2.15 throws at this, unless it was denied before."""
        return self._framed(MessageType.CLOSE, var_string(reason))

    def _framed(self, type_: MessageType, payload: bytes) -> bytes:
        return var_string(self.address) + bytes((type_,)) + payload
