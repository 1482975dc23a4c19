"""The same typing through each door, and through all at once: what a door costs, and how soon its readers see."""

import asyncio
import json
import random
import re
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.editing_trace import environment
from benchmarks.fan_out import EDITS_PER_SECOND, SENT_AT, cpu_seconds
from config.stack.web import WebWorkers
from history.crdt.lib0 import var_string
from realtime.protocols.frames import encode_update
from realtime.protocols.hocuspocus import AuthType, MessageType

SEEN_SEQ = re.compile(rb'"seq": ?(\d+)')


@dataclass
class Client:
    """One socket. `delays` are the milliseconds that each edit took from its writer to here, `seq` what a JSON room has
    told last."""

    door: "Door"
    socket: ClientConnection
    delays: list[float]
    seq: int = 0

    async def read(self) -> None:
        """Until the socket ends."""
        async for message in self.socket:
            now = time.time_ns()
            said = message.encode() if isinstance(message, str) else message
            self.delays.extend((now - int(sent)) / 1e6 for sent in SENT_AT.findall(said))
            if isinstance(message, str) and (seqs := SEEN_SEQ.findall(said)):
                self.seq = int(seqs[-1])

    async def write(self, seconds: float, *, offset: float) -> int:
        """Make edits that hold the time of their making; return how many."""
        await asyncio.sleep(offset)  # people do not type in step
        doc: Doc[Any] = Doc()
        text = doc.get("text", type=Text)
        emitted: list[bytes] = []
        doc.observe(lambda event: emitted.append(event.update))
        count = int(seconds * EDITS_PER_SECOND)
        for number in range(count):
            # What a JSON room is told was found by comparison: two edits that begin alike are not told in one piece.
            stamp = f"{chr(random.randrange(0x4E00, 0x9FFF))}@{time.time_ns()}@"
            if self.door.is_json:
                edit = {"type": "document_edit", "id": number, "base": self.seq, "delta": [{"insert": stamp}]}
                await self.socket.send(json.dumps(edit))
            else:
                text.insert(0, stamp)
                await self.socket.send(self.door.address + encode_update(emitted.pop()))
            await asyncio.sleep(1 / EDITS_PER_SECOND)
        return count


@dataclass(frozen=True)
class Door:
    """`address` stands before each frame, and `hello` is what a client says first."""

    name: str
    path: str
    address: bytes = b""
    hello: bytes = b""
    is_json: bool = False

    async def come_in(self, origin: str) -> Client:
        socket = await connect(origin + self.path, compression=None, max_size=None)
        if self.hello:
            await socket.send(self.hello)
        await socket.recv()
        return Client(self, socket, [])


def doors(room: str) -> tuple[Door, ...]:
    """Those through which one document is edited."""
    address = var_string(room)
    token = address + bytes((MessageType.AUTH, AuthType.TOKEN)) + var_string("")
    return (
        Door("y-websocket", f"/ws/{room}"),
        Door("Hocuspocus", "/collaboration", address, token),
        Door("JSON", f"/ws/rooms/{room}/?field=text&deltas=only", is_json=True),
    )


async def _measure(origin: str, used: Sequence[Door], *, writers: int, readers: int, seconds: float, pid: int) -> None:
    clients = [await used[number % len(used)].come_in(origin) for number in range(writers + readers)]
    reading = [asyncio.create_task(client.read()) for client in clients]
    cpu = cpu_seconds(pid)
    counts = await asyncio.gather(
        *(
            client.write(seconds, offset=place / writers / EDITS_PER_SECOND)
            for place, client in enumerate(clients[:writers])
        )
    )
    cpu = cpu_seconds(pid) - cpu
    await asyncio.sleep(1)
    for client in clients:
        await client.socket.close()
    await asyncio.gather(*reading)
    told = ", ".join(f"{door.name} {_quantiles([each for each in clients if each.door is door])}" for door in used)
    name = used[0].name if len(used) == 1 else "mixed"
    print(f"{name}: {sum(counts)} edits; {told}; server {cpu / seconds:.0%} of a core", flush=True)


def _quantiles(clients: Sequence[Client]) -> str:
    delays = [delay for client in clients for delay in client.delays]
    quantiles = statistics.quantiles(delays, n=100)
    return f"{len(delays):,} delivered, p50 {quantiles[49]:.1f} ms, p95 {quantiles[94]:.1f} ms"


def run(*, writers: int, readers: int, seconds: float) -> None:
    """`writers` and `readers` all by one door, by the next, and then by the three in turn."""
    with WebWorkers(environment(), count=1) as workers:
        (pid,) = [pid for pid in workers.pids if pid is not None]
        origin = f"ws://127.0.0.1:{workers.port}"
        for chosen in (slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 3)):
            used = doors(f"doors-{uuid.uuid4().hex}")[chosen]
            asyncio.run(_measure(origin, used, writers=writers, readers=readers, seconds=seconds, pid=pid))
