"""What a client sends before it reads that its right has ended: the server hears it behind its own close."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import psycopg

from realtime.protocols.frames import encode_update
from tests.clients.stack import a_room, until
from tests.conftest import Ground
from tests.integration.realtime.rooms import update_that_types
from tests.load.conftest import one_worker
from tests.load.peers import open_socket, send_frame

GREETING = b"\x82\x04\x00\x00\x01\x00"
CLOSED_WITH_4403 = b"\x11\x33"
DEADLINE_SECONDS = 20.0


async def test_what_is_sent_before_the_close_is_read_is_kept(ground: Ground) -> None:
    room, late = a_room("late"), update_that_types("late", client_id=7)
    with one_worker(ground, HEAD_CHECK_SECONDS="0.2") as stack, ground.database.connect() as database:
        peer = await asyncio.to_thread(open_socket, stack.http_url, room)
        with peer:
            await asyncio.to_thread(read_until, peer, GREETING)
            database.execute("UPDATE documents_document SET open_to_all = false WHERE name = %s", [room])
            await asyncio.to_thread(read_until, peer, CLOSED_WITH_4403)  # and nothing is answered
            send_frame(peer, encode_update(late))
            await until("what came late is kept", kept(database, room, late))
    assert ground.database.rows(room) == []


def read_until(peer: socket.socket, expected: bytes) -> None:
    peer.settimeout(DEADLINE_SECONDS)
    received = b""
    while expected not in received:
        read = peer.recv(4096)
        assert read, received
        received += read


def kept(database: "psycopg.Connection[Any]", room: str, update: bytes) -> Callable[[], bool]:
    query = """
        SELECT refusal.payload FROM history_refusal refusal
        JOIN documents_document document ON document.id = refusal.document_id WHERE document.name = %s
    """
    return lambda: any(update in bytes(payload) for (payload,) in database.execute(query, [room]))
