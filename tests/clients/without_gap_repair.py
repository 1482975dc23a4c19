"""The application with gap repair taken out: what no hint brings is never read from the log.

For one test, which must then fail; it also shows what hints alone can do."""

from typing import Any
from unittest.mock import patch

from config.asgi import application
from realtime.hub import Hub
from realtime.rooms import Room

__all__ = ["application"]


async def _nothing(self: Any) -> None:
    """Read nothing."""


patch.object(Room, "catch_up", _nothing).start()
patch.object(Hub, "_check_heads", _nothing).start()
