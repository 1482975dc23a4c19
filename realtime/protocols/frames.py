"""The y-websocket wire: what one binary WebSocket frame says, and how each message is written.

A frame is read whole or refused whole: no message of a malformed frame is ever returned, so it can change nothing.
Updates are opaque here; the write gate judges them. Source: y-websocket 3.1.0 and y-protocols 1.0.7."""

from collections.abc import Iterable
from enum import IntEnum

from history.crdt.lib0 import Malformed, Reader, var_bytes, var_string
from history.crdt.state_vectors import decode_state_vector
from realtime.protocols.awareness import (
    AWARENESS_ENTRIES_MAX,
    AwarenessEntry,
    decode_awareness_update,
    encode_awareness_update,
)
from realtime.protocols.messages import (
    Awareness,
    Message,
    Opaque,
    PermissionDenied,
    QueryAwareness,
    ServerMessage,
    SyncStep1,
    SyncStep2,
    Update,
)

FRAME_MESSAGES_MAX = 256
"""Messages in one frame. Stock clients send one; several are legal."""


class MessageType(IntEnum):
    SYNC = 0
    AWARENESS = 1
    AUTH = 2
    QUERY_AWARENESS = 3


class SyncType(IntEnum):
    STEP_1 = 0
    STEP_2 = 1
    UPDATE = 2


class AuthType(IntEnum):
    PERMISSION_DENIED = 0


def decode_frame(
    data: bytes, *, messages_max: int = FRAME_MESSAGES_MAX, entries_max: int = AWARENESS_ENTRIES_MAX
) -> list[Message]:
    """Decode a client's frame into its messages (at least one), in order.

    `entries_max` bounds the awareness entries of the whole frame. Authentication messages are the server's alone.
    Raises: Malformed for an empty frame, an unknown type, too many messages, and missing or trailing bytes."""
    reader = Reader(data)
    messages: list[Message] = []
    entries_left = entries_max
    while reader.remaining or not messages:
        if len(messages) == messages_max:
            raise Malformed(f"a frame holds more than {messages_max} messages")
        message = decode_message(reader, entries_max=entries_left)
        if isinstance(message, Awareness):
            entries_left -= len(message.entries)
        messages.append(message)
    return messages


def holds_one_update(data: bytes) -> bool:
    """Whether a frame is a single SyncStep2 or Update and nothing else; costs the same however long it is."""
    reader = Reader(data)
    try:
        return (
            reader.var_uint() == MessageType.SYNC
            and reader.var_uint() in (SyncType.STEP_2, SyncType.UPDATE)
            and reader.var_uint() == reader.remaining
        )
    except Malformed:
        return False


def decode_message(reader: Reader, *, entries_max: int) -> Message:
    """Read one message of a client. Raises: Malformed."""
    match reader.var_uint():
        case MessageType.SYNC:
            return _decode_sync(reader)
        case MessageType.AWARENESS:
            return Awareness(decode_awareness_update(reader.var_bytes(), entries_max=entries_max))
        case MessageType.QUERY_AWARENESS:
            return QueryAwareness()
        case MessageType.AUTH:
            raise Malformed("a client sent an authentication message")
        case unknown:
            raise Malformed(f"unknown message type {unknown}")


def _decode_sync(reader: Reader) -> SyncStep1 | SyncStep2 | Update:
    match reader.var_uint():
        case SyncType.STEP_1:
            state_vector = reader.var_bytes()
            decode_state_vector(state_vector)
            return SyncStep1(state_vector)
        case SyncType.STEP_2:
            return SyncStep2(reader.var_bytes())
        case SyncType.UPDATE:
            return Update(reader.var_bytes())
        case unknown:
            raise Malformed(f"unknown sync message type {unknown}")


# A y-websocket client reads only the first message of a frame: each of these is a frame of its own.


class YWebsocketWire:
    """How a y-websocket client is spoken to: it is not told what is saved."""

    is_text = False
    is_shared = True

    def encode(self, message: ServerMessage) -> bytes | None:
        match message:
            case SyncStep1(state_vector):
                return encode_sync_step1(state_vector)
            case SyncStep2(update):
                return encode_sync_step2(update)
            case Update(update):
                return encode_update(update)
            case Awareness(entries):
                return encode_awareness(entries)
            case PermissionDenied(reason):
                return encode_permission_denied(reason)
            case Opaque(payload):
                return payload
            case _:
                return None


Y_WEBSOCKET = YWebsocketWire()


def encode_sync_step1(state_vector: bytes) -> bytes:
    return bytes((MessageType.SYNC, SyncType.STEP_1)) + var_bytes(state_vector)


def encode_sync_step2(update: bytes) -> bytes:
    return bytes((MessageType.SYNC, SyncType.STEP_2)) + var_bytes(update)


def encode_update(update: bytes) -> bytes:
    return bytes((MessageType.SYNC, SyncType.UPDATE)) + var_bytes(update)


def encode_awareness(entries: Iterable[AwarenessEntry]) -> bytes:
    return bytes((MessageType.AWARENESS,)) + var_bytes(encode_awareness_update(entries))


def encode_permission_denied(reason: str) -> bytes:
    """Tell a client why its edit was dropped; y-websocket writes `reason` to the browser's console."""
    return bytes((MessageType.AUTH, AuthType.PERMISSION_DENIED)) + var_string(reason)
