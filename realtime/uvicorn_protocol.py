"""uvicorn's WebSocket protocol with the extension of `realtime.frames`, and bounds in time: `uvicorn --ws` takes it.

A peer that has vanished is gone within 2 x PING_SECONDS, whatever stands in its buffer. Only this and `uvicorn_http`
need uvicorn; a project on another server never imports them."""

from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from documents.conf import conf
from realtime.frames import EXTENSION

FLUSH_SECONDS = 1.0
"""How long a connection that is given up may take to write what it holds; then it is cut."""


class SharedFrameProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O WebSocket protocol that lets the application write frames that it encoded itself.

    Each place where uvicorn closes a transport waits for what is in its buffer to be written: a peer that reads nothing
    would hold the socket and its room for ever. Here it is cut after a moment."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ping_interval = self.ping_timeout = conf().ping_seconds
        self.close_timeout = conf().close_seconds

    heard_late: Callable[[bytes], None] | None = None

    _has_heard = False
    """Whether anything came since the last ping."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        # The application's task has been made but has not run: it will find the extension in its scope.
        if getattr(self, "scope", None) is not None and not self.config.ws_per_message_deflate:
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self

    def keepalive_timeout(self) -> None:
        """End a peer that did not answer. One that sends, or that we do not read because the log takes no more or it
        sends faster than it may, is asked again: its pong stands in line behind what it sent before."""
        if (self._has_heard or self.read_paused) and self.writable.is_set() and not self.close_sent:
            self.pong_timer = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._cut_soon()

    def shutdown(self) -> None:
        super().shutdown()
        self._cut_soon()

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self._cut_soon()

    async def send(self, message: Any) -> None:
        """As uvicorn's; a close that its peer does not answer within CLOSE_SECONDS ends in a cut."""
        await super().send(message)
        if message["type"] == "websocket.close":
            self._cut_soon(self.close_timeout + FLUSH_SECONDS)

    def _cut_soon(self, seconds: float = FLUSH_SECONDS) -> None:
        self.loop.call_later(seconds, self.transport.abort)  # does nothing to one that is closed

    def handle_parser_exception(self) -> None:
        """Say what was wrong (1009 for a frame above `ws_max_size`), then read into nothing until the client is done.

        uvicorn closes at once: with bytes unread that is a reset, and the client sees 1006 instead of the code."""
        if self.close_sent:
            return
        closing = self.conn.close_sent
        if closing is None:
            super().handle_parser_exception()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.close_sent = True
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self._cut_soon(self.close_timeout + FLUSH_SECONDS)

    def send_receive_event_to_app(self) -> None:
        """As uvicorn's, which reads and throws away what comes behind a close of the application's."""
        if self.close_sent and self.heard_late is not None and self.curr_msg_data_type == "bytes":
            self.heard_late(b"".join(self.frames))
        super().send_receive_event_to_app()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.heard_late = None

    def send_keepalive_ping(self) -> None:
        self._has_heard = False
        super().send_keepalive_ping()

    def data_received(self, data: bytes) -> None:
        self._has_heard = True
        super().data_received(data)

    def write_frame(self, frame: bytes) -> bool:
        if not self.handshake_complete or self.close_sent or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(frame)
        return True
