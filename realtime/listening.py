"""This process's ears in groups of the channel layer, for all its sockets: one channel for each group.

What the layer loses is lost: whoever must not miss anything compares with the database."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from channels.layers import get_channel_layer

from documents.conf import conf

logger = logging.getLogger(__name__)

Listener: TypeAlias = Callable[[dict[str, Any]], None]
"""Is called with each message of a group, on the event loop; it does not wait."""


class Groups:
    """The groups in which somebody here listens. All methods run on the event loop."""

    def __init__(self) -> None:
        self._layer = get_channel_layer()
        self._ears: dict[str, _Ear] = {}
        self._leaving: list[_Ear] = []
        """Which the layer has yet to take out of their groups."""

    def __len__(self) -> int:
        return len(self._ears)

    async def join(self, group: str, listener: Listener) -> None:
        """Have `listener` called with all that is sent to a group from now on; a layer that is away is tried again.
        Returns once the layer knows, or after LAYER_TIMEOUT_SECONDS."""
        if self._layer is None:
            return
        ear = self._ears.get(group)
        if ear is None:
            ear = self._ears[group] = _Ear(self._layer, group)
        ear.listeners.append(listener)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(conf().layer_timeout_seconds):
                await ear.is_joined.wait()

    async def leave(self, group: str, listener: Listener) -> None:
        """Call it no more; the last of a group takes the process out of it. Twice is once."""
        ear = self._ears.get(group)
        if ear is None:
            return
        with contextlib.suppress(ValueError):
            ear.listeners.remove(listener)
        if not ear.listeners:
            del self._ears[group]
            if not await ear.close() and len(self._leaving) < conf().sockets_max:  # else it is forgotten in a day
                self._leaving.append(ear)

    async def check(self) -> None:
        """Called by the watch: leave the groups that could not be left. What nobody takes would fill this process's
        channel."""
        while self._leaving and await self._leaving[-1].close():
            self._leaving.pop()

    def rejoin(self) -> None:
        """The layer has lost its groups: come back to all of them."""
        for ear in self._ears.values():
            ear.start()

    async def stop(self) -> None:
        ears, self._ears = self._ears, {}
        await asyncio.gather(*(ear.close() for ear in ears.values()))


class _Ear:
    """One group's channel, and who listens."""

    def __init__(self, layer: Any, group: str) -> None:
        self._layer = layer
        self._group = group
        self._channel: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.listeners: list[Listener] = []
        self.is_joined = asyncio.Event()
        self.start()

    def start(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.is_joined.clear()
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> bool:
        """Leave the group. Whether that could be done."""
        if self._task is not None:
            self._task.cancel()
        if self._channel is None:
            return True
        try:
            async with asyncio.timeout(conf().layer_timeout_seconds):
                await self._layer.group_discard(self._group, self._channel)
        except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
            logger.info("channel layer: group_discard failed: %s", type(error).__name__)
            return False
        return True

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(conf().layer_timeout_seconds):
                    if self._channel is None:
                        # Of the usual kind, as all in this process: of two kinds that are waited for, channels_redis
                        # takes from one while the other has its turn.
                        self._channel = await self._layer.new_channel()
                    await self._layer.group_add(self._group, self._channel)
                self.is_joined.set()
                while True:
                    self._tell(await self._layer.receive(self._channel))
            except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
                logger.info("channel layer: cannot listen: %s", type(error).__name__)
                await asyncio.sleep(conf().layer_timeout_seconds)

    def _tell(self, message: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            try:
                listener(message)
            except Exception as error:  # noqa: BLE001  (anyone on the layer can send anything)
                logger.warning("channel layer: a message that is none of ours: %s", type(error).__name__)
