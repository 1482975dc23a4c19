"""People in chats, over real sockets with the cookie of somebody who is signed in."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.clients.people import Cast
from tests.clients.stack import Stack

DEADLINE_SECONDS = 15.0


class Chat:
    """Somebody in a chat: `said` are the texts of what the server sent."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.messages: list[dict[str, Any]] = []

    @property
    def said(self) -> list[str]:
        return [each["message"] for each in self.messages]

    async def say(self, text: str) -> None:
        await self._socket.send(json.dumps({"message": text}))

    async def until_said(self, *texts: str) -> None:
        """Raises: TimeoutError, ConnectionClosed."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.said != list(texts):
                message = json.loads(await self._socket.recv())
                assert "type" not in message, message
                self.messages.append(message)

    async def close_code(self) -> int | None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                while True:
                    await self._socket.recv()
            except ConnectionClosed:
                return self._socket.close_code


@asynccontextmanager
async def in_chat(stack: Stack, cast: Cast, name: str, *, on: int, after: int | None = None) -> AsyncIterator[Chat]:
    """Enter the chat of the cast's room on one of the worker processes."""
    query = "" if after is None else f"?after={after}"
    address = f"{stack.url}/chat/{quote(cast.room)}/{query}"
    with stack.paused(*(index for index in stack.all if index != on)):
        socket = await connect(address, additional_headers=cast.cookies[name], proxy=None)
        await socket.send(json.dumps({"type": "history", "limit": 1}))
        first = json.loads(await socket.recv())
    async with socket:
        chat = Chat(socket)
        if "type" not in first:
            chat.messages.append(first)
        yield chat
