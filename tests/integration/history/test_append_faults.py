"""Connections that die on each side of COMMIT: the caller is told the truth about what it can know."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from pytest_django import Settings

from documents.models import Document
from history.append import append
from history.errors import LogUnavailable, OutcomeUnknown
from history.fates import PendingUpdate, Stored
from history.models import Head
from history.proof.verify import Verdict, verify_document
from tests.builders import append_rows, in_thread, log_of, make_document, make_session, typed
from tests.integration.history.waiting import backend_waiting_for_a_lock, database_dsn

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def patient_append(settings: Settings) -> None:
    """Whoever releases a waiting append may be slow to notice it."""
    settings.PALIMPSEST = {"APPEND_LOCK_TIMEOUT_MS": 60_000}


def _append_one(document: Document, prepare: Callable[[], object] = lambda: None) -> Any:
    def act() -> Any:
        prepare()
        return append([PendingUpdate(session=make_session(document), payload=typed("a")[0])])

    return in_thread(act)


def _terminate(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_a_connection_killed_before_the_rows_were_sent_is_replaced_and_the_append_stored_once() -> None:
    document = make_document()
    with transaction.atomic():
        Head.objects.select_for_update().get(document=document)
        future = _append_one(document)
        _terminate(backend_waiting_for_a_lock())
    assert isinstance(future.result(timeout=30)[0], Stored)
    assert len(log_of(document)) == 1


def test_an_append_whose_connections_are_killed_again_stores_nothing_and_says_so() -> None:
    document = make_document()
    with transaction.atomic():
        Head.objects.select_for_update().get(document=document)
        future = _append_one(document)
        first = backend_waiting_for_a_lock()
        _terminate(first)
        _terminate(backend_waiting_for_a_lock(other_than=first))
        with pytest.raises(LogUnavailable):
            future.result(timeout=30)
    assert log_of(document) == []


def test_a_database_that_is_away_stores_nothing_and_says_so() -> None:
    document = make_document()

    def lose_the_way() -> None:
        connection.settings_dict = {**connection.settings_dict, "HOST": "127.0.0.1", "PORT": "1"}

    with pytest.raises(LogUnavailable):
        _append_one(document, lose_the_way).result(timeout=30)
    assert log_of(document) == []


@pytest.fixture
def slow_commit() -> Iterator[int]:
    """A COMMIT of the log that waits for an advisory lock; yields the lock's number."""
    with connection.cursor() as cursor:
        cursor.execute(
            """CREATE FUNCTION tests_wait() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
               CREATE CONSTRAINT TRIGGER tests_wait AFTER INSERT ON history_update
               DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tests_wait()"""
        )
    yield 4711
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER tests_wait ON history_update; DROP FUNCTION tests_wait()")


def test_a_connection_killed_inside_commit_leaves_the_outcome_unknown_and_the_log_whole(slow_commit: int) -> None:
    document = make_document()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [slow_commit])
        future = _append_one(document)
        _terminate(backend_waiting_for_a_lock())
        with pytest.raises(OutcomeUnknown):
            future.result(timeout=30)
    assert log_of(document) == []
    assert append_rows(make_session(document), typed("b")) == [1]
    assert isinstance(verify_document(document.pk), Verdict)


def test_nobody_reads_a_row_before_its_commit_is_through(slow_commit: int) -> None:
    document = make_document()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [slow_commit])
        future = _append_one(document)
        backend_waiting_for_a_lock()
        assert log_of(document) == []
        assert not future.done()
    future.result(timeout=30)
    assert len(log_of(document)) == 1


def test_a_commit_whose_answer_is_lost_leaves_the_outcome_unknown_and_the_row_in_the_log() -> None:
    document = make_document()
    with _CutAtCommit() as proxy:

        def go_through_the_proxy() -> None:
            host, port = proxy.address
            connection.settings_dict = {**connection.settings_dict, "HOST": host, "PORT": str(port)}
            connection.ensure_connection()
            proxy.armed.set()

        with pytest.raises(OutcomeUnknown):
            _append_one(document, go_through_the_proxy).result(timeout=30)
    assert len(log_of(document)) == 1
    assert isinstance(verify_document(document.pk), Verdict)


class _CutAtCommit:
    """Stands between a client and Postgres, and hangs up when the server says that it has committed."""

    def __init__(self) -> None:
        self.armed = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        with psycopg.connect(database_dsn()) as probe:
            self.socket_path = f"{probe.info.host}/.s.PGSQL.{probe.info.port}"
            self.target = (probe.info.host, probe.info.port)

    def __enter__(self) -> "_CutAtCommit":
        self.thread = threading.Thread(target=self._relay, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(timeout=30)
        self.listener.close()

    def _relay(self) -> None:
        client, _ = self.listener.accept()
        with client, self._server() as server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if not data or (key.fileobj is server and self.armed.is_set() and b"COMMIT\x00" in data):
                            return
                        key.data.sendall(data)

    def _server(self) -> socket.socket:
        if not self.target[0].startswith("/"):
            return socket.create_connection(self.target)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.socket_path)
        return server
