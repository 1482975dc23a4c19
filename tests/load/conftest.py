"""A worker with short bounds, for what takes most of a minute with those of a deployment."""

from collections.abc import Iterator

import pytest

from tests.clients.stack import Stack
from tests.conftest import Ground


def one_worker(ground: Ground, **bounds: str) -> Stack:
    """One worker where anyone opens any room; `bounds` are settings of Palimpsest."""
    return Stack(
        database=ground.database, redis_url=ground.redis_url, count=1, DEBUG="true", OPEN_ROOMS="true", **bounds
    )


@pytest.fixture(scope="session")
def hasty_stack(ground: Ground) -> Iterator[Stack]:
    """It waits for nobody long."""
    with one_worker(
        ground, PING_SECONDS="1", REQUEST_SECONDS="1", CLOSE_SECONDS="1", STALLED_READER_SECONDS="1"
    ) as stack:
        yield stack
