"""A real Celery worker on a stack's services, whose child tests may kill."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from config.stack.children import Child
from config.stack.configuration import PROJECT
from tests.clients.stack import Stack

COMMAND = (
    *(sys.executable, "-W", "ignore:You're running the worker", "-m", "celery", "-A", "config", "--quiet"),
    *("worker", "--concurrency", "1", "--loglevel", "INFO", "--without-gossip", "--without-mingle"),
)


class CeleryWorker:
    """As the stack runs it: one process that takes tasks from the broker, and one child that works (Linux).

    From all queues, unless `queues` are given; `options` are Celery's, `environment` stands above the stack's."""

    def __init__(self, stack: Stack, log: Path, *options: str, queues: Sequence[str] = (), **environment: str) -> None:
        self._log = log
        taken = ("--queues", ",".join(queues)) if queues else ()
        with log.open("ab") as output:
            self._main = Child(
                "Celery worker",
                (*COMMAND, *taken, *options),
                env={**stack.env, "LOG_LEVEL": "INFO", **environment},
                cwd=PROJECT,
                output=output,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def children(self) -> list[int]:
        """The pid of the process that works on a task, if there is one."""
        threads = Path(f"/proc/{self._main.pid}/task").iterdir()  # each thread has the children that it started
        return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]

    @property
    def running(self) -> bool:
        return self._main.running

    def stop(self) -> None:
        self._main.stop()

    def kill(self) -> None:
        """SIGKILL to the main process and whoever works for it."""
        self._main.kill()


@contextlib.contextmanager
def celery_worker(stack: Stack, log: Path) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(stack, log)
    try:
        yield worker
    finally:
        worker.stop()


def queue_push(stack: Stack, room: str, update_base64: str, *, task_id: str, times: int = 1) -> None:
    """Put the same message for `push_document_update` into the broker, from a process that ends."""
    code = (
        "from realtime.tasks import push_document_update\n"
        f"for _ in range({times}): push_document_update.apply_async(({room!r}, {update_base64!r}), task_id={task_id!r})"
    )
    stack.manage("shell", "--no-imports", "-c", code)
