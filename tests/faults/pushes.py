"""What the run asks of Celery: edits of the server's own, and the upkeep of histories. The broker may be away."""

import asyncio
import base64
import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from celery import Celery
from kombu.exceptions import OperationalError
from pycrdt import Array, Doc
from redis.exceptions import RedisError

from realtime.queues import TASK_ROUTES

RETRY_SECONDS = 0.2
LOST_SECONDS = 30.0
"""Then the broker has lost a task: Valkey may lose what came in the last two seconds before a SIGKILL (its file is
written once a second), and kombu takes a message from the queue before it notes who has it. What a killed Celery worker
had in hand comes back after 15 s (tests/faults/settings.py)."""


@dataclass(slots=True)
class Push:
    """One edit that Celery was asked for. Its token is the task's id as well: it is one edit however often it runs."""

    token: str
    room: str
    update: str
    sent_at: float = field(default_factory=time.monotonic)


class Pushes:
    """Sends `push_document_update`, each with a token `task.<number>` and a client id of its own. `announce` is told of
    the room and the client id before the broker is: Celery is quick."""

    def __init__(self, broker_url: str, *, announce: Callable[[str, int], None] = lambda room, client: None) -> None:
        self._announce = announce
        broker = broker_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
        self._app = Celery(broker=broker)
        self._app.conf.task_routes = TASK_ROUTES
        self._numbers = itertools.count(1)
        self._pushes: dict[str, list[Push]] = {}
        self.resent = 0

    async def push(self, room: str) -> None:
        """Ask for one more edit; return when the broker has taken it."""
        token = f"task.{next(self._numbers)}"
        doc: Doc[Array[str]] = Doc()
        doc.get("seen", type=Array).append(token)
        self._announce(room, doc.client_id)
        push = Push(token, room, base64.b64encode(doc.get_update()).decode())
        self._pushes.setdefault(room, []).append(push)
        await self._send(push)

    def missing(self, room: str, seen: set[str]) -> list[Push]:
        """The edits of a room that nobody has seen yet."""
        return [push for push in self._pushes.get(room, []) if push.token not in seen]

    async def send_lost_again(self, missing: list[Push]) -> None:
        """Send those again that were sent long ago, as somebody would who wants to be sure."""
        for push in missing:
            if time.monotonic() - push.sent_at > LOST_SECONDS:
                self.resent += 1
                await self._send(push)

    @property
    def count(self) -> int:
        return sum(len(pushes) for pushes in self._pushes.values())

    async def keep_up(self) -> None:
        """Ask for snapshots and squashes, as the schedule of a stack does; one that is lost is made up by the next."""
        for task in ("history.tasks.sweep_snapshots", "history.tasks.squash_cold_rows"):
            await self._is_sent(task, (), None)

    async def _send(self, push: Push) -> None:
        arguments = push.room, push.update
        while not await self._is_sent("realtime.tasks.push_document_update", arguments, push.token):
            await asyncio.sleep(RETRY_SECONDS)
        push.sent_at = time.monotonic()

    async def _is_sent(self, task: str, args: tuple[str, ...], task_id: str | None) -> bool:
        send = asyncio.to_thread(self._app.send_task, task, args, task_id=task_id, retry=False, ignore_result=True)
        with contextlib.suppress(OperationalError, RedisError, OSError):
            await send
            return True
        return False

    def close(self) -> None:
        self._app.close()
