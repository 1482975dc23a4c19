"""Celery's worker away, killed in the middle, or given the same message twice: each push is in the log once."""

import asyncio
import base64
import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from history.models import Via
from tests.clients.celery_worker import CeleryWorker, celery_worker, queue_push
from tests.clients.driver import NodeClients
from tests.clients.stack import Stack, a_room, assert_log_holds, until
from tests.clients.test_pushes import update_with

LOCK_HEAD = """
SELECT 1 FROM history_head head JOIN documents_document document ON document.id = head.document_id
WHERE document.name = %s FOR UPDATE OF head
"""
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
START_SECONDS = 40.0


@pytest.fixture
def worker(open_stack: Stack, tmp_path: Path) -> Iterator[CeleryWorker]:
    with celery_worker(open_stack, tmp_path / "worker.log") as running:
        yield running


def base64_with(words: str) -> str:
    return base64.b64encode(update_with(words)).decode()


def a_task_id() -> str:
    return f"task-{secrets.token_hex(8)}"


def task_rows(stack: Stack, room: str) -> int:
    return sum(row.via == Via.TASK for row in stack.database.rows(room))


def someone_waits(connection: "psycopg.Connection[Any]") -> bool:
    return connection.execute(WAITING).fetchone() is not None


async def test_with_no_worker_people_edit_on_and_a_push_arrives_once_when_one_starts(
    open_stack: Stack, node: NodeClients, tmp_path: Path
) -> None:
    room = a_room("worker away")
    ann = await open_stack.join(node, "ann", room, on=0)
    ben = await open_stack.join(node, "ben", room, on=1)

    await asyncio.to_thread(queue_push, open_stack, room, base64_with("pushed"), task_id=a_task_id())
    await ann.type("typed meanwhile")
    await ben.watch("typed meanwhile")
    assert (await ben.seen(), task_rows(open_stack, room)) == ("typed meanwhile", 0)

    with celery_worker(open_stack, tmp_path / "worker.log"):
        await ann.watch("pushed", timeout_seconds=START_SECONDS)
        await ben.watch("pushed")
    assert (await ben.seen()).count("pushed") == task_rows(open_stack, room) == 1
    await assert_log_holds(open_stack, node, room, ann, ben)


async def test_a_task_whose_process_is_killed_in_its_middle_runs_again_and_is_in_the_log_once(
    open_stack: Stack, node: NodeClients, worker: CeleryWorker
) -> None:
    room = a_room("worker killed")
    ann = await open_stack.join(node, "ann", room)
    await ann.type("typed before")
    await until("it is stored", lambda: open_stack.database.rows(room))

    with open_stack.database.connect() as holding, open_stack.database.connect() as looking, holding.transaction():
        holding.execute(LOCK_HEAD, [room])
        await asyncio.to_thread(queue_push, open_stack, room, base64_with("pushed"), task_id=a_task_id())
        await until("the task waits", lambda: someone_waits(looking), timeout_seconds=START_SECONDS)
        (killed,) = worker.children()
        os.kill(killed, signal.SIGKILL)
        await until("another process works", lambda: worker.children() not in ([], [killed]))

    await ann.watch("pushed", timeout_seconds=START_SECONDS)
    assert task_rows(open_stack, room) == 1
    await assert_log_holds(open_stack, node, room, ann)


async def test_a_message_that_comes_twice_is_stored_once_and_answered_twice(
    open_stack: Stack, node: NodeClients, worker: CeleryWorker
) -> None:
    room = a_room("message twice")
    ann = await open_stack.join(node, "ann", room)
    task_id = a_task_id()

    await asyncio.to_thread(queue_push, open_stack, room, base64_with("pushed"), task_id=task_id, times=2)
    answered = re.compile(rf"\[{task_id}\] succeeded in [\d.]+s: (\w+)")
    await until("both ran", lambda: len(answered.findall(worker.log)) == 2, timeout_seconds=START_SECONDS)

    assert answered.findall(worker.log) == ["1", "1"]  # the second was known by its id: it names the first one's seq
    await ann.watch("pushed")
    assert [row.via for row in open_stack.database.rows(room)] == [Via.TASK]


async def test_a_turn_of_the_schedule_that_nobody_began_in_time_is_dropped(
    open_stack: Stack, worker: CeleryWorker
) -> None:
    late, in_time = a_task_id(), a_task_id()
    code = (
        "from history.tasks import sweep_snapshots\n"
        f"sweep_snapshots.apply_async(task_id={late!r}, expires=-1)\n"
        f"sweep_snapshots.apply_async(task_id={in_time!r}, expires=600)"
    )
    await asyncio.to_thread(open_stack.manage, "shell", "--no-imports", "-c", code)
    ended = re.compile(r"\[(task-\w+)\] succeeded")
    await until("the later one ran", lambda: in_time in ended.findall(worker.log), timeout_seconds=START_SECONDS)
    assert late not in ended.findall(worker.log)
    assert f"Discarding revoked task: history.tasks.sweep_snapshots[{late}]" in worker.log
