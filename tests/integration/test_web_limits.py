"""What the worker's uvicorn does about addresses, long frames and those who are not read for a while."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from config.server import Server, make_config
from config.stack.web import listen
from documents.conf import conf
from realtime.uvicorn_protocol import SharedFrameProtocol
from tests.integration.test_stack_web import restored_loggers, serve

pytestmark = [pytest.mark.usefixtures("restored_loggers")]
__all__ = ["restored_loggers"]


class Application:
    """Says who it thinks the client is, then how long each message was; reads only while `reads` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps([scope["client"][0], scope["scheme"]])})
        while (message := await receive())["type"] == "websocket.receive":
            await self.reads.wait()
            await send({"type": "websocket.send", "text": str(len(message["bytes"]))})


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[str]:
    server = Server(make_config(application))
    listener = listen("127.0.0.1", 0)
    task = await serve(server, listener)
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws/x"
    finally:
        server.should_exit = True
        await task


async def said_by(address: str, forwarded: str) -> list[str]:
    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
    async with connect(address, additional_headers=headers) as client:
        said: list[str] = json.loads(await client.recv())
        return said


async def test_only_a_trusted_proxy_says_where_a_socket_comes_from(settings: Any) -> None:
    async with serving(Application()) as address:
        assert await said_by(address, "192.0.2.7") == ["127.0.0.1", "ws"]
    settings.TRUSTED_PROXIES = ["127.0.0.0/8"]
    async with serving(Application()) as address:
        assert await said_by(address, "192.0.2.7") == ["192.0.2.7", "wss"]
        # What the client itself wrote into the header stands before what the proxy saw.
        assert await said_by(address, "203.0.113.9, 192.0.2.7") == ["192.0.2.7", "wss"]


async def test_the_server_takes_frames_as_long_as_the_longest_setting_and_no_longer(settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "FRAME_BYTES_MAX": 1000, "SYNC_FRAME_BYTES_MAX": 2000}
    async with serving(Application()) as address, connect(address, compression=None) as client:
        await client.recv()
        await client.send(bytes(conf().sync_frame_bytes_max))
        assert await client.recv() == "2000"
        await client.send(bytes(2001))
        await asyncio.wait_for(client.wait_closed(), 30)
        assert client.close_code == 1009


async def flood(client: ClientConnection) -> None:
    for _ in range(60):
        await client.send(bytes(256 * 1024))


async def test_who_is_not_read_for_long_is_slowed_by_his_socket_and_not_taken_for_dead(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 MB that nobody reads stand in the client, not in this process; its pong stands behind them."""

    settings.PALIMPSEST = {**settings.PALIMPSEST, "PING_SECONDS": 0.1}
    unanswered = asyncio.Semaphore(0)
    judge = SharedFrameProtocol.keepalive_timeout

    def counted(protocol: SharedFrameProtocol) -> None:
        unanswered.release()
        judge(protocol)

    monkeypatch.setattr(SharedFrameProtocol, "keepalive_timeout", counted)
    application = Application()
    async with (
        serving(application) as address,
        connect(address, compression=None, ping_interval=None) as client,
    ):
        await client.recv()
        application.reads.clear()
        sending = asyncio.create_task(flood(client))
        for _ in range(4):
            await asyncio.wait_for(unanswered.acquire(), 30)
        assert not sending.done()
        application.reads.set()
        for _ in range(60):
            assert await asyncio.wait_for(client.recv(), 30) == str(256 * 1024)
        await sending
