"""How housekeeping goes, in the admin: what runs, what waits, what went wrong, and what was found."""

import re
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from celery.schedules import crontab
from django.core.exceptions import ObjectDoesNotExist
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from documents.models import Chore, Document, Role
from history import housekeeping
from history.fates import Reason
from history.housekeeping import TASKS, VERIFY
from history.models import Refusal, Update
from history.refusals import RefusedUpdate, keep_refused
from history.tasks import undo_everywhere, verify_sample
from realtime.queues import PUSHES, TASK_ROUTES
from tests.builders import append_rows, make_document, make_session, make_user, rechain, typed
from tests.integration.history_pages.builders import a_user, signed_in

pytestmark = pytest.mark.django_db(transaction=True)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    Chore.objects.all().delete()


def page(client: Client, query: str = "") -> str:
    answer = client.get(reverse("admin:documents_chore_changelist") + query)
    assert answer.status_code == 200
    return words_of(answer.content.decode())


def words_of(html: str) -> str:
    """What a person reads, in one line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def turn_of(task: str, **fields: Any) -> Chore:
    now = timezone.now()
    return Chore.objects.create(**{"task": task, "worker": "host:7", "started_at": now, "seen_at": now, **fields})


def test_every_task_that_keeps_house_has_a_name_and_a_line(root: Client) -> None:
    assert set(TASKS) == {name for name, route in TASK_ROUTES.items() if route["queue"] != PUSHES}
    words = page(root)
    assert [label for label in TASKS.values() if not re.search(rf"{label} [^<]{{1,30}} never none", words)] == []
    assert "Nothing runs." in words


def test_a_task_that_has_had_no_turn_yet_says_when_it_will(root: Client, settings: Any) -> None:
    settings.CELERY_BEAT_SCHEDULE = {
        "squash": {"task": "history.tasks.squash_cold_rows", "schedule": 600.0},
        "verify": {"task": "history.tasks.verify_sample", "schedule": crontab(hour="3", minute="30")},
    }
    words = page(root)
    assert "squash every 10 min never none" in words
    assert re.search(r"verification of a sample next at \d+ \w+, 03:30 never none", words)
    assert "manifest when asked for never none" in words


def test_what_runs_is_shown_with_its_progress_and_what_was_killed_is_not(root: Client) -> None:
    turn_of("history.tasks.squash_cold_rows", done=3, total=8, made=1200, document_id=77)
    killed = timezone.now() - Chore.LOST_AFTER - timedelta(seconds=1)
    turn_of("history.tasks.build_ladders", done=1, total=9, seen_at=killed)
    words = page(root)
    assert "squash: 3 of 8 documents, now document 77; 1200 made" in words
    assert "1 of 9 documents" not in words
    assert re.search(r"made and thinned [^:]+:\d\d:\d\d: lost [^:]+:\d\d:\d\d : lost", words)
    assert "lost: its worker is gone" in page(root, "?state=lost")


def test_what_waits_is_counted(root: Client, settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 4, "SNAPSHOT_ROWS": 10}
    for _ in range(2):
        document = make_document()
        append_rows(make_session(document), typed(ALPHABET))
    rechain(document, at=lambda seq: timezone.now() - timedelta(days=2) + timedelta(seconds=seq))
    words = page(root)
    assert "documents with cold rows for a segment 1 " in words
    assert "documents whose tail is due for a snapshot 1 " in words


def test_each_kind_of_work_that_waits_has_a_line(
    root: Client, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {"MANIFEST_KEY": str(tmp_path / "none.pem"), "MANIFEST_DIRECTORY": str(tmp_path)}
    settings.PALIMPSEST |= {"SNAPSHOT_ROWS": 10, "SNAPSHOT_DISTANCE_ROWS": 5}
    long_ago = timezone.now() - timedelta(days=400)
    document = make_document()
    session = make_session(document)
    append_rows(session, typed(ALPHABET))
    rechain(document, at=lambda seq: timezone.now() - timedelta(days=2) + timedelta(seconds=seq))
    Document.objects.filter(pk=make_document().pk).update(deleted_at=long_ago)
    keep_refused([RefusedUpdate(session=session, update=b"kept", reason=Reason.NOT_ALLOWED)])
    Refusal.objects.update(last_at=long_ago)
    words = page(root)
    for line in (
        "documents whose older snapshots are not in their places",
        "documents due for a version",
        "deleted documents that nobody can recover any more",
        "refused updates kept for long enough",
        "manifest of today",
    ):
        assert f"{line} 1 " in words
        assert f"{line} 1 or more" not in words
    monkeypatch.setattr(housekeeping, "WAITING_MAX", 1)
    assert "documents due for a version 1 or more" in page(root)


def test_an_undoing_whose_actor_is_gone_has_failed_and_says_so(root: Client) -> None:
    now = timezone.now().isoformat()
    with pytest.raises(ObjectDoesNotExist):
        undo_everywhere("1", now, now, request_key="the vandal", actor_pk="0")
    words = page(root)
    assert re.search(r" undo of an account's edits [^:]+:\d\d:\d\d: failed [^:]+:\d\d:\d\d : DoesNotExist", words)
    assert "the vandal" not in words


def test_the_last_error_of_a_task_stays_when_later_turns_went_well(root: Client) -> None:
    now = timezone.now()
    turn_of("history.tasks.squash_cold_rows", ended_at=now, outcome="done", troubles=2, error="SquashRefused")
    turn_of("history.tasks.squash_cold_rows", ended_at=now, outcome="done")
    assert re.search(r" squash [^:]+:\d\d:\d\d: done [^:]+:\d\d:\d\d : SquashRefused, 2 times", page(root))


def test_what_verification_found_names_documents_to_who_may_read_them(root: Client) -> None:
    reader, other = a_user("reader", is_staff=True), a_user("other", is_staff=True)
    document = make_document("Minutes", reader=(reader, Role.VIEWER))
    append_rows(make_session(document), typed(ALPHABET))
    assert verify_sample() == 0
    assert "1 documents, 26 updates; nothing differs" in page(root)
    Update.objects.filter(document=document, seq=4).update(payload=b"\x00\x00")
    assert verify_sample() == 1
    found = "at 4: the row was altered"
    for client in (root, signed_in(reader)):
        assert f"Minutes {found}" in page(client)
    words = page(signed_in(other))
    assert "Minutes" not in words
    assert f"document {document.pk} {found}" in words
    detail = reverse("admin:documents_chore_change", args=[Chore.objects.latest("id").pk])
    assert f"document {document.pk} {found}" in words_of(root.get(detail).content.decode())


def test_an_undoing_of_an_account_tells_how_far_it_has_come_to_superusers_alone(root: Client) -> None:
    vandal = make_user("vandal")
    began = timezone.now() - timedelta(minutes=1)
    for _ in range(2):
        append_rows(make_session(make_document(), vandal), typed("bad"))
    undo_everywhere(str(vandal.pk), began.isoformat(), timezone.now().isoformat(), request_key="the vandal")
    told = "the vandal: undone in 2 of 2 documents; done"
    assert told in page(root)
    staff = signed_in(a_user("staff", is_staff=True))
    assert "the vandal" not in page(staff)
    detail = reverse("admin:documents_chore_change", args=[Chore.objects.latest("id").pk])
    assert "the vandal" in words_of(root.get(detail).content.decode())
    assert "the vandal" not in words_of(staff.get(detail).content.decode())


def test_nobody_changes_what_is_told_and_only_staff_see_it(root: Client) -> None:
    turn = turn_of(VERIFY)
    for act in ("change", "delete"):
        address = reverse(f"admin:documents_chore_{act}", args=[turn.pk])
        assert root.post(address, {"post": "yes"}).status_code == 403
    assert root.get(reverse("admin:documents_chore_add")).status_code == 403
    assert signed_in(a_user("anyone")).get(reverse("admin:documents_chore_changelist")).status_code == 302
