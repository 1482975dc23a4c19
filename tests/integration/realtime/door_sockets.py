"""A socket at a door that speaks JSON, in this process: a server's ASGI messages, and what the client has received."""

import asyncio
import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth.models import AnonymousUser

from tests.integration.realtime.signing_in import SignedIn

DEADLINE_SECONDS = 10.0


class DoorSocket:
    """One client of `consumer`; `closed` is the close code once there is one. A `person` comes with a cookie."""

    def __init__(
        self,
        consumer: Any,
        kwargs: dict[str, Any],
        *,
        user: Any = None,
        person: SignedIn | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        query: bytes = b"",
        holds_back: bool = False,
        address: str = "192.0.2.1",
    ) -> None:
        self.received: list[Any] = []
        self.closed: int | None = None
        self.reason = ""
        self.accepted = False
        self.reads = asyncio.Event()
        if not holds_back:
            self.reads.set()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "url_route": {"kwargs": kwargs},
            "headers": list(headers),
            "query_string": query,
            "client": (address, 1234),
            "extensions": {},
        }
        application = consumer.as_asgi()
        if person is None:
            scope["user"] = user or AnonymousUser()
        else:
            application = AuthMiddlewareStack(application)
            scope["headers"].append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={person.session_key}".encode()))
        self._task = asyncio.create_task(application(scope, self._incoming.get, self._send))
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.reads.set()
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self._task, DEADLINE_SECONDS)

    def send(self, content: Any) -> None:
        self.send_text(json.dumps(content))

    def send_text(self, text: str) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, frame: bytes) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "bytes": frame})

    async def until(self, holds: Callable[[], object], *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until something holds that only what arrives here can change. Raises: TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: bool(holds()))

    async def until_received(self, count: int) -> list[Any]:
        """Wait until so many messages are there, or the socket is closed; return all."""
        await self.until(lambda: len(self.received) >= count or self.closed is not None)
        return self.received

    async def until_closed(self) -> int | None:
        await self.until(lambda: self.closed is not None)
        return self.closed

    async def _send(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.accept":
                self.accepted = True
            case "websocket.send":
                await self.reads.wait()
                self.received.append(json.loads(message["text"]))
            case "websocket.close":
                self.closed = message.get("code", 1000)
                self.reason = message.get("reason", "")
        async with self._changed:
            self._changed.notify_all()
