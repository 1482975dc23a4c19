"""What readers that never read cost the others: the same room with them and without, by turns, in one run.

Before each part a large paste fills the buffers of whoever does not read, so that all the rest waits in the server."""

import asyncio
import os
import socket
import statistics
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.editing_trace import environment
from benchmarks.fan_out import EDITS_PER_SECOND, read_delays, write_stamped
from benchmarks.openings_at_once import HEADER
from config.stack.web import WebWorkers
from realtime.protocols.frames import encode_update

PASTE_CHARACTERS = 8_000_000
RECEIVE_BUFFER_BYTES = 4096
PASTED_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.25


def _open_stalled(url: str) -> socket.socket:
    """A socket that takes a few kilobytes and then no more: a client library would read a message to its end."""
    parts = urlsplit(url)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    plain.connect((parts.hostname, parts.port))
    plain.sendall(HEADER.format(name=parts.path.removeprefix("/ws/")).encode())
    return plain


async def _paste(sockets: Sequence[ClientConnection]) -> None:
    """The first socket pastes; return when all the others have it."""
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert(0, "x" * PASTE_CHARACTERS)
    await sockets[0].send(encode_update(doc.get_update()))

    async def until_pasted(reader: ClientConnection) -> None:
        while len(await reader.recv()) < PASTE_CHARACTERS:
            pass

    async with asyncio.timeout(PASTED_SECONDS_MAX):
        await asyncio.gather(*(until_pasted(reader) for reader in sockets[1:]))


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _most_resident(pid: int, seconds: float) -> int:
    most = 0
    for _ in range(int(seconds / LOOK_SECONDS)):
        most = max(most, _resident_bytes(pid))
        await asyncio.sleep(LOOK_SECONDS)
    return most


async def _measure(
    workers: WebWorkers, *, writers: int, readers: int, stalled: int, seconds: float
) -> tuple[list[float], int]:
    """The delays in milliseconds, and the most memory that the server held."""
    (pid,) = [pid for pid in workers.pids if pid is not None]
    url = f"ws://127.0.0.1:{workers.port}/ws/stalled-{uuid.uuid4().hex}"
    sockets = [await connect(url, compression=None, max_size=None) for _ in range(writers + readers)]
    silent = [await asyncio.to_thread(_open_stalled, url) for _ in range(stalled)]
    await _paste(sockets)
    delays: list[float] = []
    reading = [asyncio.create_task(read_delays(each, delays)) for each in sockets]
    watching = asyncio.create_task(_most_resident(pid, seconds))
    await asyncio.gather(
        *(
            write_stamped(each, seconds, offset=place / writers / EDITS_PER_SECOND)
            for place, each in enumerate(sockets[:writers])
        )
    )
    await asyncio.sleep(1)
    for each in silent:
        each.close()
    await asyncio.gather(*(each.close() for each in sockets))
    await asyncio.gather(*reading)
    return delays, await watching


def _say(name: str, delays: list[float], memory: int) -> float:
    quantiles = statistics.quantiles(delays, n=100)
    print(
        f"{name}: {len(delays):,} delivered, p50 {quantiles[49]:.1f} ms, p95 {quantiles[94]:.1f} ms, "
        f"p99 {quantiles[98]:.1f} ms, server at most {memory / 2**20:.0f} MiB"
    )
    return quantiles[98]


def run(*, writers: int, readers: int, stalled: int, seconds: float, rounds: int) -> None:
    settings = {"ROOM_IDLE_SECONDS": "0.5", "HEAD_CHECK_SECONDS": "0.5", "WARM_BYTES_MAX": "0"}
    counts = {"without": 0, "with": stalled}
    delays: dict[str, list[float]] = {name: [] for name in counts}
    memory: dict[str, int] = dict.fromkeys(counts, 0)
    with WebWorkers({**environment(), **settings}, count=1) as workers:
        # The first part of all is for warming up: what the process then holds it keeps.
        for number in range(-1, rounds):
            for name, count in counts.items():
                found, most = asyncio.run(
                    _measure(workers, writers=writers, readers=readers, stalled=count, seconds=seconds)
                )
                if number >= 0 or name == "with":
                    memory[name] = max(memory[name], most)
                if number >= 0:
                    delays[name] += found
    print(f"{writers} writers x {EDITS_PER_SECOND}/s, {readers} readers, {rounds} rounds of {seconds:.0f} s by turns")
    without = _say("without stalled readers", delays["without"], memory["without"])
    beside = _say(f"with {stalled} stalled readers", delays["with"], memory["with"])
    growth = (memory["with"] - memory["without"]) / 2**20
    print(f"p99 with them: {beside / without - 1:+.0%}; memory with them: {growth:+.0f} MiB")
