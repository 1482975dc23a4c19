"""What waits to be sent to one socket whose messages are for it alone. Bounded: a reader that is too slow is closed,
and asks for what it missed when it comes again."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from realtime.frames import FrameWriter

AsgiMessage: TypeAlias = dict[str, Any]

MESSAGE_COST_BYTES = 128
"""What a place in line costs beside its text."""


class Outgoing:
    """ASGI messages to one socket, in order. `send` awaits until the server took one; `overflowed` is called once when
    more than `bytes_max` wait behind the one that is being sent. Lives on the event loop."""

    def __init__(
        self,
        send: Callable[[AsgiMessage], Awaitable[None]],
        *,
        writer: FrameWriter | None,
        bytes_max: int,
        overflowed: Callable[[], None],
    ) -> None:
        self._send = send
        self._writer = writer
        self._bytes_max = bytes_max
        self._overflowed = overflowed
        self._waiting: deque[AsgiMessage] = deque()
        self._bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self.is_accepted = False
        self.is_closed = False

    def offer(self, message: AsgiMessage, *, frame: bytes | None = None) -> None:
        """Line a message up, or write its frame at once where there is one and the server takes it. Behind a close
        nothing is sent, and of accepts only the first. A close that says why is accepted first: one before that reaches
        browsers as a bare failure."""
        kind = message["type"]
        if kind == "websocket.close" and "code" in message and not self.is_accepted:
            self.offer({"type": "websocket.accept"})
        if self.is_closed or (kind == "websocket.accept" and self.is_accepted):
            return
        if frame is not None and self._pump is None and self._writer is not None and self._writer.write_frame(frame):
            return
        if kind == "websocket.send" and self.is_full:
            self._overflowed()
            return
        self.is_accepted = self.is_accepted or kind == "websocket.accept"
        self.is_closed = kind == "websocket.close"
        self._waiting.append(message)
        self._bytes += _cost(message)
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())

    @property
    def is_full(self) -> bool:
        """Whether what is not said in answer had better wait until all this is `written`."""
        return self._bytes > self._bytes_max

    def close(self, code: int, reason: str) -> None:
        """Close instead of all that waits but an accept."""
        self._waiting = deque(each for each in self._waiting if each["type"] == "websocket.accept")
        self._bytes = sum(map(_cost, self._waiting))
        self.offer({"type": "websocket.close", "code": code, "reason": reason})

    def stop(self) -> None:
        """The socket has ended."""
        self.is_closed = True
        if self._pump is not None:
            self._pump.cancel()

    async def written(self) -> None:
        """Wait until nothing waits: all that was offered is with the server, or will never be."""
        while self._pump is not None:
            await asyncio.wait([self._pump])

    async def _run(self) -> None:
        try:
            while self._waiting:
                message = self._waiting.popleft()
                self._bytes -= _cost(message)
                await self._send(message)
        except (RuntimeError, OSError):  # the socket is gone
            self.is_closed = True
            self._waiting.clear()
        finally:
            self._pump = None


def _cost(message: AsgiMessage) -> int:
    return MESSAGE_COST_BYTES + len(message.get("text") or "") + len(message.get("bytes") or b"")
