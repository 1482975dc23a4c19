"""The application with the commit guard taken out: an edit is shown to the writer's room before it is stored.

For one test, which must then fail."""

from typing import Any
from unittest.mock import patch

from config.asgi import application
from realtime.frames import SharedMessage
from realtime.protocols.messages import Update
from realtime.rooms import Room

__all__ = ["application"]

_write = Room.write


async def _show_and_write(self: Room, writer: Any, update: bytes, **how: Any) -> None:
    for member in self.members:
        if member is not writer:
            member.deliver(SharedMessage(Update(update)), seq=self.seq)
    await _write(self, writer, update, **how)


patch.object(Room, "write", _show_and_write).start()
