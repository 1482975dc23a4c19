"""What people do all day, in scenes: some come into a document, show their cursors, type, rest, leave or vanish, and
one comes again when the room has been closed.

Every scene has a document of its own and is as long as the others: what a stack holds under load does not grow."""

import asyncio
import random
import urllib.request
from typing import Any

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import encode_awareness, encode_sync_step1, encode_update
from tests.clients.driver import NodeClients

PEOPLE_MIN, PEOPLE_MAX = 3, 6
EDITS_EACH = 30
CHARACTERS_MAX = 200
PAUSE_SECONDS = 0.4
"""Between two edits of one person."""
REST_SECONDS = 2.0
ROOM_IDLE_SECONDS = 2.0
HEAD_CHECK_SECONDS = 1.0
SCENE_SECONDS_MAX = 300.0
ANSWER_SECONDS_MAX = 60.0
"""What holds is asked for here, not how quickly: other programs may keep the machine busy."""
LETTERS_OF_YJS = 40


class Person:
    """One socket: an editor's document, a cursor, and a reader of all that comes."""

    def __init__(self, socket: ClientConnection, rng: random.Random) -> None:
        self._socket = socket
        self._rng = rng
        self._doc: Doc[Any] = Doc()
        self._text = self._doc.get("text", type=Text)
        self._emitted: list[bytes] = []
        self._subscription = self._doc.observe(lambda event: self._emitted.append(event.update))
        self._clock = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for _ in self._socket:
            pass

    async def arrive(self) -> None:
        await self._socket.send(encode_sync_step1(b"\0"))
        await self.point()

    async def point(self) -> None:
        """Show where the cursor is."""
        self._clock += 1
        state = f'{{"cursor":{self._rng.randrange(1000)}}}'
        await self._socket.send(encode_awareness([AwarenessEntry(self._doc.client_id, self._clock, state)]))

    async def type(self, edits: int, *, pause_seconds: float) -> None:
        for number in range(edits):
            if len(self._text) > CHARACTERS_MAX:
                del self._text[: CHARACTERS_MAX // 2]
            else:
                self._text.insert(self._rng.randint(0, len(self._text)), "soaked ")
            for update in self._emitted:
                await self._socket.send(encode_update(update))
            self._emitted.clear()
            if number % 5 == 0:
                await self.point()
            await asyncio.sleep(self._rng.uniform(0, 2 * pause_seconds))

    async def leave(self) -> None:
        """Half of them say so."""
        if self._rng.random() < 0.5:
            await self._socket.close()
        else:
            self._socket.transport.abort()
            await self._socket.wait_closed()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._doc.unobserve(self._subscription)


async def come_in(url: str, room: str) -> ClientConnection:
    return await connect(
        f"{url}/{room}", compression=None, open_timeout=ANSWER_SECONDS_MAX, ping_timeout=ANSWER_SECONDS_MAX
    )


async def scene(url: str, room: str, rng: random.Random, *, pause_seconds: float) -> int:
    """Play one scene; return how many edits were made."""
    count = rng.randint(PEOPLE_MIN, PEOPLE_MAX)
    people = [Person(await come_in(url, room), rng) for _ in range(count)]
    await asyncio.gather(*(person.arrive() for person in people))
    await asyncio.gather(*(person.type(EDITS_EACH, pause_seconds=pause_seconds) for person in people))
    await asyncio.sleep(REST_SECONDS)
    await asyncio.gather(*(person.leave() for person in people))
    await asyncio.sleep(ROOM_IDLE_SECONDS + 2 * HEAD_CHECK_SECONDS)
    last = Person(await come_in(url, room), rng)
    await last.arrive()
    await last.type(1, pause_seconds=0)
    await last.leave()
    return count * EDITS_EACH + 1


async def scene_of_yjs(node: NodeClients, url: str, room: str, *, pause_seconds: float) -> int:
    """The same with stock Yjs clients: they type, one loses its network, all come to the same document."""
    clients = [await node.open(f"{name} in {room}", url=url, room=room) for name in ("ann", "ben", "cem")]
    try:
        for client in clients:
            await client.wait_synced(timeout_seconds=ANSWER_SECONDS_MAX)
        await asyncio.gather(
            *(client.type("y" * LETTERS_OF_YJS, interval_ms=pause_seconds * 1000) for client in clients),
            clients[0].drop(),
        )
        await node.converged(*clients, timeout_seconds=ANSWER_SECONDS_MAX)
    finally:
        for client in clients:
            await client.destroy()
    return len(clients) * LETTERS_OF_YJS


async def look_at_a_page(http_url: str) -> None:
    def read() -> None:
        with urllib.request.urlopen(f"{http_url}/healthz", timeout=ANSWER_SECONDS_MAX) as answer:
            answer.read()

    await asyncio.to_thread(read)
