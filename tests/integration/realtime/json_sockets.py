"""A JSON socket on the real door for notifications, in this process."""

import asyncio
import json
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth.models import AnonymousUser

from realtime.notifications.consumers import NotificationConsumer
from tests.integration.realtime.signing_in import SignedIn

DEADLINE_SECONDS = 10.0


class Tab:
    """One tab: `said` is what the server sent, `closed` the close code once there is one. It takes nothing while
    `reads` is not set."""

    def __init__(
        self,
        user: Any = None,
        *,
        person: SignedIn | None = None,
        consumer: type[NotificationConsumer] = NotificationConsumer,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.said: list[dict[str, Any]] = []
        self.closed: int | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._changed = asyncio.Condition()
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ws/notifications/",
            "headers": list(headers),
            "query_string": b"",
            "client": ("192.0.2.1", 1234),
        }
        application: Any = consumer.as_asgi()
        if person is None:
            scope["user"] = user or AnonymousUser()
        else:
            cookie = f"{settings.SESSION_COOKIE_NAME}={person.session_key}".encode()
            scope["headers"] = [(b"cookie", cookie), *headers]
            application = AuthMiddlewareStack(application)
        self._task = asyncio.create_task(application(scope, self._incoming.get, self._send))
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def __aenter__(self) -> Self:
        await self.until(lambda: bool(self.said) or self.closed is not None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.reads.set()
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait_for(self._task, DEADLINE_SECONDS)

    @property
    def shown(self) -> list[Any]:
        """The messages of all notifications, as they came."""
        return [each["message"] for each in self.said if each["type"] == "notification"]

    @property
    def ids(self) -> list[int]:
        return [each["id"] for each in self.said if each["type"] == "notification"]

    @property
    def read(self) -> list[list[int]]:
        return [each["ids"] for each in self.said if each["type"] == "read"]

    def say(self, message: Any) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def send(self, **frame: Any) -> None:
        self._incoming.put_nowait({"type": "websocket.receive", **frame})

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that only what arrives here can change. Raises: TimeoutError."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(holds)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.reads.wait()
            self.said.append(json.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self.closed = message.get("code", 1000)
        async with self._changed:
            self._changed.notify_all()
