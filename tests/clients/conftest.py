"""Worker processes that tests may kill."""

from collections.abc import Iterator

import pytest

from tests.clients.stack import Stack
from tests.conftest import Ground


@pytest.fixture(scope="session")
def mortal_stack(ground: Ground) -> Iterator[Stack]:
    """Two workers for tests that kill them and start them again; rooms are open."""
    with Stack(database=ground.database, redis_url=ground.redis_url, DEBUG="true", OPEN_ROOMS="true") as stack:
        yield stack
