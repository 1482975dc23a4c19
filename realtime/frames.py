"""One message encoded once for all sockets that are spoken to in one way, and written as it is where the server can.

`realtime.uvicorn_protocol` offers that as an ASGI extension. On any other server each socket gets an ordinary send."""

from collections.abc import Callable
from typing import Protocol

from realtime.protocols.messages import ServerMessage, Wire

EXTENSION = "palimpsest.frames"

TEXT_FRAME, BINARY_FRAME = 0x81, 0x82
"""The first byte of an unmasked final frame (RFC 6455, 5.2)."""


class SharedMessage:
    """One message for many sockets: for each wire the payload, and its frame, encoded when a socket first asks."""

    __slots__ = ("_frames", "_payloads", "message")

    def __init__(self, message: ServerMessage) -> None:
        self.message = message
        self._payloads: dict[Wire, bytes | None] = {}
        self._frames: dict[Wire, bytes] = {}

    def payload(self, wire: Wire) -> bytes | None:
        """What one frame of this wire holds; None where it does not say such things."""
        if wire in self._payloads:
            return self._payloads[wire]
        payload = wire.encode(self.message)
        if wire.is_shared:
            self._payloads[wire] = payload
        return payload

    def frame(self, wire: Wire) -> bytes | None:
        """As `payload`, within its frame."""
        frame = self._frames.get(wire)
        if frame is None:
            payload = self.payload(wire)
            if payload is None:
                return None
            frame = framed(payload, TEXT_FRAME if wire.is_text else BINARY_FRAME)
            if wire.is_shared:
                self._frames[wire] = frame
        return frame


def framed(payload: bytes, first_byte: int) -> bytes:
    """An unmasked final frame."""
    length = len(payload)
    if length < 126:
        header = bytes((first_byte, length))
    elif length < 1 << 16:
        header = bytes((first_byte, 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first_byte, 127)) + length.to_bytes(8, "big")
    return header + payload


class FrameWriter(Protocol):
    """What the extension offers. `heard_late` is given each binary frame that still comes behind the server's close,
    until the connection is gone; None lets them go."""

    heard_late: Callable[[bytes], None] | None

    def write_frame(self, frame: bytes) -> bool:
        """Write an encoded frame at once; False where the socket is not open or its buffer is full."""
