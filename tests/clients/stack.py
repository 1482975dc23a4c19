"""Real worker processes on a migrated database of their own, and a look into that database that asks no worker.

What the log holds is read here, by psycopg and by `history` on a connection of its own; nothing is taken on trust from
the process under test. POSIX only: workers are paused with SIGSTOP to say which of them takes a connection."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import environ
import psycopg
from django.conf import settings
from django.db import connections
from django.db.utils import load_backend
from psycopg import sql
from pycrdt import Doc

from config.stack.configuration import PROJECT, base_environment
from config.stack.web import WebWorkers
from documents.models import Document
from history.crdt.splits import EMPTY_UPDATE
from history.crdt.updates import Update, advance, decode_update
from history.folds import document_at
from history.models import Kind, Via
from history.proof.verify import Difference, Verdict, verify_document
from tests.clients.driver import Client, NodeClients

P = ParamSpec("P")
R = TypeVar("R")

MANAGE_SECONDS = 60.0
HTTP_SECONDS = 20.0
RECONNECT_MS_MAX = 250
"""Stock clients double their pause up to 2.5 s; the tests need not wait so long."""


class Unblocking(Protocol):
    """What lets Django's connections be used: pytest-django's blocker, or nothing where pytest does not run."""

    def unblock(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """One row of a document's log as psycopg reads it."""

    seq: int
    via: Via
    user_id: int | None
    kind: Kind
    payload: bytes

    @property
    def update(self) -> Update:
        """What the row says to a document; of a `split` row that is nothing."""
        return decode_update(EMPTY_UPDATE if self.kind is Kind.SPLIT else self.payload)


class Database:
    """A database of our own on a running server, migrated. `drop` takes it away."""

    def __init__(self, server_url: str, blocker: Unblocking) -> None:
        self._server_url = server_url
        self._blocker = blocker
        self.name = f"clients_{secrets.token_hex(6)}"
        self.url = urlsplit(server_url)._replace(path=f"/{self.name}").geturl()
        self._on_server(sql.SQL("CREATE DATABASE {}"))

    def drop(self) -> None:
        self._on_server(sql.SQL("DROP DATABASE {} WITH (FORCE)"))

    def _on_server(self, statement: sql.SQL) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(self.name)))

    def connect(self) -> "psycopg.Connection[Any]":
        """A plain connection, autocommit: for looking, and for holding locks."""
        return psycopg.connect(self.url, autocommit=True)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call this project's own code on this database, whatever pytest-django has made the default one."""
        return await asyncio.to_thread(self._run, partial(function, *args, **kwargs))

    def _run(self, function: Callable[[], R]) -> R:
        given = environ.Env.db_url_config(self.url)
        given["HOST"] = unquote(given["HOST"])
        configured = {**connections.settings["default"], **given, "CONN_MAX_AGE": 0}
        wrapper = load_backend(configured["ENGINE"]).DatabaseWrapper(configured, alias="default")
        connections["default"] = wrapper  # of this thread alone
        try:
            with self._blocker.unblock():
                return function()
        finally:
            wrapper.close()
            del connections["default"]

    def rows(self, room: str) -> list[LoggedRow]:
        """The log of a room, in order of seq."""
        query = """
            SELECT row.seq, session.via, session.user_id, row.kind, row.payload FROM history_update row
            JOIN documents_document document ON document.id = row.document_id
            JOIN history_session session ON session.document_id = row.document_id AND session.id = row.session_id
            WHERE document.name = %s ORDER BY row.seq
        """
        with self.connect() as connection:
            found = connection.execute(query, [room]).fetchall()
        return [
            LoggedRow(seq, Via(via), user_id, Kind(kind), bytes(payload)) for seq, via, user_id, kind, payload in found
        ]

    def head_seq(self, room: str) -> int:
        query = """
            SELECT head.seq FROM history_head head JOIN documents_document document ON document.id = head.document_id
            WHERE document.name = %s
        """
        with self.connect() as connection:
            found = connection.execute(query, [room]).fetchone()
        return 0 if found is None else int(found[0])

    def clocks(self, room: str) -> dict[int, int]:
        """Client id → next clock: which structs of each writer are in the log."""
        clocks: dict[int, int] = {}
        for row in self.rows(room):
            advance(clocks, row.update)
        return clocks

    async def document(self, room: str) -> Document:
        return await self.run(Document.objects.get, name=room)

    async def folded(self, room: str, *, full: bool = False) -> "Doc[Any]":
        """The document as `history` folds it from the log; `full` keeps what was deleted."""
        document = await self.document(room)
        return (await self.run(document_at, document.pk, full=full)).doc

    async def verdict(self, room: str) -> Verdict | Difference:
        """What `verify_history` finds: every hash recomputed, every seq in its place."""
        document = await self.document(room)
        return await self.run(verify_document, document.pk)


