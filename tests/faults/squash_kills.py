"""SIGKILL to Celery workers in the middle of squash, one after another, while people write and a second one squashes.

Afterwards each update must be in the log once, where and as it was appended, in a segment or as a row, and every task
that was asked for must have ended well."""

import contextlib
import hashlib
import os
import random
import re
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
from celery import Celery
from django.db import connection
from django.db.models import Sum
from pycrdt import Doc, Text

from documents.models import Document
from history.append import append
from history.fates import PendingUpdate, Stored
from history.models import Head, Run, Segment, Update
from history.proof.verify import Verdict, verify_document
from history.sessions import WriteSession
from realtime.queues import SQUASH, TASK_ROUTES
from tests.builders import log_of, make_document, make_session
from tests.clients.celery_worker import CeleryWorker
from tests.clients.stack import Database, Stack
from tests.histories import updates_of

TASK = "history.tasks.squash_cold_rows"
DOCUMENTS = 10
ROWS_PER_BATCH = 8
SEGMENT_ROWS_MIN, SEGMENT_ROWS_MAX = 16, 48
BACKLOG_ROWS = 3000
"""Cold rows that wait for squash before people write slower: there is always something to be killed in."""

WAITING_TASKS = 3
PATIENCE_SECONDS = 180.0
PAUSE_SECONDS_MAX = 0.015
POLL_SECONDS = 0.002
WRITES = ("history_segment", "history_run", "history_update")

SQUASHING = """
SELECT activity.pid FROM pg_locks lock JOIN pg_stat_activity activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND activity.application_name = %s
"""
WAITING_TO_WRITE = """
SELECT lock.pid FROM pg_locks lock JOIN pg_stat_activity activity USING (pid)
WHERE lock.relation = %s::regclass AND NOT lock.granted AND activity.application_name = %s
"""
BACKEND = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
COLD = """
SELECT 1 FROM history_head head WHERE head.seq >= %s + (
    SELECT COALESCE(MAX(last_seq), 0) FROM history_segment WHERE document_id = head.document_id
)
"""
TWICE = """
SELECT count(*) FROM history_update row JOIN history_segment segment
    ON segment.document_id = row.document_id AND row.seq BETWEEN segment.first_seq AND segment.last_seq
"""


