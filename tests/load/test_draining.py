"""SIGTERM to a worker: what waits is stored and written first, and each client is told to come again (1012)."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from realtime.protocols.frames import encode_update
from tests.clients.stack import Stack, a_room, until
from tests.conftest import Ground
from tests.load.conftest import one_worker
from tests.load.peers import open_socket

SOCKETS = 120
WAIT_SECONDS = 20.0
LARGE = "x" * 6_000_000
LAST_WORDS = [f"last words {number:02}" for number in range(20)]
CODE_1012 = (1012).to_bytes(2, "big")


@pytest.fixture
def worker(ground: Ground) -> Iterator[Stack]:
    with one_worker(ground, DRAIN_SECONDS="3", CLOSE_SECONDS="1") as stack:
        yield stack


@pytest.fixture
async def writer(worker: Stack) -> AsyncIterator[ClientConnection]:
    async with connect(f"{worker.url}/{a_room('drained')}", max_size=None, compression=None) as socket:
        await socket.recv()  # in the room
        yield socket


def terminate(worker: Stack) -> None:
    (pid,) = worker.workers.pids
    assert pid is not None
    os.kill(pid, signal.SIGTERM)


async def write_much(worker: Stack, writer: ClientConnection) -> None:
    """Store one update that fills all buffers of whoever does not read, then small ones that have to wait in line."""
    doc: Doc[Text] = Doc()
    text = doc.get("t", type=Text)
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    for number, words in enumerate((LARGE, *LAST_WORDS)):
        text += words
        await writer.send(encode_update(emitted[number]))
        await until("it is stored", partial(is_stored, worker, room_of(writer), number + 1))
    doc.unobserve(subscription)


def is_stored(worker: Stack, room: str, seq: int) -> bool:
    return worker.database.head_seq(room) >= seq


def read_to_the_end(peer: socket.socket) -> bytes:
    received = bytearray()
    while chunk := peer.recv(1 << 20):
        received += chunk
    return bytes(received)


async def closed_with(client: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code


def room_of(client: ClientConnection) -> str:
    assert client.request is not None
    return client.request.path.removeprefix("/ws/")


async def test_a_reader_that_is_behind_gets_what_is_in_line_before_it_is_told_to_come_again(
    worker: Stack, writer: ClientConnection
) -> None:
    room = room_of(writer)
    with await asyncio.to_thread(open_socket, worker.http_url, room) as reader:
        await write_much(worker, writer)
        terminate(worker)
        assert await asyncio.wait_for(closed_with(writer), WAIT_SECONDS) == CloseCode.SERVICE_RESTART
        received = await asyncio.to_thread(read_to_the_end, reader)
    assert [words for words in LAST_WORDS if words.encode() not in received] == []
    assert received[-100:].count(CODE_1012) == 1


async def test_one_who_reads_nothing_does_not_keep_a_worker_from_ending(
    worker: Stack, writer: ClientConnection
) -> None:
    room = room_of(writer)
    child = worker.workers._workers[0]
    assert child is not None
    with await asyncio.to_thread(open_socket, worker.http_url, room):
        await write_much(worker, writer)
        terminate(worker)
        assert await asyncio.to_thread(child.wait, WAIT_SECONDS)
    assert child.exit_code == -signal.SIGTERM


async def test_many_sockets_are_all_told_to_come_again(worker: Stack) -> None:
    sockets = [await connect(f"{worker.url}/{a_room('many')}", compression=None) for _ in range(SOCKETS)]
    await asyncio.gather(*(each.recv() for each in sockets))
    terminate(worker)
    codes = await asyncio.wait_for(asyncio.gather(*map(closed_with, sockets)), WAIT_SECONDS)
    assert set(codes) == {CloseCode.SERVICE_RESTART}
