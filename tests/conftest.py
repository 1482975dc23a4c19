"""Services and worker processes that the client and browser tests share; none starts before a test asks for it."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django import DjangoDbBlocker

from config.stack.accounts import scratch_folder
from config.stack.services import Postgres, Valkey, scratch_services
from tests.clients.driver import NodeClients
from tests.clients.stack import Database, Stack, migrated_database, redis_url_apart

# How long an example takes, to make or to try, is no result of a test.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")


@dataclass(frozen=True, slots=True)
class Ground:
    """Running services with a migrated database of our own."""

    database: Database
    redis_url: str


@dataclass(frozen=True, slots=True)
class BreakableGround:
    """As `Ground`, on servers that a test may kill: they are nobody else's."""

    database: Database
    postgres: Postgres
    valkey: Valkey


@pytest.fixture(scope="session")
def ground(django_db_blocker: DjangoDbBlocker) -> Iterator[Ground]:
    given = os.environ.get("DATABASE_URL", ""), os.environ.get("REDIS_URL", "")
    with (
        scratch_services(*given, syncs=False) as running,
        migrated_database(running.database_url, django_db_blocker) as database,
    ):
        yield Ground(database, redis_url_apart(running.redis_url))


@pytest.fixture(scope="session")
def breakable_ground(django_db_blocker: DjangoDbBlocker) -> Iterator[BreakableGround]:
    with (
        scratch_folder() as folder,
        Postgres(folder / "postgres", shared_buffers="32MB", syncs=False) as postgres,
        Valkey(folder / "valkey") as valkey,
        migrated_database(postgres.url, django_db_blocker) as database,
    ):
        yield BreakableGround(database, postgres, valkey)


@pytest.fixture(scope="session")
def open_stack(ground: Ground) -> Iterator[Stack]:
    """Two workers where anyone opens any room."""
    with Stack(database=ground.database, redis_url=ground.redis_url, DEBUG="true", OPEN_ROOMS="true") as stack:
        yield stack


@pytest.fixture(scope="session")
def members_stack(ground: Ground) -> Iterator[Stack]:
    """Two workers as in production: members alone get in."""
    with Stack(database=ground.database, redis_url=ground.redis_url) as stack:
        yield stack


@pytest.fixture
async def node() -> AsyncIterator[NodeClients]:
    async with NodeClients() as running:
        yield running
