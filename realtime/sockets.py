"""A WebSocket of any door: its one loop, its seats, its groups of the channel layer, and how it is closed."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

from channels.consumer import get_handler_name
from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer

from realtime.closing import ENDED_RIGHTS, CloseCode, Closing, closing_for
from realtime.entrance import take_seat
from realtime.frames import EXTENSION, FrameWriter
from realtime.hub import current_hub
from realtime.limits import Seats

logger = logging.getLogger(__name__)

Receiver: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Takes one binary frame."""

GROUP_MESSAGES_MAX = 100
"""Messages of its groups that wait for one socket to handle them; of more the oldest are dropped, as the layer does."""


class Socket(AsyncWebsocketConsumer):
    """One socket, accepted before anything else: whoever is refused is told why by a close code. A close before the
    accept reaches browsers as a bare failure.

    It has one loop, without what Channels does for each frame: a hop to a thread to close old database connections
    (52 µs), two tasks, and a channel of its own in the layer; `join_group` has the process listen in its stead."""

    seats: Seats
    """What this socket is counted under."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.closing: asyncio.Task[None] | None = None
        self._groups_joined: set[str] = set()
        self._heard: deque[dict[str, Any]] = deque(maxlen=GROUP_MESSAGES_MAX)
        self._handling: asyncio.Task[None] | None = None

    # For the doors

    async def enter(self) -> None:
        """Let the client in. Whatever is raised has a close code."""

    def leave(self) -> None:
        """End what the socket was part of. Called once; whatever it was on the way to may never have come about."""

    def forget(self) -> None:
        """Let go of what the socket held: what it leaves behind waits for the garbage. Called last."""

    @property
    def receive_late(self) -> Receiver | None:
        """What takes the binary frames that were under way when the socket was closed because a right had ended. It is
        asked for then, and may be called when the socket is gone."""
        return None

    async def connect(self) -> None:
        """Accept, and let the client in."""
        await self.accept()
        try:
            await self._enter()
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            await self._end(error)

    async def disconnect(self, code: int) -> None:
        """Called once, when the socket has ended in whatever way."""

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        """Accept the client, by the first subprotocol that it offers where none is given: browsers end a connection on
        which they have offered some and none was taken."""
        offered = self.scope.get("subprotocols") or [None]
        await super().accept(subprotocol=subprotocol or offered[0], headers=headers)

    async def join_group(self, group: str) -> None:
        """Hear what is sent to a group of the channel layer: each message calls the method of its `type`, one at a
        time. A layer that is away is tried again."""
        self._groups_joined.add(group)
        await current_hub().groups.join(group, self.hear)

    async def leave_group(self, group: str) -> None:
        self._groups_joined.discard(group)
        await current_hub().groups.leave(group, self.hear)

    def has_own(self, name: str) -> bool:
        """Whether a subclass has a method of this name, which it does not have from here: nobody closes a socket, or
        takes it anywhere, by a message to its group."""
        return callable(getattr(self, name, None)) and not hasattr(Socket, name) and not name.startswith("_")

    def frame_writer(self) -> FrameWriter | None:
        """The server's extension for frames that were encoded before, where it has one."""
        return cast("FrameWriter | None", (self.scope.get("extensions") or {}).get(EXTENSION))

    def close_soon(self, closing: Closing) -> None:
        """Close from outside this socket's own task; twice is once."""
        if self.closing is None:
            self.closing = asyncio.create_task(self._end(closing))
            server, receive_late = self.frame_writer(), self.receive_late
            if server is not None and receive_late is not None and closing.code in ENDED_RIGHTS:
                hub = current_hub()
                server.heard_late = lambda frame: hub.spawn(_kept(receive_late, frame))

    # How it runs

    async def _enter(self) -> None:
        take_seat(current_hub(), self.seats, self.scope)
        await self.enter()

    async def _end(self, error: BaseException) -> None:
        closing = closing_for(error)
        if closing is not error:
            logger.info("socket closed: code=%s: %s", closing.code, type(error).__name__)
        try:
            await self.close(code=closing.code, reason=closing.reason)
        except (RuntimeError, OSError):
            logger.debug("the socket was gone before it could be closed")

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        self.base_send = send
        self.channel_layer = get_channel_layer(self.channel_layer_alias)
        self.seats = current_hub().sockets.seats()
        code = CloseCode.NORMAL
        try:
            while True:
                message = await receive()
                match message["type"]:
                    case "websocket.connect":
                        await self._connect()
                    case "websocket.receive":
                        await self._receive(message)
                    case "websocket.disconnect":
                        code = message.get("code", code)
                        break
        except StopConsumer:
            pass
        finally:
            await self._let_go(code)

    async def _let_go(self, code: int) -> None:
        """Let go of everything, whatever code of one's own raises meanwhile."""
        try:
            self.leave()
        finally:
            self.seats.give_back()
            for group in list(self._groups_joined):
                current_hub().spawn(self.leave_group(group))
            if self._handling is not None:
                self._handling.cancel()
            try:
                await self.disconnect(code)
            finally:
                self.forget()

    async def _connect(self) -> None:
        try:
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            await self._end(error)

    async def _receive(self, message: dict[str, Any]) -> None:
        if self.closing is not None:
            # The server hands out nothing behind its own close, but what it had read by then.
            if (frame := message.get("bytes")) is not None and (receive_late := self.receive_late) is not None:
                await _kept(receive_late, frame)
            return
        try:
            await self.receive(text_data=message.get("text"), bytes_data=message.get("bytes"))
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            self.close_soon(closing_for(error))

    # What its groups say

    def hear(self, message: dict[str, Any]) -> None:
        """Line up a message of a group for the method of its `type`."""
        self._heard.append(message)
        if self._handling is None:
            self._handling = asyncio.create_task(self._handle_all())

    async def _handle_all(self) -> None:
        try:
            while self._heard and self.closing is None:
                await self._handle(self._heard.popleft())
        finally:
            self._handling = None

    async def _handle(self, message: dict[str, Any]) -> None:
        try:
            name = get_handler_name(message)
            if not self.has_own(name):
                raise ValueError("no handler for a message of this type")
            await getattr(self, name)(message)
        except Exception as error:  # noqa: BLE001  (anyone on the layer can send anything)
            logger.warning("a group's message was not handled: %s", type(error).__name__)


async def _kept(receive_late: Receiver, frame: bytes) -> None:
    try:
        await receive_late(frame)
    except Exception as error:  # noqa: BLE001  (there is no socket any more that could be closed for it)
        logger.info("not kept: %s", closing_for(error).reason)
