"""uvicorn's WebSocket protocol with the extension of `realtime.frames`: `uvicorn --ws` takes the class below.

Nothing else here needs uvicorn; a project on another server never imports this."""

from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from realtime.frames import EXTENSION


class SharedFrameProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O WebSocket protocol that lets the application write frames that it encoded itself."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        # The application's task has been made but has not run: it will find the extension in its scope.
        if getattr(self, "scope", None) is not None and not self.config.ws_per_message_deflate:
            cast("dict[str, Any]", self.scope["extensions"])[EXTENSION] = self

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

    def write_frame(self, frame: bytes) -> bool:
        if not self.handshake_complete or self.close_sent or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(frame)
        return True
