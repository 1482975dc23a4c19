"""The door of Hocuspocus' providers: many documents on one socket, each let in, served and closed by itself."""

import asyncio
import logging
from typing import Any

from pycrdt import Doc

from documents.conf import conf
from history.models import Via
from realtime.closing import CloseCode, Closing
from realtime.frames import BINARY_FRAME, framed
from realtime.hocuspocus.addresses import Address
from realtime.hub import current_hub
from realtime.limits import TokenBucket
from realtime.protocols.hocuspocus import (
    PING,
    PONG,
    HocuspocusWire,
    MessageType,
    read_head,
)
from realtime.served import begins_empty
from realtime.sockets import Receiver, Socket

logger = logging.getLogger(__name__)

TOKEN_COST_BYTES = 64 * 1024
"""What a token counts as: the database is asked who comes with it."""


class HocuspocusConsumer(Socket):
    """One socket at `/collaboration`. Override `make_ydoc` as in `YjsConsumer`."""

    via = Via.WEBSOCKET

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_spoken = False
        """Whether anything was sent: at that the provider sends what it could not while its socket was not open."""
        self._addresses: dict[str, Address] = {}
        self._queued_frames = 0
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @begins_empty
    async def make_ydoc(self, room_name: str) -> "Doc[Any]":
        """The document that a room begins with: called once for each room and process, not for each socket."""
        return Doc()

    # What comes

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one frame; return when the next one may be read: later than at once for who sends too fast.

        Raises: Malformed, Closing; the socket is closed then."""
        if bytes_data is None:
            raise Closing(CloseCode.UNSUPPORTED, "only binary frames are understood here")
        if len(bytes_data) > conf().sync_frame_bytes_max:
            raise Closing(CloseCode.TOO_LARGE, "the frame is too large")
        if bytes_data == PING:
            await self.say(PONG)
        elif bytes_data != PONG:
            await self._take(bytes_data)
        now = current_hub().now()
        pause = max(self._bytes_left.take(len(bytes_data), now=now), self._frames_left.take(1, now=now))
        if pause:
            await asyncio.sleep(pause)

    async def _take(self, frame: bytes) -> None:
        head = read_head(frame)
        address = self._addresses.get(head.address)
        if address is None and (address := self._new_address(head.address)) is None:
            if head.type is MessageType.AUTH:
                await self.say(HocuspocusWire(head.address).encode_denied("too many documents on one socket"))
        else:
            if head.type is MessageType.AUTH:
                self._bytes_left.take(TOKEN_COST_BYTES, now=current_hub().now())
            await address.hear(frame, head.type)

    def _new_address(self, name: str) -> Address | None:
        """A place for one more, that of one that is over where there are enough; None where there is none."""
        if len(self._addresses) >= conf().documents_per_socket_max:
            over = next((name for name, address in self._addresses.items() if address.is_at_rest), None)
            if over is None:
                return None
            del self._addresses[over]
        self._addresses[name] = address = Address(self, name)
        return address

    # What waits for a token

    def has_place_for(self, frame: bytes) -> bool:
        """Whether a frame more may wait, of whichever address."""
        return (
            self._queued_frames < conf().unadmitted_frames_max
            and self._queued_bytes + len(frame) <= conf().unadmitted_bytes_max
        )

    def queued(self, frame: bytes) -> None:
        self._queued_frames += 1
        self._queued_bytes += len(frame)

    def unqueued(self, frame: bytes) -> None:
        self._queued_frames -= 1
        self._queued_bytes -= len(frame)

    # What is sent beside what the documents' outboxes send

    async def say(self, payload: bytes) -> None:
        self.has_spoken = True
        await self.send(bytes_data=payload)

    def say_soon(self, payload: bytes) -> None:
        """As `say`, for what does not wait."""
        self.has_spoken = True
        writer = self.frame_writer()
        if writer is None or not writer.write_frame(framed(payload, BINARY_FRAME)):
            current_hub().spawn(self._say_if_there(payload))

    async def _say_if_there(self, payload: bytes) -> None:
        try:
            await self.send(bytes_data=payload)
        except (RuntimeError, OSError):
            logger.debug("the socket was gone before it could be told")

    # The way in and out

    async def enter(self) -> None:
        now = current_hub().now()
        self._frames_left = TokenBucket(rate=conf().updates_per_second, burst=conf().updates_burst, now=now)
        self._bytes_left = TokenBucket(rate=conf().bytes_per_second, burst=conf().bytes_burst, now=now)
        self._timer = asyncio.get_running_loop().call_later(conf().token_seconds, self._nobody_came)

    def has_let_in(self) -> None:
        """Somebody was let in to a document of this socket."""
        if self._timer is not None:
            self._timer.cancel()

    def _nobody_came(self) -> None:
        self.close_soon(Closing(CloseCode.TRY_AGAIN, "nobody came with a token that opens a document"))

    def is_under_no_other(self, ended: Address) -> bool:
        """Whether all that is open on this socket is open under the credential of that which ended."""
        return all(each.credential == ended.credential for each in self._addresses.values() if each.is_open)

    def close_soon(self, closing: Closing) -> None:
        """Close the socket with all its documents; from this moment on they are shown nothing."""
        is_first = self.closing is None
        super().close_soon(closing)
        if is_first:
            for address in self._addresses.values():
                if address.connection is not None and closing.code == CloseCode.SIGNED_OUT:
                    address.connection.has_lost_right = True  # all are under what has ended
                address.leave()

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for address in self._addresses.values():
            address.leave()

    def forget(self) -> None:
        self._addresses = {}

    @property
    def receive_late(self) -> Receiver | None:
        addresses = self._addresses  # which may be called for when the socket has forgotten them

        async def keep(frame: bytes) -> None:
            address = addresses.get(read_head(frame).address)
            if address is not None and address.connection is not None:
                await address.connection.receive_late(frame)

        return keep if addresses else None
