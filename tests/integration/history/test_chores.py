"""What keeps house is written down while it goes: never by its own transaction, never in its way."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from documents import chores
from documents.chores import chore
from documents.models import Chore, Document
from documents.tasks import purge_deleted
from history import tasks
from history.models import Segment, Snapshot, Update
from realtime.queues import PUSHES, TASK_ROUTES
from realtime.tasks import purge_chat, purge_notifications
from tests.builders import append_rows, in_thread, make_document, make_history, make_session, rechain, typed
from tests.integration.history.waiting import database_dsn

pytestmark = pytest.mark.django_db(transaction=True)

DEADLINE_SECONDS = 20.0
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    Chore.objects.all().delete()  # of tests that take back what they write themselves


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "BEAT_SECONDS", 0.02)


def until(what: str, probe: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := probe()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)
    return found


def cold_document(text: str = ALPHABET) -> Document:
    document = make_document()
    append_rows(make_session(document), typed(text))
    rechain(document, at=lambda seq: timezone.now() - timedelta(days=2) + timedelta(seconds=seq))
    return document


def told(task: str = "") -> Chore:
    return Chore.objects.get(task=task) if task else Chore.objects.get()


def states() -> list[str]:
    rows: Any = Chore.objects.with_state().order_by("id")
    return [row.state for row in rows]


def test_a_turn_tells_what_it_did() -> None:
    cold_document()
    cold_document()
    assert tasks.squash_cold_rows() == 52
    row = told("history.tasks.squash_cold_rows")
    assert (row.outcome, row.done, row.total, row.made, row.troubles) == ("done", 2, 2, 52, 0)
    assert row.ended_at is not None and row.started_at <= row.ended_at
    assert row.worker.endswith(f":{os.getpid()}")


def test_every_task_that_keeps_house_tells_of_itself(settings: Settings, tmp_path: Path) -> None:
    settings.PALIMPSEST = {"MANIFEST_KEY": str(tmp_path / "none.pem"), "MANIFEST_DIRECTORY": str(tmp_path)}
    for task in (
        tasks.sweep_snapshots,
        tasks.build_ladders,
        tasks.squash_cold_rows,
        tasks.verify_sample,
        tasks.sign_manifest,
        tasks.keep_versions,
        tasks.purge_refused,
        tasks.purge_audit,
        purge_deleted,
        purge_notifications,
        purge_chat,
    ):
        task()
    now = timezone.now().isoformat()
    tasks.undo_everywhere("0", now, now, request_key="k")
    houses = {name for name, route in TASK_ROUTES.items() if route["queue"] != PUSHES}
    assert set(Chore.objects.values_list("task", flat=True)) == houses


def test_progress_is_seen_in_the_middle_of_a_transaction_and_outlives_its_rollback() -> None:
    with pytest.raises(DatabaseError), chore("a task") as turn, transaction.atomic():
        for _ in turn.each([7, 8]):
            if turn.done:
                until("the first is told", lambda: in_thread(Chore.objects.filter(done=1).exists).result())
                raise DatabaseError("its words may be anybody's")
    row = told()
    assert (row.done, row.total, row.document_id) == (1, 2, 8)
    assert (row.outcome, row.troubles, row.error) == ("failed", 1, "DatabaseError")
    assert "anybody" not in str(Chore.objects.values())


def test_one_documents_trouble_is_counted_with_its_class_and_no_word_of_it() -> None:
    broken, whole = cold_document(ALPHABET * 2), cold_document()
    Update.objects.filter(document=broken, seq=2).update(payload=b"\x00\x00")
    assert tasks.squash_cold_rows() == 26
    row = told()
    assert (row.outcome, row.done, row.troubles, row.error) == ("done", 2, 1, "SquashRefused")
    assert set(Segment.objects.values_list("document_id", flat=True)) == {whole.pk}


def test_what_a_sample_proved_and_what_differs_is_kept() -> None:
    whole, broken = make_history(1), make_history(2)
    Update.objects.filter(document=broken, seq=4).update(payload=b"\x00\x00")
    assert tasks.verify_sample() == 1
    row = told()
    assert row.about["proven"] == [[whole.pk, Update.objects.filter(document=whole).count()]]
    assert row.found == 1
    ((finding),) = row.findings
    assert (finding["document"], finding["table"], finding["seq"]) == (broken.pk, "update", 4)
    assert "altered" in finding["what"]


def test_of_many_findings_all_are_counted_and_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "FINDINGS_MAX", 2)
    with chore("a task") as turn:
        for seq in range(5):
            turn.find(document=1, table="update", seq=seq, what="altered")
    assert (told().found, [finding["seq"] for finding in told().findings]) == (5, [0, 1])


def test_a_table_that_cannot_be_written_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a database that has not been migrated yet."""
    monkeypatch.setattr(chores, "END_SECONDS_MAX", 0.2)
    document = cold_document()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE documents_chore RENAME TO elsewhere")
    try:
        assert tasks.squash_cold_rows() == 26
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO documents_chore")
    assert Segment.objects.filter(document=document).exists()


