from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from channels.layers import channel_layers
from django.db import connections
from pytest_django import Settings

from realtime.hub import Hub, current_hub, drain


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    """The hub of this test's event loop, as a worker process has one; ended with the test."""
    channel_layers.backends.clear()  # a layer belongs to one event loop, as it does in a worker process
    hub = current_hub()
    yield hub
    await drain()
    await sync_to_async(connections.close_all)()  # of the thread on which async tests reach the database


@pytest_asyncio.fixture
async def another_process(settings: Settings) -> AsyncIterator[Callable[[], Hub]]:
    """Makes further hubs on the same loop: what another worker process would have. End with the test."""
    hubs: list[Hub] = []
    # What these tests hear is not dropped on a busy machine.
    settings.PALIMPSEST = {"LAYER_TIMEOUT_SECONDS": 10.0, **settings.PALIMPSEST}

    def make() -> Hub:
        hubs.append(Hub())
        return hubs[-1]

    yield make
    for each in hubs:
        await each.stop()


@pytest.fixture
def no_watch(settings: Settings) -> None:
    """What happens in the test happens without the watch."""
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 600.0}


@pytest.fixture
def dead_layer(settings: Settings) -> None:
    """Nothing comes through the channel layer."""
    host = "unix:///nowhere/valkey"
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [host]}}
    }
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.1}
    channel_layers.backends.clear()


@pytest.fixture
def quick_watch(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 0.2}
