"""Peers that behave badly: plain TCP sockets on a worker that say what they are told to, and read nothing."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

HANDSHAKE_SECONDS = 20.0
RECEIVE_BUFFER_BYTES = 4096


def connect(url: str) -> socket.socket:
    """A connection that has said nothing yet, with a small buffer: what it does not read soon stays with its server."""
    parts = urlsplit(url)
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    peer.settimeout(HANDSHAKE_SECONDS)
    peer.connect((parts.hostname, parts.port))
    return peer


def handshake(path: str) -> bytes:
    """The request with which a WebSocket begins (RFC 6455, 4.1)."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def open_socket(url: str, room: str) -> socket.socket:
    """A WebSocket in a room; all after the handshake's answer stays unread."""
    peer = connect(url)
    peer.sendall(handshake(f"/ws/{room}"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += peer.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return peer


def send_frame(peer: socket.socket, payload: bytes) -> None:
    peer.sendall(Frame(Opcode.BINARY, payload).serialize(mask=True))


def open_sockets_of(pid: int) -> int:
    """How many sockets a process holds, those to its services among them (Linux)."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:
            continue  # closed while we looked
    return sum(link.startswith("socket:") for link in links)
