"""The soaked application with a leak: every socket leaves a task and a key behind.

For one test, which must then fail."""

import asyncio
from typing import Any
from unittest.mock import patch

from channels.layers import get_channel_layer

from realtime.outbox import Outbox
from tests.soak.counted import application

__all__ = ["application"]

_close = Outbox.close
_kept: set["asyncio.Task[Any]"] = set()


async def _stay() -> None:
    await get_channel_layer().group_add(f"left-{id(asyncio.current_task())}", "nobody")
    await asyncio.Event().wait()


def _leave_something(self: Outbox) -> None:
    _close(self)
    _kept.add(asyncio.create_task(_stay()))


patch.object(Outbox, "close", _leave_something).start()
