"""One WebSocket frame encoded once and written to many sockets, where the server offers it as an ASGI extension.

`realtime.uvicorn_protocol` does. On any other server each socket gets an ordinary ASGI send."""

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

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
    """What the extension offers. `heard_late` is given each binary frame that still comes behind the server's close,
    until the connection is gone; None lets them go."""

    heard_late: Callable[[bytes], None] | None

    def write_frame(self, frame: bytes) -> bool:
        """Write an encoded frame at once; False where the socket is not open or its buffer is full."""
