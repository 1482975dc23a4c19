"""A network line that can be cut: a relay on unix sockets between the workers and one server, in a thread of its own.

Who connects is told by the kernel (SO_PEERCRED), so one process can be cut off while the others go on. Linux."""

import asyncio
import contextlib
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Coroutine
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 64 * 1024
CALL_SECONDS = 10.0
EVERYBODY = 0
"""Stands for all pids."""


class Break(Enum):
    """How a line is broken: `CUT` hangs up and refuses, `BLACK_HOLE` takes everything and answers nothing."""

    CUT = "cut"
    BLACK_HOLE = "black hole"


class Line:
    """A relay from `path` to the server's socket `target`. `break_for`, `mend` and `hang_up` may be called from any
    thread; what a black hole has swallowed arrives when the line is mended, as a network's own repeats would."""

    def __init__(self, target: Callable[[], Path], name: str) -> None:
        """`name` is the file name of the socket, which clients of the server expect."""
        self.folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
        self.path = self.folder / name
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"line {name}", daemon=True)
        self._broken: dict[int, Break] = {}
        self._mended = asyncio.Event()
        self._open: dict[asyncio.Task[None], int] = {}

    def break_for(self, pid: int, how: Break) -> None:
        self._call(self._break_for(pid, how))

    def mend(self) -> None:
        self._call(self._mend())

    def hang_up(self, pid: int = EVERYBODY) -> None:
        """End the connections that are open, and take new ones."""
        self._call(self._hang_up(pid))

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_unix_server(self._serve, self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _break_for(self, pid: int, how: Break) -> None:
        self._broken[pid] = how
        self._mended.clear()
        if how is Break.CUT:
            await self._hang_up(pid)

    async def _mend(self) -> None:
        self._broken.clear()
        self._mended.set()
        self._mended = asyncio.Event()

    async def _hang_up(self, pid: int) -> None:
        ended = [task for task, of in self._open.items() if pid in (EVERYBODY, of)]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def _close(self) -> None:
        self._server.close()
        await self._hang_up(EVERYBODY)

    def _break_of(self, pid: int) -> Break | None:
        return self._broken.get(pid) or self._broken.get(EVERYBODY)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid = _peer_of(writer)
        task = asyncio.current_task()
        assert task is not None  # a callback of a stream server runs as a task
        self._open[task] = pid
        try:
            # Cancelled by `hang_up`: that is how this connection ends, not the relay.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if self._break_of(pid) is not Break.CUT:
                    await self._relay(pid, reader, writer)
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _relay(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._target())
        try:
            ways = [
                asyncio.ensure_future(self._pump(pid, reader, server_writer)),
                asyncio.ensure_future(self._pump(pid, server_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            server_writer.transport.abort()

    async def _pump(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            while self._break_of(pid) is Break.BLACK_HOLE:
                await self._mended.wait()
            writer.write(data)
            await writer.drain()


def _peer_of(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)
