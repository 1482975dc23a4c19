"""A short soak, and proof that a soak can fail."""

import logging
from dataclasses import replace

import pytest
from django.conf import settings

from config.stack.configuration import base_environment
from tests.conftest import Ground
from tests.soak.counts import Counts, Sample, drift_percent, grown, least
from tests.soak.run import Outcome, soak

logger = logging.getLogger(__name__)

AT_REST = Counts(tasks=14, threads=15, rooms=0, sockets=0, file_descriptors=44, postgres_connections=11, valkey_keys=1)


def short_soak(ground: Ground, *, application: str = "tests.soak.counted:application") -> Outcome:
    env = {
        **base_environment(),
        "DATABASE_URL": ground.database.url,
        "REDIS_URL": ground.redis_url,
        "SECRET_KEY": settings.SECRET_KEY,
    }
    return soak(
        env,
        stages=3,
        warm_up_seconds=1,
        seconds=1,
        look_every_seconds=1,
        seed=1,
        pause_seconds=0.05,
        application=application,
    )


@pytest.mark.timeout(300)
def test_after_people_have_come_and_gone_a_stack_holds_what_it_held_before(ground: Ground) -> None:
    outcome = short_soak(ground)
    drifts = ", ".join(f"{drift:+.1f}%" for drift in outcome.drift_percent)
    logger.warning("%d scenes, %d edits; memory of the workers: %s", outcome.scenes, outcome.edits, drifts)
    assert outcome.grown == {}


@pytest.mark.timeout(300)
def test_a_socket_that_leaves_something_behind_is_noticed(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soak.run.REST_SECONDS_MAX", 5.0)  # it never comes to rest as it was
    outcome = short_soak(ground, application="tests.soak.holding_on:application")
    assert {"tasks", "valkey_keys"} <= set(outcome.grown)
    assert not outcome.passes


def sample(*megabytes: int) -> Sample:
    return Sample(counts=AT_REST, memory_bytes=tuple(each * 2**20 for each in megabytes))


@pytest.mark.parametrize("name", ["tasks", "threads", "rooms", "file_descriptors", "postgres_connections"])
def test_one_more_of_anything_at_rest_fails_a_soak(name: str) -> None:
    more = replace(AT_REST, **{name: getattr(AT_REST, name) + 1})
    outcome = Outcome(edits=1, scenes=1, rested=(AT_REST, more), samples=[sample(100)] * 20)
    assert outcome.grown == {name: (getattr(AT_REST, name), getattr(more, name))}
    assert not outcome.passes


def test_less_of_anything_at_rest_is_no_growth() -> None:
    assert grown(AT_REST, replace(AT_REST, threads=AT_REST.threads - 1)) == {}


def test_memory_that_climbs_in_one_worker_fails_a_soak() -> None:
    climbing = [sample(100, 100 + number) for number in range(20)]
    first, second = drift_percent(climbing)
    assert first == 0
    assert second > 5
    assert not Outcome(edits=1, scenes=1, rested=(AT_REST, AT_REST), samples=climbing).passes
    steady = [sample(100, 100 + number % 3) for number in range(40)]
    assert Outcome(edits=1, scenes=1, rested=(AT_REST, AT_REST), samples=steady).passes


def test_work_of_a_moment_is_not_counted_as_what_rests() -> None:
    busy = Sample(counts=replace(AT_REST, tasks=AT_REST.tasks + 3), memory_bytes=(1,))
    assert least([busy, sample(1), busy]) == AT_REST