def test_a_table_that_somebody_has_locked_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "END_SECONDS_MAX", 0.2)
    cold_document()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE documents_chore IN ACCESS EXCLUSIVE MODE")
        assert in_thread(tasks.squash_cold_rows).result(DEADLINE_SECONDS) == 26
    until("it is told behind that", lambda: Chore.objects.filter(outcome="done").exists())


def test_the_last_turns_of_each_task_are_kept_and_those_with_trouble_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "KEPT_MAX", 3)
    monkeypatch.setattr(chores, "TROUBLED_KEPT_MAX", 2)
    for number in range(12):
        with chore("a task") as turn:
            if number < 4:
                turn.trouble(ValueError())
    with chore("another"):
        pass
    rows = Chore.objects.order_by("id").values_list("task", "troubles")
    assert list(rows) == [("a task", 1)] * 2 + [("a task", 0)] * 4 + [("another", 0)]


KILLED = """
import django
django.setup()
from documents.chores import chore
with chore("a task") as turn:
    turn.total = 3
    print("here", flush=True)
    import time
    time.sleep(60)
"""


def test_a_turn_whose_process_is_killed_is_told_as_lost_and_not_as_running() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "DATABASE_URL": database_dsn(), "DJANGO_SETTINGS_MODULE": "config.settings"},
        cwd=Path(__file__).resolve().parents[3],
    ) as process:
        until("it is told", lambda: Chore.objects.filter(total=3).exists() or process.poll() is not None)
        assert states() == ["running"]
        process.kill()
    Chore.objects.update(seen_at=timezone.now() - Chore.LOST_AFTER - timedelta(seconds=1))
    assert states() == ["lost"]


def test_a_turn_that_goes_on_for_long_is_renewed() -> None:
    with chore("a task"):
        first = until("it is told", lambda: Chore.objects.first())
        until("it is renewed", lambda: told().seen_at > first.seen_at)


@pytest.fixture
def held() -> Iterator[tuple[int, Callable[[], None]]]:
    """A document at whose snapshots another worker is."""
    document = make_document()
    append_rows(make_session(document), typed(ALPHABET))
    with connection.cursor() as cursor:
        lock = "SELECT pg_advisory_{}lock(hashtextextended('palimpsest snapshots ' || %s, 0))"
        cursor.execute(lock.format(""), [document.pk])

        def let_go() -> None:
            cursor.execute(lock.format("un"), [document.pk])

        yield document.pk, let_go
        cursor.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.parametrize("task", [tasks.sweep_snapshots, tasks.build_ladders], ids=lambda task: task.__name__)
def test_a_second_worker_goes_on_to_other_documents(
    task: Any, held: tuple[int, Callable[[], None]], settings: Settings
) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10, "SNAPSHOT_DISTANCE_ROWS": 5}
    busy, let_go = held
    other = make_document()
    append_rows(make_session(other), typed(ALPHABET))
    in_thread(task).result(DEADLINE_SECONDS)
    assert set(Snapshot.objects.values_list("document_id", flat=True)) == {other.pk}
    let_go()
    in_thread(task).result(DEADLINE_SECONDS)
    assert set(Snapshot.objects.values_list("document_id", flat=True)) == {busy, other.pk}


def test_who_fails_at_a_documents_snapshots_lets_the_next_one_at_them(settings: Settings) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10}
    broken = make_document()
    append_rows(make_session(broken), typed(ALPHABET))
    whole = Update.objects.get(document=broken, seq=5)
    Update.objects.filter(document=broken, seq=5).delete()
    tasks.sweep_snapshots()
    whole.save(force_insert=True)
    in_thread(tasks.sweep_snapshots).result(DEADLINE_SECONDS)
    assert Snapshot.objects.filter(document=broken).exists()


@pytest.mark.parametrize(
    "task",
    [
        *(tasks.sweep_snapshots, tasks.build_ladders, tasks.squash_cold_rows, tasks.verify_sample),
        *(tasks.keep_versions, tasks.purge_refused, tasks.purge_audit, purge_deleted),
    ],
    ids=lambda task: task.__name__,
)
def test_two_workers_at_one_task_at_once_have_no_trouble_and_do_nothing_twice(task: Any, settings: Settings) -> None:
    settings.PALIMPSEST |= {"SNAPSHOT_ROWS": 10, "SNAPSHOT_DISTANCE_ROWS": 5, "AUDIT_DAYS": 1}
    documents = [cold_document() for _ in range(4)]
    Document.objects.filter(pk=documents[0].pk).update(deleted_at=timezone.now() - timedelta(days=400))
    for each in [in_thread(task), in_thread(task)]:
        each.result(DEADLINE_SECONDS)
    made = list(Chore.objects.values_list("outcome", "troubles", "found"))
    assert made == [("done", 0, 0)] * 2
    if task is tasks.squash_cold_rows:
        assert sum(Chore.objects.values_list("made", flat=True)) == 4 * len(ALPHABET)
    if task is purge_deleted:
        assert sum(Chore.objects.values_list("made", flat=True)) == 1
