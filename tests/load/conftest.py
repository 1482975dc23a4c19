"""A worker with short bounds, for what takes most of a minute with those of a deployment."""

from collections.abc import Iterator

import pytest

from tests.clients.stack import Stack
from tests.conftest import Ground


@pytest.fixture(scope="session")
def hasty_stack(ground: Ground) -> Iterator[Stack]:
    """One worker that waits for nobody long; rooms are open."""
    with Stack(
        database=ground.database,
        redis_url=ground.redis_url,
        count=1,
        DEBUG="true",
        OPEN_ROOMS="true",
        PING_SECONDS="1",
        REQUEST_SECONDS="1",
        CLOSE_SECONDS="1",
    ) as stack:
        yield stack


@pytest.fixture
def narrow_stack(ground: Ground) -> Iterator[Stack]:
    """One worker that takes next to nothing while the database is slow, and pings often."""
    with Stack(
        database=ground.database,
        redis_url=ground.redis_url,
        count=1,
        DEBUG="true",
        OPEN_ROOMS="true",
        PING_SECONDS="1",
        UNSTORED_BYTES_MAX="1000",
        APPEND_LOCK_TIMEOUT_MS="60000",
    ) as stack:
        yield stack
