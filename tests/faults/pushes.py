"""What the run asks of Celery: edits of the server's own, and the upkeep of histories. The broker may be away."""

import asyncio
import base64
import contextlib
import itertools

from celery import Celery
from kombu.exceptions import OperationalError
from pycrdt import Array, Doc
from redis.exceptions import RedisError

SEND_SECONDS = 5.0


class Pushes:
    """Sends `push_document_update`, each with a token `task.<number>` under a client id of its own, until the broker
    has taken it; the task's id makes it one edit however often it runs. `tokens` and `clients` by room."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery(
            broker=broker_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
        )
        self._numbers = itertools.count(1)
        self.tokens: dict[str, set[str]] = {}
        self.clients: dict[str, set[int]] = {}

    async def push(self, room: str) -> None:
        token = f"task.{next(self._numbers)}"
        doc: Doc[Array[str]] = Doc()
        doc.get("seen", type=Array).append(token)
        self.clients.setdefault(room, set()).add(doc.client_id)
        update = base64.b64encode(doc.get_update()).decode()
        self.tokens.setdefault(room, set()).add(token)
        while not await self._sent("realtime.tasks.push_document_update", (room, update), token):
            await asyncio.sleep(0.2)

    async def keep_up(self) -> None:
        """Ask for snapshots and squashes, as the schedule of a stack does; one that is lost is made up by the next."""
        for task in ("history.tasks.sweep_snapshots", "history.tasks.squash_cold_rows"):
            await self._sent(task, (), None)

    async def _sent(self, task: str, args: tuple[str, ...], task_id: str | None) -> bool:
        send = asyncio.to_thread(self._app.send_task, task, args, task_id=task_id, retry=False, ignore_result=True)
        with contextlib.suppress(OperationalError, RedisError, OSError):
            await send
            return True
        return False

    def close(self) -> None:
        self._app.close()
