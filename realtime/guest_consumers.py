"""Synchronous consumers of sockets that are in no room. Handlers are those of Channels, on threads of their own.

One that blocks delays its own socket alone: not the event loop, no other door, not the one thread that Django shares,
and no other kind of consumer."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import JsonWebsocketConsumer
from channels.layers import get_channel_layer

from documents.conf import conf
from realtime.closing import CloseCode, Closing, closing_for
from realtime.entrance import in_time, take_seat
from realtime.frames import EXTENSION, FrameWriter
from realtime.guests import Guest
from realtime.handler_threads import HandlerThreads, NoThreadFree
from realtime.hub import Hub, current_hub
from realtime.limits import Seats, TokenBucket
from realtime.message_errors import MessageRefused
from realtime.outgoing import Outgoing

logger = logging.getLogger(__name__)

EVENTS_MAX = 1000
"""Messages of its groups that wait for one socket's handlers; where more come it is closed with 1013."""

ON_LOOP_SECONDS_MAX = 10.0
"""What a handler waits for the event loop: it does nothing for it that takes longer than LAYER_TIMEOUT_SECONDS."""

R = TypeVar("R")


class GuestConsumer(JsonWebsocketConsumer):
    """One socket. Override `enter`, `receive_json` and whatever handlers of group messages there are; all of these, and
    `connect`, `disconnect` and the rest that Channels has, are called on a handlers' thread, one at a time."""

    hub: Hub
    seats: Seats
    """What this socket is counted under."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guest: Guest | None = None
        self._one_at_a_time = asyncio.Lock()
        self._events = 0
        self._has_no_events = asyncio.Event()
        self._has_no_events.set()
        self._closing: Closing | None = None
        self._channel_name: str | None = None
        self._listening: asyncio.Task[None] | None = None

    # To be overridden

    def enter(self) -> None:
        """Let the client in. Whatever is raised has a close code."""

    def leave(self) -> None:
        """End what the socket was part of; on the event loop, once."""

    def connect(self) -> None:
        self.accept()
        self.enter()

    def receive_json(self, content: dict[str, Any], **_: Any) -> None:
        """Do what one message says. Raises: MessageRefused, which its client is told; else the socket is closed."""
        raise MessageRefused("unknown_type", "nothing is understood here")

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Take one frame: an object of JSON."""
        if text_data is None:
            raise Closing(CloseCode.UNSUPPORTED, "only text frames are understood here")
        try:
            content = self.decode_json(text_data)
        except (ValueError, RecursionError):
            raise MessageRefused("malformed", "this is no JSON") from None
        if not isinstance(content, dict):
            raise MessageRefused("malformed", "a message is an object")
        self.receive_json(content, **kwargs)

    def has_own(self, name: str) -> bool:
        """Whether a group's message may call the method of this name: one that a subclass has, and not from here.
        Nobody says anything in a client's name by a message to its group."""
        return callable(getattr(self, name, None)) and not hasattr(GuestConsumer, name) and not name.startswith("_")

    @classmethod
    def messages_rate(cls) -> tuple[float, int]:
        """How many messages of one socket are read each second, and at once before that."""
        return conf().updates_per_second, conf().updates_burst

    # For the doors

    def on_loop(self, work: Coroutine[Any, Any, R]) -> R:
        """Run what belongs to the event loop, from a handler's thread, and wait for it. Raises: TimeoutError after
        ON_LOOP_SECONDS_MAX, as where the loop has ended meanwhile."""
        working = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return working.result(ON_LOOP_SECONDS_MAX)
        except TimeoutError:
            working.cancel()  # nobody takes over what it would still bring about
            raise

    def check_open(self) -> None:
        """On the event loop, for a handler that may have gone on when nobody waited for it any more: what it takes for
        this socket then would never be given back. Raises: Closing where the socket is closed, or is gone."""
        if self._closing is not None:
            raise self._closing

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Call something on the event loop, from any thread, behind what was given to it before."""
        self._loop.call_soon_threadsafe(call, *args)

    def close_soon(self, closing: Closing) -> None:
        """Close now, on the event loop, whatever the handlers are at. Twice is once."""
        if self._closing is None:
            self._closing = closing
            self.outgoing.close(closing.code, closing.reason)

    def tell(self, content: Any) -> None:
        """Send JSON, on the event loop."""
        self.outgoing.offer({"type": "websocket.send", "text": self.encode_json(content)})

    def handle_event(self, event: dict[str, Any]) -> None:
        """Have the handler of its `type` called with a group's message, in its turn; on the event loop."""
        if self._events >= EVENTS_MAX:
            self.close_soon(Closing(CloseCode.TRY_AGAIN, "too much waits for the handlers of this socket"))
            return
        self._events += 1
        self._has_no_events.clear()
        self.hub.spawn(self._handle_event(event))

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for this socket that what can be read later had better be."""
        return self.outgoing.is_full or self._events > EVENTS_MAX // 2

    async def caught_up(self) -> None:
        """Wait until its handlers have done, and the server has taken, all that was for this socket."""
        await self._has_no_events.wait()
        await self.outgoing.written()

    @property
    def channel_name(self) -> str:
        """A channel of this socket alone, for groups of one's own; from a handler."""
        if self._channel_name is None:
            self._channel_name = self.on_loop(self._open_channel())
        return self._channel_name

    # How it runs

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        self.hub = current_hub()
        self.seats = self.hub.sockets.seats()
        self._loop = asyncio.get_running_loop()
        self.channel_layer = get_channel_layer(self.channel_layer_alias)
        writer = cast("FrameWriter | None", (scope.get("extensions") or {}).get(EXTENSION))
        limit = conf().outbox_bytes_max
        self.outgoing = Outgoing(send, writer=writer, bytes_max=limit, overflowed=self._overflowed)
        self.base_send = lambda message: self.soon(self.outgoing.offer, message)
        self._threads: HandlerThreads = self.hub.guests.threads_of(type(self))
        rate, burst = self.messages_rate()
        self._messages_left = TokenBucket(rate=rate, burst=burst, now=self.hub.now())
        code = int(CloseCode.NORMAL)
        try:
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    code = message.get("code", code)
                    break
                await self._take(message)
        finally:
            self._closing = self._closing or Closing(CloseCode.NORMAL, "")
            self.outgoing.stop()
            self.leave()
            if self.guest is not None:
                self.guest.leave()
            self.seats.give_back()
            if self._listening is not None:
                self._listening.cancel()
            await self._say_goodbye(code)

    async def _take(self, message: dict[str, Any]) -> None:
        try:
            if message["type"] == "websocket.connect":
                await self._connect(message)
            elif self._closing is None:
                await self._receive(message)
        except StopConsumer:
            self.close_soon(Closing(CloseCode.NORMAL, ""))
        except MessageRefused as error:
            self.tell(error.shown())
        except NoThreadFree:
            if self.guest is None:
                self.close_soon(Closing(CloseCode.TRY_AGAIN, "all handlers are busy: HANDLER_THREADS"))
            else:
                self.tell(MessageRefused("busy", "all handlers are busy; send it again").shown())
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            self._end(error)

    async def _connect(self, message: dict[str, Any]) -> None:
        if self.hub.draining:
            raise Closing(CloseCode.RESTARTING, "the server is restarting")
        take_seat(self.hub, self.seats, self.scope)
        async with in_time():
            await self._call(self.websocket_connect, message)

    async def _receive(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        if text is not None and len(text) > conf().frame_bytes_max:
            raise Closing(CloseCode.TOO_LARGE, "the frame is too large")
        try:
            await self._call(self.websocket_receive, {"bytes": None, **message})
        finally:
            pause = self._messages_left.take(1, now=self.hub.now())
        if pause:
            await asyncio.sleep(pause)

    async def _handle_event(self, event: dict[str, Any]) -> None:
        try:
            name = get_handler_name(event)
            if not self.has_own(name):
                raise ValueError("no handler for a message of this type")
            if self._closing is None:
                await self._call(getattr(self, name), event)
        except NoThreadFree:
            self.close_soon(Closing(CloseCode.TRY_AGAIN, "all handlers are busy: HANDLER_THREADS"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # anyone on the layer can send anything
            logger.warning("a group's message was not handled: %s", type(error).__name__)
        except Exception as error:  # noqa: BLE001  (whatever it is has a close code)
            self._end(error)
        finally:
            self._events -= 1
            if not self._events:
                self._has_no_events.set()

    async def _call(self, handler: Callable[[dict[str, Any]], None], message: dict[str, Any]) -> None:
        async with self._one_at_a_time:
            await self._threads.run(handler, message)

    async def _say_goodbye(self, code: int) -> None:
        if type(self).disconnect is JsonWebsocketConsumer.disconnect and not self.groups:
            return  # nobody has anything to say
        try:
            await self._call(self.websocket_disconnect, {"type": "websocket.disconnect", "code": code})
        except StopConsumer:
            pass
        except Exception as error:  # noqa: BLE001  (there is nobody left to be told)
            logger.warning("a socket's `disconnect` failed: %s", type(error).__name__)

    def _end(self, error: BaseException) -> None:
        closing = closing_for(error)
        if closing is not error:
            logger.info("socket closed: code=%s: %s", closing.code, type(error).__name__)
        self.close_soon(closing)

    def _overflowed(self) -> None:
        self.close_soon(Closing(CloseCode.TRY_AGAIN, "this socket is read too slowly; come again"))

    # A channel of its own, where a subclass has groups of its own

    async def _open_channel(self) -> str:
        name: str = await self.channel_layer.new_channel()
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(name))
        return name

    async def _listen(self, name: str) -> None:
        while True:
            try:
                self.handle_event(await self.channel_layer.receive(name))
            except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
                logger.info("channel layer: cannot listen: %s", type(error).__name__)
                await asyncio.sleep(conf().layer_timeout_seconds)
