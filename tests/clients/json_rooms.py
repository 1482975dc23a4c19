"""A real client of a JSON room: it keeps what the field said at each seq, and checks that each delta fits."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.clients.stack import Stack
from tests.quill import Unit, applied, text_of

DEADLINE_SECONDS = 20.0


class JsonClient:
    """`texts` has what the field said by seq, `waiting` the edits that are not acknowledged, by id."""

    def __init__(self, stack: Stack, room: str, *, headers: Mapping[str, str] | None = None, **query: str) -> None:
        name = quote(room, safe="/")
        self._url = f"{stack.url}/rooms/{name}/?{urlencode({'client': secrets.token_hex(8), **query})}"
        self._headers = dict(headers or {})
        self._stack = stack
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._units: list[Unit] = []
        self.said: list[dict[str, Any]] = []
        self.texts: dict[int, str] = {}
        self.waiting: dict[str, dict[str, Any]] = {}
        self.acks: dict[str, int] = {}
        self.errors: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def seq(self) -> int:
        return max(self.texts, default=-1)

    @property
    def text(self) -> str:
        return text_of(self._units)

    @property
    def count(self) -> int:
        told = [each["user_count"] for each in self.said if "user_count" in each]
        return int(told[-1])

    async def open(self, *, on: int | None = None) -> None:
        """Come, on one of the worker processes, and send again what was not acknowledged."""
        others = [] if on is None else [index for index in self._stack.all if index != on]
        self.texts.clear()
        with self._stack.paused(*others):
            self._socket = await connect(self._url, additional_headers=self._headers, proxy=None)
            self._reader = asyncio.create_task(self._read(self._socket))
            await self.until(lambda: bool(self.texts))
        for edit in list(self.waiting.values()):
            await self._send(edit)

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            assert self._reader is not None
            await self._reader

    async def drop(self) -> None:
        """Cut the connection without a word."""
        assert self._socket is not None
        assert self._reader is not None
        self._socket.transport.abort()
        await self._reader

    async def edit(self, *, waits: bool = True, **edit: Any) -> str:
        """Send an edit; with `waits`, until it is acknowledged. Return its id."""
        edit_id = secrets.token_hex(8)
        self.waiting[edit_id] = {"type": "document_edit", "id": edit_id, **edit}
        await self._send(self.waiting[edit_id])
        if waits:
            await self.until(lambda: edit_id not in self.waiting)
        return edit_id

    async def say(self, **message: Any) -> None:
        await self._send(message)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that only what arrives here can change. Raises: TimeoutError."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(holds)

    async def _send(self, message: Mapping[str, Any]) -> None:
        assert self._socket is not None
        with contextlib.suppress(ConnectionClosed):  # what is not acknowledged is sent again
            await self._socket.send(json.dumps(message))

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                self._take(json.loads(frame))
                async with self._changed:
                    self._changed.notify_all()

    def _take(self, said: dict[str, Any]) -> None:
        self.said.append(said)
        match said["type"]:
            case "document_update":
                delta = said["delta"]
                if delta is None:
                    self._units = applied([], [{"insert": said["content"]}] if said["content"] else [])
                else:
                    self._units = applied(self._units, delta)
                    assert said.get("content", self.text) == self.text, "the delta does not fit"
                self.texts[said["seq"]] = self.text
            case "edit_ack":
                self.waiting.pop(said["id"], None)
                self.acks[said["id"]] = said["seq"]
            case "error":
                self.waiting.pop(said["id"], None)
                self.errors.append(said)


def cut(text: str, where: float) -> int:
    """The offset, in characters, of a place in a text: 0.0 is its start and 1.0 its end."""
    return round(where * len(text))


def units(text: str) -> int:
    """UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


def replacing(text: str, start: int, stop: int, inserted: str) -> list[dict[str, Any]]:
    """The delta that puts something in the place of some characters."""
    steps: list[dict[str, Any]] = [
        {"retain": units(text[:start])},
        {"insert": inserted},
        {"delete": units(text[start:stop])},
    ]
    return [step for step in steps if next(iter(step.values()))]
