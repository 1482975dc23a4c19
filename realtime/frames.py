"""One WebSocket frame encoded once and written to many sockets: an ASGI extension of our uvicorn protocol class.

On any other server the extension is missing and each socket gets an ordinary ASGI send."""

from functools import cached_property
from typing import Any, Protocol, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION = "palimpsest.frames"


class SharedMessage:
    """One message for many sockets: the payload, and its frame, encoded when a socket first asks for it."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    @cached_property
    def frame(self) -> bytes:
        """An unmasked final binary frame (RFC 6455, 5.2)."""
        length = len(self.payload)
        if length < 126:
            header = bytes((0x82, length))
        elif length < 1 << 16:
            header = b"\x82\x7e" + length.to_bytes(2, "big")
        else:
            header = b"\x82\x7f" + length.to_bytes(8, "big")
        return header + self.payload


class FrameWriter(Protocol):
    """What the extension offers."""

    def write_frame(self, frame: bytes) -> bool:
        """Write an encoded frame at once; False where the socket is not open or its buffer is full."""


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
