"""A hundred SIGKILLs in the middle of squash: nothing is lost, nothing is there twice. And the check can fail: with a
guard of squash taken out of the workers, a run is red. `make faults ARGS="--squash-kills 1000"` is the long form."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.clients.stack import Database, migrated_database, redis_url_apart
from tests.conftest import BreakableGround
from tests.faults.squash_kills import SquashKills

logger = logging.getLogger(__name__)

SEED = int(os.environ.get("FAULTS_SEED", "20261120"))
KILLS = 100
UNGUARDED_KILLS = 10


@pytest.fixture
def database(breakable_ground: BreakableGround, django_db_blocker: DjangoDbBlocker) -> Iterator[Database]:
    """Of its own: everything in it is cold."""
    with migrated_database(breakable_ground.postgres.url, django_db_blocker) as database:
        yield database


@pytest.fixture
def redis_url(breakable_ground: BreakableGround) -> str:
    return redis_url_apart(breakable_ground.valkey.url, 8)


@pytest.mark.timeout(900)
def test_a_hundred_kills_in_the_middle_of_squash_lose_nothing_and_leave_nothing_twice(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    logger.warning("seed of this run: %d (FAULTS_SEED=%d repeats it)", SEED, SEED)
    result = SquashKills(database, redis_url, tmp_path, seed=SEED).run(KILLS)
    summary = "\n".join(result.lines())
    logger.warning("%s", summary)
    assert not result.wrong, summary
    assert result.kills.total() == KILLS
    assert set(result.kills) > {"at a random moment", "of a whole worker"}
    assert result.packed > 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("taken_out", ["transaction", "order"])
def test_a_squash_without_its_guards_is_found_out(
    taken_out: str, database: Database, redis_url: str, tmp_path: Path
) -> None:
    kills = SquashKills(database, redis_url, tmp_path, seed=SEED, unguarded=taken_out)
    result = kills.run(UNGUARDED_KILLS)
    logger.warning("%s", "\n".join(result.lines()))
    assert [line for line in result.wrong if line.startswith("squashed ")]
