"""A minute of every fault while people type: nothing that anyone saw is lost, nothing is anyone else's, all agree.

The schedule comes from a seed, which the log of the test names. And the checks can fail: each guard that is taken out
turns a run red. The long form is `make faults`."""

import logging
import os
from dataclasses import replace

import pytest
from pytest_django import DjangoDbBlocker

from tests.clients.crowd import Crowd
from tests.faults.ground import LOSS, faulty_ground
from tests.faults.plan import EACH_ONCE, LONG, Fault, plan
from tests.faults.run import FaultRun, Result, Size

logger = logging.getLogger(__name__)

SEED = int(os.environ.get("FAULTS_SEED", "20261120"))
MINUTE = {**EACH_ONCE, Fault.WORKER: 4, Fault.ALL_WORKERS: 2, Fault.POSTGRES: 2, Fault.VALKEY: 2}
SMALL = Size(rooms=4, interval_ms=100, room_edits_max=400)
FEW = Size(rooms=3, interval_ms=40, room_edits_max=10_000, pushes=False, agree_seconds=10)


@pytest.mark.timeout(400)
async def test_a_minute_of_every_fault_loses_nothing_and_attributes_nothing_wrongly(
    crowd: Crowd, django_db_blocker: DjangoDbBlocker
) -> None:
    logger.warning("seed of this run: %d (FAULTS_SEED=%d repeats its schedule)", SEED, SEED)
    with faulty_ground(django_db_blocker, seed=SEED, LOG_LEVEL="CRITICAL", **LOSS) as ground:
        run = FaultRun(ground, crowd, seed=SEED, size=SMALL, say=logger.warning)
        result = await run.go(plan(SEED, MINUTE, pause_seconds=1))
    summary = "\n".join(result.lines())
    logger.warning("%s", summary)
    assert not result.wrong, summary
    assert {**result.faults, **dict.fromkeys(result.left_out, 0)}.keys() == MINUTE.keys()
    assert result.seen > 0


async def run_unguarded(
    crowd: Crowd,
    blocker: DjangoDbBlocker,
    application: str,
    faults: dict[Fault, int],
    *,
    size: Size = FEW,
    **environment: str,
) -> Result:
    environment = {"LOG_LEVEL": "CRITICAL", **environment}
    with faulty_ground(blocker, seed=SEED, application=f"{application}:application", **environment) as ground:
        return await FaultRun(ground, crowd, seed=SEED, size=size).go(plan(SEED, faults, pause_seconds=1.5))


@pytest.mark.timeout(200)
async def test_showing_edits_before_their_commit_would_be_noticed(
    crowd: Crowd, django_db_blocker: DjangoDbBlocker
) -> None:
    result = await run_unguarded(
        crowd,
        django_db_blocker,
        "tests.clients.showing_before_commit",
        {Fault.ALL_WORKERS: 10},
        size=replace(FEW, agree_seconds=1),  # it is found before anybody has to agree
    )
    assert any("edits that others saw are not in the log" in finding for finding in result.wrong)


@pytest.mark.timeout(200)
async def test_a_missing_gap_repair_would_be_noticed(crowd: Crowd, django_db_blocker: DjangoDbBlocker) -> None:
    result = await run_unguarded(
        crowd,
        django_db_blocker,
        "tests.clients.without_gap_repair",
        {Fault.VALKEY: 2},  # no worker's death, after which everybody would come anew and be told all
        FAULTS_DROP="0.5",
    )
    # Some hold less than others; or all who are there hold the same, and the log more.
    found = "no agreement", "its clients hold something else than its log"
    assert any(each in finding for finding in result.wrong for each in found), "\n".join(result.lines())


@pytest.mark.timeout(200)
async def test_a_missing_write_gate_would_be_noticed(crowd: Crowd, django_db_blocker: DjangoDbBlocker) -> None:
    result = await run_unguarded(
        crowd, django_db_blocker, "tests.faults.without_write_gate", {Fault.WORKER: 4, Fault.POSTGRES: 1}
    )
    assert any("not in causal order" in finding for finding in result.wrong), "\n".join(result.lines())


def test_a_seed_decides_the_schedule() -> None:
    assert plan(7, LONG, pause_seconds=3) == plan(7, LONG, pause_seconds=3) != plan(8, LONG, pause_seconds=3)
    assert sum(planned.fault is Fault.CELERY for planned in plan(7, LONG, pause_seconds=3)) == LONG[Fault.CELERY]