@dataclass(slots=True)
class Result:
    """What was done, and `wrong`, what should not be: a sentence each."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    rows: int = 0
    packed: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        yield f"seed {self.seed}: {self.kills.total()} kills in {self.seconds:.0f} s: {kinds}"
        yield f"{self.rows} updates appended meanwhile, {self.packed} of them in segments; {self.tasks} tasks ended"
        yield from self.wrong or ["nothing lost, nothing twice"]


class Writer(threading.Thread):
    """Several sessions that go on writing into each document, through the real append, and know what they wrote."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="live appends", daemon=True)
        self._database = database
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self.documents: list[Document] = []
        self.written: dict[int, list[tuple[int, bytes]]] = {}
        """By document, in order of seq from 1 on: session and sha256 of the payload."""

    def run(self) -> None:
        try:
            self._database._run(self._write)
        except BaseException as error:  # noqa: BLE001  # it is told where the thread is joined
            self._error = error

    def finish(self) -> None:
        """Raises: whatever ended the thread before."""
        self._stopped.set()
        self.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        people: list[tuple[Document, list[WriteSession], Doc[Any]]] = []
        for number in range(DOCUMENTS):
            document = make_document(f"squashed {number}")
            people.append((document, [make_session(document), make_session(document)], Doc(client_id=number + 1)))
            self.written[document.pk] = []
        self.documents = [document for document, *_ in people]
        while not self._stopped.is_set():
            batch = [
                PendingUpdate(session=sessions[turn // 3 % 2], payload=update)
                for document, sessions, doc in people
                for turn, update in enumerate(self._typed(document, doc))
            ]
            for pending, fate in zip(batch, append(batch), strict=True):
                assert isinstance(fate, Stored), fate
                rows = self.written[pending.session.document_id]
                rows.append((pending.session.id, hashlib.sha256(pending.payload).digest()))
                assert fate.seq == len(rows), f"seq {fate.seq} for row {len(rows)}"
            self._stopped.wait(0.25 if Update.objects.count() > BACKLOG_ROWS else 0)

    def _typed(self, document: Document, doc: "Doc[Any]") -> list[bytes]:
        text, length = doc.get("text", type=Text), len(self.written[document.pk])
        return [
            update
            for place in range(length, length + ROWS_PER_BATCH)
            for update in updates_of(doc, lambda place=place: text.insert(place, "x"))  # type: ignore[misc]
        ]


class SquashKills:
    """Two workers on the queue of squash, on a database and a Valkey that are nobody else's."""

    def __init__(
        self,
        database: Database,
        redis_url: str,
        folder: Path,
        *,
        seed: int,
        unguarded: str | None = None,
    ) -> None:
        self._random = random.Random(seed)
        self._result = Result(seed)
        self._database = database
        self._folder = folder
        self._unguarded = unguarded
        self._stack = Stack(
            database=database,
            redis_url=redis_url,
            DJANGO_SETTINGS_MODULE="tests.faults.settings",
            SQUASH_AFTER_SECONDS="0",
            SEGMENT_ROWS_MIN=str(SEGMENT_ROWS_MIN),
            SEGMENT_ROWS_MAX=str(SEGMENT_ROWS_MAX),
        )
        self._valkey = redis.Redis.from_url(redis_url)
        broker = redis_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
        self._app = Celery(broker=broker)
        self._app.conf.task_routes = TASK_ROUTES
        self._asked: set[str] = set()
        self._ended: set[str] = set()
        self._workers: dict[str, CeleryWorker] = {}

    def run(self, kills: int) -> Result:
        begun = time.monotonic()
        writer = Writer(self._database)
        with contextlib.ExitStack() as exits:
            exits.callback(self._stack.workers.stop)  # none runs: it holds an address
            exits.callback(self._app.close)
            exits.callback(self._valkey.close)
            looking = exits.enter_context(self._database.connect())
            exits.callback(self._stop_workers)
            for name in ("one", "two"):
                self._start(name)
            writer.start()
            try:
                for _ in range(kills):
                    self._kill(looking)
                writer.finish()
                if self._unguarded is None:  # what has lost a row is never squashed to its end
                    self._wait("all cold rows are packed", lambda: not _first(looking, COLD, SEGMENT_ROWS_MIN))
                    self._wait("every task has ended well", self._all_ended, feeds=False)
            except TimeoutError as error:
                self._result.wrong.append(str(error))
            finally:
                writer.finish()
        self._result.seconds = time.monotonic() - begun
        self._result.tasks = len(self._ended)
        self._database._run(lambda: self._compare(writer))
        return self._result

    def _stop_workers(self) -> None:
        for worker in self._workers.values():
            worker.stop()

    def _start(self, name: str) -> None:
        options = "--hostname", f"{name}@%h", "--include", "tests.faults.killed_worker"
        environment = {"DATABASE_URL": f"{self._database.url}?application_name={name}"}
        if self._unguarded is not None:
            environment["UNGUARDED"] = self._unguarded
        log = self._folder / f"{name}.log"
        self._workers[name] = CeleryWorker(self._stack, log, *options, queues=[SQUASH], **environment)

    def _kill(self, looking: "psycopg.Connection[Any]") -> None:
        """Return when the database, too, has let go of what was killed: the next one is another."""
        name = self._random.choice(sorted(self._workers))
        match self._random.random():
            case place if place < 0.3:
                table = self._random.choice(WRITES)
                backend = self._kill_at_a_write(name, table, looking)
                self._result.kills[f"at the write to {table}"] += 1
            case place if place < 0.33:
                backend = self._until_it_squashes(name, looking)
                self._workers[name].kill()
                self._result.kills["of a whole worker"] += 1
                self._start(name)
            case _:
                pause = self._random.uniform(0, PAUSE_SECONDS_MAX)
                backend = self._until_it_squashes(name, looking)
                time.sleep(pause)
                self._kill_child(name)
                self._result.kills["at a random moment"] += 1
        self._wait("its backend is gone", lambda: not _first(looking, BACKEND, backend))

    def _until_it_squashes(self, name: str, looking: "psycopg.Connection[Any]") -> int:
        """The backend by which it does."""
        return int(self._wait(f"worker {name} squashes", lambda: _first(looking, SQUASHING, name)))

    def _kill_at_a_write(self, name: str, table: str, looking: "psycopg.Connection[Any]") -> int:
        """Reads pass, the next write to the table does not: there the worker is killed."""
        with self._database.connect() as holding, holding.transaction():
            holding.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            writes = f"worker {name} writes to {table}"
            backend = self._wait(writes, lambda: _first(looking, WAITING_TO_WRITE, table, name))
            self._kill_child(name)
        return int(backend)

    def _kill_child(self, name: str) -> None:
        (pid,) = self._workers[name].children()
        os.kill(pid, signal.SIGKILL)

    def _wait(self, what: str, probe: Callable[[], Any], *, feeds: bool = True) -> Any:
        """Until it is so, with tasks in the queue all the while; return what it is. Raises: TimeoutError."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := probe()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")
            if feeds and int(self._valkey.llen(SQUASH)) < WAITING_TASKS:  # type: ignore[arg-type]
                self._ask()
            time.sleep(POLL_SECONDS)
        return found

    def _ask(self) -> None:
        task_id = f"squash-{secrets.token_hex(6)}"
        self._app.send_task(TASK, task_id=task_id, ignore_result=True)
        self._asked.add(task_id)

    def _all_ended(self) -> bool:
        for worker in self._workers.values():
            self._ended |= set(re.findall(rf"{TASK}\[(squash-\w+)\] succeeded", worker.log))
        time.sleep(0.2)
        return self._ended >= self._asked

    def _compare(self, writer: Writer) -> None:
        wrong = self._result.wrong
        with connection.cursor() as cursor:
            cursor.execute(TWICE)
            if twice := cursor.fetchone()[0]:
                wrong.append(f"{twice} rows are in a segment too")
        for document in writer.documents:
            wrong += [f"{document.name}: {what}" for what in self._compare_document(document, writer)]

    def _compare_document(self, document: Document, writer: Writer) -> Iterator[str]:
        written = writer.written[document.pk]
        self._result.rows += len(written)
        live = Update.objects.filter(document=document).count()
        segments = Segment.objects.filter(document=document)
        packed = sum(last - first + 1 for first, last in segments.values_list("first_seq", "last_seq"))
        self._result.packed += packed
        if live + packed != len(written) or Head.objects.get(document=document).seq != len(written):
            yield f"{len(written)} updates were appended, there are {live} rows and {packed} in segments"
        if live >= SEGMENT_ROWS_MIN and self._unguarded is None:
            yield f"{live} cold rows were left"
        outcome = verify_document(document.pk)
        if not isinstance(outcome, Verdict):
            yield f"seq {outcome.seq}: {outcome.what} [history_{outcome.table}]"
            return
        logged = [(session, hashlib.sha256(payload).digest()) for _, session, _, _, payload in log_of(document)]
        if logged != written:
            yield "the log holds other payloads, or others' than were appended"
        runs = Run.objects.filter(document=document).aggregate(updates=Sum("updates"), inserted=Sum("inserted"))
        if (runs["updates"] or 0, runs["inserted"] or 0) != (packed, packed):  # each update types one character
            yield f"runs count {runs}, segments hold {packed}"


def _first(looking: "psycopg.Connection[Any]", query: Any, *params: object) -> Any:
    """The first value of the first row; None where there is none."""
    row = looking.execute(query, params).fetchone()
    return None if row is None else row[0]