class Stack:
    """Two worker processes (or `count`) that share one port; `start` and `stop` them any number of times.

    `paused` ones are alive and do nothing: what is sent to them waits in the kernel."""

    def __init__(
        self,
        *,
        database: Database,
        redis_url: str,
        count: int = 2,
        application: str = "config.asgi:application",
        **environment: str,
    ) -> None:
        self.database = database
        self.env: Mapping[str, str] = {
            **base_environment(),
            "DATABASE_URL": database.url,
            "REDIS_URL": redis_url,
            "SECRET_KEY": settings.SECRET_KEY,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LOG_LEVEL": "WARNING",
            "DEBUG": "false",
            "OPEN_ROOMS": "false",
            **environment,
        }
        self.workers = WebWorkers(self.env, count, application=application)

    @property
    def http_url(self) -> str:
        return self.workers.url

    @property
    def url(self) -> str:
        """Where stock providers connect to; the room's name comes after it."""
        return f"{self.workers.url.replace('http', 'ws', 1)}/ws"

    async def join_hocuspocus(
        self,
        node: NodeClients,
        major: int,
        name: str,
        room: str,
        *,
        on: int | None = None,
        synced: bool = True,
        headers: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Client:
        """As `join`, through a stock provider of Hocuspocus; `how` is for hocuspocus.mjs."""
        url = f"{self.workers.url.replace('http', 'ws', 1)}/collaboration"
        with self.paused(*(index for index in self.all if on not in (None, index))):
            client = await node.open(
                name,
                url=url,
                room=room,
                headers=headers,
                max_backoff_ms=RECONNECT_MS_MAX,
                hocuspocus={"major": major, **how},
            )
            if synced:
                await client.wait_synced()
        return client

    async def get(self, path: str, **headers: str) -> str:
        """The body of a page or an API's answer. Raises: urllib.error.HTTPError."""
        request = urllib.request.Request(self.http_url + path, headers=headers)

        def read() -> str:
            with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as response:
                return str(response.read().decode())

        return await asyncio.to_thread(read)

    async def join(
        self, node: NodeClients, name: str, room: str, *, on: int | None = None, synced: bool = True, **options: Any
    ) -> Client:
        """Open a stock client, and wait until it is synced; `on` says which worker process takes its connection."""
        options.setdefault("max_backoff_ms", RECONNECT_MS_MAX)
        others = [] if on is None else [index for index in range(self.workers.count) if index != on]
        with self.paused(*others):
            client = await node.open(name, url=self.url, room=room, **options)
            if synced:
                await client.wait_synced()
        return client

    @contextlib.contextmanager
    def paused(self, *indexes: int) -> Iterator[None]:
        """Those of these workers that live stand still until the block ends."""
        pids = [pid for index in indexes if (pid := self.workers.pids[index]) is not None]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # killed in between
                    os.kill(pid, signal.SIGCONT)

    @property
    def all(self) -> range:
        """The indexes of all workers."""
        return range(self.workers.count)

    def kill_workers(self) -> None:
        self.workers.kill_all()

    def revive_workers(self) -> None:
        """Start those again that are dead."""
        for index, pid in enumerate(self.workers.pids):
            if pid is None:
                self.workers.revive(index)

    def manage(self, *arguments: str) -> str:
        """Run `manage.py` on this stack's services in a process of its own; return what it wrote."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=MANAGE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def __enter__(self) -> "Stack":
        self.workers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.stop()


@contextlib.contextmanager
def migrated_database(server_url: str, blocker: Unblocking) -> Iterator[Database]:
    """A fresh database with this project's tables, dropped at the end."""
    database = Database(server_url, blocker)
    try:
        env = {**base_environment(), "DATABASE_URL": database.url, "SECRET_KEY": settings.SECRET_KEY}
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=PROJECT, env=env, check=True, timeout=MANAGE_SECONDS)
        yield database
    finally:
        database.drop()


async def assert_log_holds(stack: Stack, node: NodeClients, room: str, *clients: Client) -> None:
    """The log is gapless and proven, and folds to what these (converged) clients hold, read by Yjs itself."""
    await node.converged(*clients)
    rows = stack.database.rows(room)
    assert [row.seq for row in rows] == list(range(1, stack.database.head_seq(room) + 1))
    verdict = await stack.database.verdict(room)
    assert isinstance(verdict, Verdict), verdict
    content = await clients[0].content()
    reader = await node.open(f"log of {room} at {len(rows)}", url=stack.url, room=room, connect=False)
    await reader.apply((await stack.database.folded(room)).get_update())
    assert (await reader.content()).content_hash == content.content_hash
    assert stack.database.clocks(room) == await clients[0].seen_structs()


async def until(what: str, probe: Callable[[], object], *, timeout_seconds: float = 20.0) -> None:
    """Wait until `probe` (a look into the database) is true."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while not probe():
        assert asyncio.get_running_loop().time() < deadline, f"waited {timeout_seconds} s in vain until {what}"
        await asyncio.sleep(0.01)


def redis_url_apart(url: str, number: int = 7) -> str:
    """The same server with keys of our own: other tests' document ids are the same as ours."""
    parts = urlsplit(url)
    if parts.scheme.startswith("unix"):
        query = {**dict(parse_qsl(parts.query)), "db": str(number)}
        return f"unix://{parts.path}?{urlencode(query)}"  # `geturl` writes one slash only, which Celery does not know
    return parts._replace(path=f"/{number}").geturl()


def a_room(words: str) -> str:
    """A room name that no other test has."""
    return f"{words}-{secrets.token_hex(4)}"
