"""The application with the commit guard taken out: an edit is shown to the writer's room before it is stored.

For one test, which must then fail."""

from typing import Any
from unittest.mock import patch

from config.asgi import application
from realtime.frames import SharedMessage
from realtime.protocols.frames import encode_update
from realtime.rooms import Room

__all__ = ["application"]

_write = Room.write


async def _show_and_write(self: Room, writer: Any, update: bytes, *, may_ask: bool) -> None:
    for connection in self.connections:
        if connection is not writer:
            connection.deliver(SharedMessage(encode_update(update)), seq=self.seq)
    await _write(self, writer, update, may_ask=may_ask)


patch.object(Room, "write", _show_and_write).start()
