"""Many readers, some writers, one document: how long an edit takes from its writer to every reader."""

import asyncio
import re
import statistics
import time
import uuid
from typing import Any

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.editing_trace import environment
from config.stack.web import WebWorkers
from realtime.protocols.frames import encode_update

EDITS_PER_SECOND = 10
SENT_AT = re.compile(rb"@(\d{19})@")


async def read_delays(socket: ClientConnection, delays: list[float]) -> None:
    """Add to `delays` how many milliseconds each edit took from its writer to here, until the socket ends."""
    async for message in socket:
        now = time.time_ns()
        if isinstance(message, bytes):
            delays.extend((now - int(sent)) / 1e6 for sent in SENT_AT.findall(message))


async def write_stamped(socket: ClientConnection, seconds: float, *, offset: float) -> int:
    """Make edits that hold the time of their making; return how many."""
    await asyncio.sleep(offset)  # people do not type in step
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    emitted: list[bytes] = []
    doc.observe(lambda event: emitted.append(event.update))
    count = int(seconds * EDITS_PER_SECOND)
    for _ in range(count):
        text.insert(0, f"@{time.time_ns()}@")
        await socket.send(encode_update(emitted.pop()))
        await asyncio.sleep(1 / EDITS_PER_SECOND)
    return count


async def _measure(url: str, *, writers: int, readers: int, seconds: float, pid: int) -> None:
    delays: list[float] = []
    sockets = [await connect(url, compression=None, max_size=None) for _ in range(writers + readers)]
    reading = [asyncio.create_task(read_delays(socket, delays)) for socket in sockets]
    cpu = cpu_seconds(pid)
    counts = await asyncio.gather(
        *(
            write_stamped(socket, seconds, offset=place / writers / EDITS_PER_SECOND)
            for place, socket in enumerate(sockets[:writers])
        )
    )
    cpu = cpu_seconds(pid) - cpu
    await asyncio.sleep(1)
    for socket in sockets:
        await socket.close()
    await asyncio.gather(*reading)
    quantiles = statistics.quantiles(delays, n=100)
    print(
        f"{writers} writers x {EDITS_PER_SECOND}/s, {readers} readers: {sum(counts)} edits, {len(delays):,} delivered, "
        f"p50 {quantiles[49]:.1f} ms, p95 {quantiles[94]:.1f} ms, p99 {quantiles[98]:.1f} ms, "
        f"server {cpu / seconds:.0%} of a core"
    )


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def run(*, writers: int, readers: int, seconds: float) -> None:
    with WebWorkers(environment(), count=1) as workers:
        url = f"ws://127.0.0.1:{workers.port}/ws/fan-out-{uuid.uuid4().hex}"
        (pid,) = [pid for pid in workers.pids if pid is not None]
        asyncio.run(_measure(url, writers=writers, readers=readers, seconds=seconds, pid=pid))
