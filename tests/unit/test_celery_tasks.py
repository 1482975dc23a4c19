"""What every task must be for a worker to die with it in hand: acknowledged late, bounded, soon visible again."""

from typing import Any

import pytest

from config.celery import app

app.loader.import_default_modules()
OURS = sorted(name for name in app.tasks if not name.startswith("celery."))
HELD_BACK_SECONDS_MAX = 300
"""For so long may a push be nowhere when a worker was killed with all its processes."""


def test_every_task_of_the_schedule_is_there() -> None:
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} | {
        "history.tasks.undo_everywhere",
        "realtime.tasks.push_document_update",
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
