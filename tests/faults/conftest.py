"""A crowd, and a stack of its own for each test: these tests break everything that they stand on."""

from collections.abc import AsyncIterator

import pytest

from tests.clients.crowd import Crowd


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    async with Crowd() as running:
        yield running
