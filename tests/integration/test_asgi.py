"""The project's own ASGI application, door by door."""

import asyncio
from typing import Any

import pytest
from asgiref import testing
from django.db import OperationalError

from config.asgi import application
from realtime.doors import WhileDatabaseIsAway

Communicator: Any = testing.ApplicationCommunicator  # has no types


@pytest.mark.parametrize("path", ["/", "/welcome", "/ws", "/ws/", "/a\nb"])
async def test_a_socket_at_a_wrong_address_is_told_where_the_right_one_is(path: str) -> None:
    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "subprotocols": []}
    socket: Any = Communicator(application, scope)
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output(timeout=10))["type"] == "websocket.accept"
    closing = await socket.receive_output(timeout=10)
    assert (closing["type"], closing["code"]) == ("websocket.close", 4404)
    for door in ("/ws/<room>,", "/collaboration", "/ws/rooms/", "/ws/chat/", "/ws/notifications/"):
        assert door in closing["reason"]
    assert len(closing["reason"].encode()) <= 123


async def test_a_socket_that_comes_while_the_database_is_away_is_asked_to_come_again() -> None:
    async def session_from_a_database_that_is_away(scope: Any, receive: Any, send: Any) -> None:
        raise OperationalError("connection refused")

    socket: Any = Communicator(WhileDatabaseIsAway(session_from_a_database_that_is_away), {"type": "websocket"})
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output(timeout=10))["type"] == "websocket.accept"
    assert (await socket.receive_output(timeout=10))["code"] == 1013


async def test_a_socket_whose_session_the_database_does_not_bring_in_time_is_asked_to_come_again(settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "AUTHENTICATE_SECONDS": 0.05}
    was_cancelled = asyncio.Event()

    async def session_from_a_database_that_hangs(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    socket: Any = Communicator(WhileDatabaseIsAway(session_from_a_database_that_hangs), {"type": "websocket"})
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output(timeout=10))["type"] == "websocket.accept"
    assert (await socket.receive_output(timeout=10))["code"] == 1013
    assert was_cancelled.is_set()


async def test_once_it_is_accepted_a_socket_stays_as_long_as_it_likes(settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "AUTHENTICATE_SECONDS": 0.01}
    accepted, may_end = asyncio.Event(), asyncio.Event()

    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        accepted.set()
        await may_end.wait()

    socket: Any = Communicator(WhileDatabaseIsAway(consumer), {"type": "websocket"})
    await socket.send_input({"type": "websocket.connect"})
    await asyncio.wait_for(accepted.wait(), 10)
    late = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, late.set_result, None)  # five times the limit
    await late
    assert not socket.future.done()
    may_end.set()
    await socket.wait(timeout=10)
