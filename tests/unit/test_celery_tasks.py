"""What every task must be for a worker to die with it in hand: acknowledged late, bounded, soon visible again."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import QueueNotFound

from config.celery import app
from realtime.queues import HOUSEKEEPING, PUSHES, QUEUES, TASK_ROUTES

app.loader.import_default_modules()
PUSH = "realtime.tasks.push_document_update"
OURS = sorted(name for name in app.tasks if not name.startswith("celery."))
HELD_BACK_SECONDS_MAX = 300
"""For so long may a push be nowhere when a worker was killed with all its processes."""


def test_every_task_of_the_schedule_is_there() -> None:
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} | {
        "history.tasks.undo_everywhere",
        PUSH,
    } == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_task_is_delivered_again_when_its_worker_dies_and_ends_in_time(name: str) -> None:
    task: Any = app.tasks[name]
    assert task.acks_late is True
    assert task.reject_on_worker_lost is True
    assert 0 < task.time_limit < app.conf.broker_transport_options["visibility_timeout"] <= HELD_BACK_SECONDS_MAX


def test_it_is_the_tasks_that_say_so_and_not_this_projects_settings() -> None:
    """They run in other projects too, under other settings."""
    assert not app.conf.task_acks_late
    assert not app.conf.task_reject_on_worker_lost


def test_every_task_has_a_queue_and_every_queue_is_taken_from() -> None:
    """A task without a route would stand where no worker looks, or before a person."""
    assert set(TASK_ROUTES) == set(OURS)
    assert {app.amqp.router.route({}, name)["queue"].name for name in OURS} == set(QUEUES) == set(app.amqp.queues)
    assert {PUSHES, *HOUSEKEEPING} == set(QUEUES)


def test_nothing_stands_in_the_queue_of_pushes_but_what_a_person_waits_for() -> None:
    assert [name for name, route in TASK_ROUTES.items() if route["queue"] == PUSHES] == [PUSH]


def test_a_queue_that_nobody_takes_from_is_refused() -> None:
    with pytest.raises(QueueNotFound):
        app.amqp.router.route({"queue": "palimpsest.push"}, PUSH)


@pytest.mark.parametrize("entry", app.conf.beat_schedule.values(), ids=app.conf.beat_schedule)
def test_a_turn_of_the_schedule_that_still_waits_when_the_next_one_comes_is_dropped(entry: dict[str, Any]) -> None:
    schedule = entry["schedule"]
    period = schedule if isinstance(schedule, float) else 24 * 3600  # a crontab here is one time of the day
    assert entry["options"]["expires"] == period


def test_a_sample_is_verified_every_night() -> None:
    schedule = app.conf.beat_schedule["verify"]["schedule"]
    assert (schedule.hour, schedule.minute) == ({3}, {30})
    assert len(schedule.day_of_week) == 7


@pytest.mark.parametrize("given", ["25:00", "at night"])
def test_a_time_of_the_night_that_is_none_is_refused_in_one_sentence(given: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import config.settings"],
        env={**os.environ, "SECRET_KEY": "only for tests", "VERIFY_AT": given},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"VERIFY_AT must be a time of day such as 03:30, not {given!r}." in done.stderr
