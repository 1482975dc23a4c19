"""A socket on the real consumer, in this process: a server's ASGI messages, and a pycrdt document as the editor."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from django.contrib.auth.models import AnonymousUser
from pycrdt import Doc, Text

from documents.models import Document, Role
from history.crdt.folding import emitted_by
from realtime.consumers import YjsConsumer
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import (
    MessageType,
    decode_frame,
    encode_awareness,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from realtime.protocols.messages import Awareness, SyncStep1, SyncStep2, Update
from tests.integration.realtime.rooms import shared_document

DEADLINE_SECONDS = 10.0


class Socket:
    """One client: `text` is what its editor shows of the root `text`; `closed` is the close code once there is one."""

    def __init__(
        self,
        room: str,
        *,
        user: Any = None,
        consumer: type[YjsConsumer] = YjsConsumer,
        headers: Iterable[tuple[bytes, bytes]] = (),
        query: bytes = b"",
        writer: Any = None,
        holds_back: bool = False,
        address: str = "192.0.2.1",
        subprotocols: Iterable[str] = (),
    ) -> None:
        self.user = user
        self.doc: Doc[Any] = Doc()
        self.root = self.doc.get("text", type=Text)
        self.received: list[bytes] = []
        self.denied = 0
        self.shown: dict[int, str | None] = {}
        self.accepted = False
        self.subprotocol: str | None = None
        self.closed: int | None = None
        self.reason = ""
        self.synced = False
        self.heard_late: Callable[[bytes], None] | None = None
        self.reads = asyncio.Event()
        if not holds_back:
            self.reads.set()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        scope = {
            "type": "websocket",
            "path": f"/ws/{room}",
            "url_route": {"kwargs": {"room": room}},
            "headers": list(headers),
            "query_string": query,
            "subprotocols": list(subprotocols),
            "user": user or AnonymousUser(),
            "client": (address, 1234),
            "extensions": {} if writer is None else {"palimpsest.frames": writer},
        }
        self._task = asyncio.create_task(consumer.as_asgi()(scope, self._incoming.get, self._send))
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.reads.set()
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self._task, DEADLINE_SECONDS)

    @property
    def text(self) -> str:
        return str(self.root)

    def type(self, text: str, *, at: int = 0) -> bytes:
        """Insert text and send the update; return it."""
        emitted: list[bytes] = []
        subscription = self.doc.observe(lambda event: emitted.append(event.update))
        self.root.insert(at, text)
        self.doc.unobserve(subscription)
        self.send(encode_update(emitted[0]))
        return emitted[0]

    def send(self, frame: bytes) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "bytes": frame})

    def send_text(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def show(self, client_id: int, clock: int, state_json: str | None) -> None:
        self.send(encode_awareness([AwarenessEntry(client_id, clock, state_json)]))

    def state_of(self, client_id: int) -> dict[str, Any] | None:
        """What a client shows here, None where it has left or never came."""
        state_json = self.shown.get(client_id)
        return None if state_json is None else json.loads(state_json)

    async def until(self, holds: Callable[[], bool], *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until something holds that only what arrives here can change. Raises: TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(holds)

    async def until_answered(self) -> None:
        """Wait until the server has let this client in or has closed."""
        await self.until(lambda: self.synced or self.closed is not None)

    async def until_synced(self) -> Self:
        await self.until_answered()
        assert self.closed is None, self.closed
        return self

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.reads.wait()
            self._take(message["bytes"])
        elif message["type"] == "websocket.accept":
            self.accepted, self.subprotocol = True, message.get("subprotocol")
        elif message["type"] == "websocket.close":
            self.closed = message.get("code", 1000)
            self.reason = message.get("reason", "")
        async with self._changed:
            self._changed.notify_all()

    def write_frame(self, frame: bytes) -> bool:
        """Be one's own `palimpsest.frames` writer: unused unless given as `writer`."""
        return False

    def _take(self, payload: bytes) -> None:
        self.received.append(payload)
        if payload[:1] == b"\x02":
            self.denied += 1
            return
        if payload[0] > MessageType.QUERY_AWARENESS:
            return  # of one's own: a stock client says so in its console
        for message in decode_frame(payload):
            match message:
                case SyncStep1(state_vector):
                    self.send(encode_sync_step1(self.doc.get_state()))
                    self.send(encode_sync_step2(self.doc.get_update(state_vector)))
                case SyncStep2(update) | Update(update):
                    emitted_by(self.doc, update)
                    self.synced = self.synced or isinstance(message, SyncStep2)
                case Awareness(entries):
                    self.shown.update({entry.client_id: entry.state_json for entry in entries})


@asynccontextmanager
async def ada_and_bob() -> AsyncIterator[tuple[Document, Socket, Socket]]:
    """A document with its owner Ada and its editor Bob in it, both synced."""
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        yield document, ada, bob
