"""Peers that vanish, stall or never get to the point: the worker lets go of each within its bounds."""

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from pycrdt import Doc, Text
from websockets.asyncio.client import connect as connect_websocket

from realtime.protocols.frames import encode_update
from tests.clients.stack import Stack, a_room, until
from tests.load.peers import connect, handshake, open_socket, open_sockets_of, send_frame

GONE_SECONDS = 20.0
LARGE = "x" * 12_000_000
"""More than the kernel and the transport's buffer take for one who does not read."""


def says_nothing(stack: Stack, room: str) -> socket.socket:
    return connect(stack.http_url)


def sends_half_a_handshake(stack: Stack, room: str) -> socket.socket:
    peer = connect(stack.http_url)
    peer.sendall(handshake(f"/ws/{room}")[:60])
    return peer


def sends_half_a_second_request(stack: Stack, room: str) -> socket.socket:
    peer = connect(stack.http_url)
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    peer.sendall(request)
    assert peer.recv(4096).startswith(b"HTTP/1.1 200 ")
    peer.sendall(request[:20])
    return peer


def answers_no_ping(stack: Stack, room: str) -> socket.socket:
    return open_socket(stack.http_url, room)


def does_not_answer_the_close(stack: Stack, room: str) -> socket.socket:
    peer = open_socket(stack.http_url, room)
    send_frame(peer, b"\xff")
    return peer


@pytest.mark.parametrize(
    "behave",
    [says_nothing, sends_half_a_handshake, sends_half_a_second_request, answers_no_ping, does_not_answer_the_close],
)
async def test_a_peer_that_is_not_there_is_let_go(
    hasty_stack: Stack, behave: Callable[[Stack, str], socket.socket]
) -> None:
    peers = [await asyncio.to_thread(behave, hasty_stack, a_room("vanished")) for _ in range(3)]
    try:
        for peer in peers:
            await asyncio.to_thread(until_ended, peer)
    finally:
        for peer in peers:
            peer.close()


def until_ended(peer: socket.socket) -> None:
    """Read what there is until the worker has closed or cut the connection, answering nothing.

    Raises: TimeoutError where it goes on."""
    peer.settimeout(GONE_SECONDS)
    try:
        while peer.recv(65536):
            pass
    except ConnectionResetError:
        pass


async def test_a_peer_with_full_buffers_that_reads_nothing_is_cut(hasty_stack: Stack) -> None:
    (pid,) = hasty_stack.workers.pids
    assert pid is not None
    room = a_room("full-buffers")
    async with connect_websocket(f"{hasty_stack.url}/{room}", max_size=None, compression=None) as writer:
        await writer.recv()
        before = open_sockets_of(pid)
        peer = await asyncio.to_thread(open_socket, hasty_stack.http_url, room)
        try:
            assert open_sockets_of(pid) > before
            doc = Doc[Text]()
            doc.get("t", type=Text).insert(0, LARGE)
            await writer.send(encode_update(doc.get_update()))
            await until("the stalled peer is cut", lambda: open_sockets_of(pid) <= before)
        finally:
            peer.close()
        await (await writer.ping())  # who answers pings is there all the while


async def test_one_who_takes_nothing_of_an_answer_is_cut(hasty_stack: Stack) -> None:
    (pid,) = hasty_stack.workers.pids
    assert pid is not None
    room = a_room("answers")
    async with connect_websocket(f"{hasty_stack.url}/{room}", max_size=None, compression=None) as writer:
        await writer.recv()
        before = open_sockets_of(pid)
        doc = Doc[Text]()
        doc.get("t", type=Text).insert(0, LARGE)
        await writer.send(encode_update(doc.get_update()))
        path = f"/api/v1/documents/{await asyncio.to_thread(key_of, hasty_stack, room)}/content"
        peer = await asyncio.to_thread(connect, hasty_stack.http_url)
        try:
            peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            beginning = await asyncio.to_thread(peer.recv, 512)
            assert beginning.startswith(b"HTTP/1.1 200 ")
            await until("the stalled reader is cut", lambda: open_sockets_of(pid) <= before)
        finally:
            peer.close()


def key_of(stack: Stack, room: str) -> str:
    """Of the document of a room, once something is stored in it."""
    with stack.database.connect() as looking:
        while True:
            found = looking.execute(
                "SELECT key FROM documents_document JOIN history_head ON document_id = documents_document.id"
                " WHERE name = %s AND seq > 0",
                [room],
            ).fetchone()
            if found is not None:
                return str(found[0])
            looking.rollback()
            time.sleep(0.05)
