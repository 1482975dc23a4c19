"""A channel layer as bad as its contract allows: it drops, repeats, delays and so reorders what is sent to groups.

For stacks under test, in front of the real Redis layer; tests/faults/settings.py puts it there."""

import asyncio
import random
from typing import Any

from channels_redis.core import RedisChannelLayer


class LossyRedisChannelLayer(RedisChannelLayer):  # type: ignore[misc]  # channels_redis has no types
    """`drop`, `repeat` and `delay` are the shares of messages to which that happens; a delayed one comes up to
    `delay_seconds_max` later, behind those that were sent after it."""

    def __init__(
        self,
        *args: Any,
        seed: int,
        drop: float = 0.0,
        repeat: float = 0.0,
        delay: float = 0.0,
        delay_seconds_max: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._random = random.Random(seed)
        self._drop, self._repeat, self._delay = drop, repeat, delay
        self._delay_seconds_max = delay_seconds_max
        self._late: set[asyncio.Task[None]] = set()

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if self._random.random() < self._drop:
            return
        for _ in range(2 if self._random.random() < self._repeat else 1):
            if self._random.random() < self._delay:
                task = asyncio.create_task(self._send_late(group, message))
                self._late.add(task)
                task.add_done_callback(self._late_ended)
            else:
                await super().group_send(group, message)

    async def _send_late(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(self._random.uniform(0, self._delay_seconds_max))
        await super().group_send(group, message)

    def _late_ended(self, task: "asyncio.Task[None]") -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # the layer was away: the message is lost, as any may be
