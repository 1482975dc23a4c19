"""The project's own ASGI application, door by door."""

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
    assert "/ws/<room>" in closing["reason"]


async def test_a_socket_that_comes_while_the_database_is_away_is_asked_to_come_again() -> None:
    async def session_from_a_database_that_is_away(scope: Any, receive: Any, send: Any) -> None:
        raise OperationalError("connection refused")

    socket: Any = Communicator(WhileDatabaseIsAway(session_from_a_database_that_is_away), {"type": "websocket"})
    await socket.send_input({"type": "websocket.connect"})
    assert (await socket.receive_output(timeout=10))["type"] == "websocket.accept"
    assert (await socket.receive_output(timeout=10))["code"] == 1013
