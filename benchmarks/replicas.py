"""A replica: one editor as a program, on a real socket. It comes back as stock clients do when it is cut off."""

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Any, Self

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from realtime.protocols.frames import (
    decode_frame,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from realtime.protocols.messages import SyncStep1, SyncStep2, Update

BACKOFF_SECONDS_MAX = 2.5
"""Stock clients wait 0.1 s, 0.2 s and so on up to this before they come again."""
PERMISSION_DENIED = b"\x02\x00"


class Replica:
    """A document on a socket. `denied_at` and `closed_at` are when it was first turned back, or sent away for good."""

    def __init__(self, url: str, *, cookie: str = "", comes_back: bool = True) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.denied_at: float | None = None
        self.closed_at: float | None = None
        self.close_code: int | None = None
        self.synced = asyncio.Event()
        self._url = url
        self._headers = {"Cookie": cookie} if cookie else {}
        self._comes_back = comes_back
        self._changed = asyncio.Condition()
        self._socket: ClientConnection | None = None
        self._task = asyncio.create_task(self._run())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def type(self, text: str) -> None:
        """Insert at the front and send it; what cannot be sent now is brought on syncing."""
        emitted: list[bytes] = []
        subscription = self.doc.observe(lambda event: emitted.append(event.update))
        self.text.insert(0, text)
        self.doc.unobserve(subscription)
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(encode_update(emitted[0]))

    async def shows(self, text: str) -> float:
        """Wait until the document holds a text; return when that was."""
        async with self._changed:
            await self._changed.wait_for(lambda: text in str(self.text))
        return time.monotonic()

    async def ended(self) -> float:
        """Wait until the socket is turned read-only or closed; return when that was."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.denied_at or self.closed_at)
        return self.denied_at or self.closed_at or 0.0

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                async with connect(self._url, additional_headers=self._headers, compression=None, max_size=None) as it:
                    self._socket = it
                    await it.send(encode_sync_step1(self.doc.get_state()))
                    async for frame in it:
                        pause = 0.1
                        await self._take(it, frame if isinstance(frame, bytes) else b"")
                self.close_code = it.close_code
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
                pass
            finally:
                self._socket = None
                self.synced.clear()
            if not self._comes_back:
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_SECONDS_MAX)
        await self._tell(closed=True)

    async def _take(self, socket: ClientConnection, frame: bytes) -> None:
        if frame.startswith(PERMISSION_DENIED):
            return await self._tell(denied=True)
        for message in decode_frame(frame):
            match message:
                case SyncStep1(state_vector):
                    await socket.send(encode_sync_step2(self.doc.get_update(state_vector)))
                case SyncStep2(update):
                    self.doc.apply_update(update)
                    self.synced.set()
                case Update(update):
                    self.doc.apply_update(update)
        await self._tell()

    async def _tell(self, *, denied: bool = False, closed: bool = False) -> None:
        now = time.monotonic()
        async with self._changed:
            if denied:
                self.denied_at = self.denied_at or now
            if closed:
                self.closed_at = now
            self._changed.notify_all()
