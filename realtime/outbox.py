"""What waits to be written to one socket. Bounded: a reader that is too slow gets one merged update of what it missed.

A message is written at once where the socket takes it; only a socket that is behind has a queue and a task."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from realtime.frames import FrameWriter, SharedMessage
from realtime.protocols.messages import Wire

LINE_BYTES = 128
"""What a place in line costs beside its payload: a million bytes of keystrokes are 30,000 messages."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    payload: bytes
    seq: int | None
    """The last seq that the message brings; None for what may not be dropped (handshakes)."""

    @property
    def cost(self) -> int:
        return len(self.payload) + LINE_BYTES


class Outbox:
    """The messages of one socket in one room, in order, said over `wire`.

    `send` awaits until the server took a payload. `missed_since(seq)` returns the message that brings a socket from
    `seq` to the room's present, and the seq it then has. `failed` is told when either raised: nothing more is sent."""

    def __init__(
        self,
        *,
        wire: Wire,
        send: Callable[[bytes], Awaitable[None]],
        writer: FrameWriter | None,
        missed_since: Callable[[int], Awaitable[tuple[SharedMessage | None, int]]],
        failed: Callable[[BaseException], None],
        bytes_max: int,
    ) -> None:
        self._wire = wire
        self._send = send
        self._writer = writer
        self._missed_since = missed_since
        self._failed = failed
        self._bytes_max = bytes_max
        self._waiting: deque[_Waiting] = deque()
        self._droppable_bytes = 0
        self._answer_bytes = 0
        self._room_for_answers = asyncio.Event()
        self._room_for_answers.set()
        self._behind = False
        self._pump: asyncio.Task[None] | None = None
        self.seq = 0
        """The last seq written to the socket."""

    def offer(self, message: SharedMessage, *, seq: int | None = None) -> int:
        """Write the message, or line it up; return its bytes. `seq` marks an update (or presence, with the seq
        unchanged) that may be dropped and replaced when the reader is too slow."""
        if self._pump is None and self._writer is not None:
            frame = message.frame(self._wire)
            if frame is None or self._writer.write_frame(frame):
                self._wrote(seq)
                return 0 if frame is None else len(frame)
        payload = message.payload(self._wire)
        if payload is None:
            return 0
        waiting = _Waiting(payload, seq)
        if seq is not None:
            if self._behind:
                return 0
            if self._droppable_bytes + waiting.cost > self._bytes_max:
                self._overflow()
                return 0
            self._droppable_bytes += waiting.cost
        else:
            self._answer_bytes += waiting.cost
            if self._answer_bytes > self._bytes_max:
                self._room_for_answers.clear()
        self._waiting.append(waiting)
        self._ensure_pump()
        return len(payload)

    def skip(self, seq: int) -> None:
        """The socket has the update of `seq` already. With others still in line that says nothing of those: they, and
        this one again, are what it lacks if it then overflows."""
        if self._pump is None:
            self._wrote(seq)

    async def room_for_answers(self) -> None:
        """Wait while too many bytes of answers are unread: whoever asks and does not read is not read either."""
        await self._room_for_answers.wait()

    async def written(self) -> None:
        """Wait until nothing waits: all that was offered is with the server, or will never be."""
        while self._pump is not None:
            await asyncio.wait([self._pump])

    def close(self) -> None:
        """Send nothing more, and let go of whoever tells what was missed: they have this."""
        self._missed_since = _nothing_missed
        self._waiting.clear()
        self._droppable_bytes = 0
        if self._pump is not None:
            self._pump.cancel()

    def _wrote(self, seq: int | None) -> None:
        if seq is not None and seq > self.seq:
            self.seq = seq

    def _overflow(self) -> None:
        """Forget the updates and presence in line: when the reader comes back, it is brought up to date in one."""
        self._behind = True
        self._waiting = deque(waiting for waiting in self._waiting if waiting.seq is None)
        self._droppable_bytes = 0
        self._ensure_pump()

    def _ensure_pump(self) -> None:
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())
            self._pump.add_done_callback(self._pump_ended)

    async def _run(self) -> None:
        while True:
            while self._waiting:
                waiting = self._waiting.popleft()
                if waiting.seq is not None:
                    self._droppable_bytes -= waiting.cost
                await self._send(waiting.payload)
                self._wrote(waiting.seq)
                if waiting.seq is None:
                    self._answer_bytes -= waiting.cost
                    if self._answer_bytes <= self._bytes_max:
                        self._room_for_answers.set()
            if not self._behind:
                return
            # Before the look: what is shown while it lasts lines up; what the message also holds does no harm twice.
            self._behind = False
            message, seq = await self._missed_since(self.seq)
            payload = None if message is None else message.payload(self._wire)
            if payload is not None:
                await self._send(payload)
                self._wrote(seq)

    def _pump_ended(self, task: asyncio.Task[None]) -> None:
        self._pump = None
        self._room_for_answers.set()  # also of a socket that is gone: nobody would ever read
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._failed(error)
        elif self._waiting or self._behind:  # lined up, or overflowed, between the pump's end and this call
            self._ensure_pump()


async def _nothing_missed(seq: int) -> tuple[SharedMessage | None, int]:
    return None, seq
