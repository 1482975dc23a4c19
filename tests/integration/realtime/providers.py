"""A socket of the Hocuspocus door in this process: raw frames in, and what the server says in words."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from django.contrib.auth.models import AnonymousUser
from pycrdt import Doc, Text

from history.crdt.lib0 import Reader, var_string
from realtime.hocuspocus.consumers import HocuspocusConsumer
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import decode_message
from realtime.protocols.hocuspocus import AuthType, HocuspocusWire, MessageType
from realtime.protocols.messages import (
    Admitted,
    Awareness,
    Message,
    PermissionDenied,
    Saved,
    Stateless,
    SyncStep1,
    SyncStep2,
    Update,
)
from tests.integration.realtime.sockets import DEADLINE_SECONDS

EMPTY = b"\0"
NOTHING = b"\0\0"


@dataclass(frozen=True, slots=True)
class TokenWanted:
    """The server asks for a fresh token."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The server has left a document."""

    reason: str


Said = Message | Admitted | PermissionDenied | Saved | Stateless | TokenWanted | Closed


class Provider:
    """One socket, of any number of documents; `said` is what it was told, by address."""

    def __init__(
        self,
        *,
        user: Any = None,
        consumer: type[HocuspocusConsumer] = HocuspocusConsumer,
        headers: Iterable[tuple[bytes, bytes]] = (),
        writer: Any = None,
        session: Any = None,
    ) -> None:
        self.said: dict[str, list[Said]] = {}
        self.frames: list[bytes] = []
        self.closed: int | None = None
        self.reason = ""
        self.heard_late: Callable[[bytes], None] | None = None
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        scope = {
            "type": "websocket",
            "path": "/collaboration",
            "url_route": {"kwargs": {}},
            "headers": list(headers),
            "query_string": b"",
            "user": user or AnonymousUser(),
            "session": session,
            "client": ("192.0.2.1", 1234),
            "extensions": {"palimpsest.frames": writer or self} if writer is not False else {},
        }
        self.task = asyncio.create_task(consumer.as_asgi()(scope, self._incoming.get, self._send))
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.hang_up()
        await asyncio.wait_for(self.task, DEADLINE_SECONDS)

    def hang_up(self) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})

    # What it says

    def send(self, frame: bytes) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "bytes": frame})

    def send_text(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def token(self, address: str, token: str = "") -> None:
        self.send(var_string(address) + b"\x02\x00" + var_string(token) + var_string("4.8.0"))

    def say(self, address: str, message: SyncStep1 | SyncStep2 | Update | Awareness | Stateless) -> None:
        frame = HocuspocusWire(address).encode(message)
        assert frame is not None
        self.send(frame)

    def query_awareness(self, address: str) -> None:
        self.send(var_string(address) + b"\x03")

    def close(self, address: str) -> None:
        self.send(var_string(address) + b"\x07")

    def begin(self, address: str, token: str = "", state_vector: bytes = EMPTY) -> None:
        """What a provider says at once when its socket is open, but for awareness."""
        self.token(address, token)
        self.say(address, SyncStep1(state_vector))

    async def opened(self, address: str, token: str = "") -> Self:
        """Begin, answer the server's SyncStep1, and wait until that is saved."""
        self.begin(address, token)
        await self.until(lambda: any(isinstance(said, SyncStep2) for said in self.said.get(address, ())))
        self.say(address, SyncStep2(NOTHING))
        await self.until(lambda: Saved(applied=True) in self.said[address])
        self.said[address].clear()
        return self

    def show(self, address: str, client_id: int, clock: int = 1) -> None:
        self.say(address, Awareness((AwarenessEntry(client_id, clock, '{"at":1}'),)))

    # What it hears

    async def until(self, holds: Callable[[], bool], *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until something holds that only what arrives here can change. Raises: TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)

    async def hears(self, address: str, *expected: Said) -> None:
        """Wait until exactly this was said at an address, and forget it."""
        await self.until(lambda: len(self.said.get(address, ())) >= len(expected) or self.closed is not None)
        heard = self.said.get(address, [])[: len(expected)]
        assert heard == list(expected)
        del self.said[address][: len(expected)]

    def write_frame(self, frame: bytes) -> bool:
        """Be the server's extension: frames come to the client as they are."""
        if self.closed is not None:
            return False
        reader = Reader(frame)
        reader.byte()
        length = reader.byte()
        size = {126: 2, 127: 8}.get(length, 0)
        payload = frame[2 + size :]
        assert len(payload) == (int.from_bytes(frame[2 : 2 + size], "big") if size else length)
        self._take(payload)
        asyncio.get_running_loop().create_task(self._tell())
        return True

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            self._take(message["bytes"])
        elif message["type"] == "websocket.close":
            self.closed = message.get("code", 1000)
            self.reason = message.get("reason", "")
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _take(self, payload: bytes) -> None:
        self.frames.append(payload)
        if len(payload) > 1:
            reader = Reader(payload)
            self.said.setdefault(reader.var_string(), []).append(_said(reader))


def _said(reader: Reader) -> Said:
    """What one frame of the server's says. Raises: Malformed, AssertionError."""
    start = reader.position
    said: Said
    match MessageType(reader.var_uint()):
        case MessageType.AUTH:
            said = _said_of_authentication(reader)
        case MessageType.STATELESS:
            said = Stateless(reader.var_string())
        case MessageType.CLOSE:
            said = Closed(reader.var_string())
        case MessageType.SYNC_STATUS:
            said = Saved(bool(reader.byte()))
        case _:
            reader.position = start
            said = decode_message(reader, entries_max=1000)
    reader.finish()
    return said


def _said_of_authentication(reader: Reader) -> Said:
    match AuthType(reader.var_uint()):
        case AuthType.TOKEN:
            return TokenWanted()
        case AuthType.PERMISSION_DENIED:
            return PermissionDenied(reader.var_string())
        case AuthType.AUTHENTICATED:
            scope = reader.var_string()
            assert scope in ("read-write", "readonly")
            return Admitted(scope == "read-write")


def typed(*words: str, client_id: int = 7) -> list[bytes]:
    """The updates of one who types these, one after the other."""
    doc: Doc[Any] = Doc(client_id=client_id)
    text, updates = doc.get("text", type=Text), []
    for word in words:
        known = doc.get_state()
        text += word
        updates.append(doc.get_update(known))
    return updates


def joined(*updates: bytes) -> bytes:
    """What all of these say, as one update."""
    return _document_of(updates).get_update()


def state_vector_of(updates: Iterable[bytes]) -> bytes:
    return _document_of(updates).get_state()


def deletion_of(updates: Iterable[bytes]) -> bytes:
    """An update that deletes what these have written, and no more."""
    doc = _document_of(updates)
    known = doc.get_state()
    doc.get("text", type=Text).clear()
    return doc.get_update(known)


def _document_of(updates: Iterable[bytes]) -> "Doc[Any]":
    doc: Doc[Any] = Doc()
    for update in updates:
        doc.apply_update(update)
    return doc
