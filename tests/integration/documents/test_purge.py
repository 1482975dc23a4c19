from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from documents import tasks
from documents.models import Access, Document, Membership
from documents.opening import delete_document
from documents.tasks import purge_deleted
from tests.integration.documents.builders import a_document, a_user

pytestmark = pytest.mark.django_db


def rows_of(table: str, document_id: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE document_id = %s", [document_id])
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def write_history(document: Document) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO history_update (document_id, seq, session_id, kind, at, payload, hash)"
            " SELECT %s, seq, 1, 1, now(), '', '' FROM generate_series(1, 500) seq",
            [document.pk],
        )
        cursor.execute(
            "INSERT INTO history_session (document_id, id, via, user_agent, salt, commitment, opened_at, detail)"
            " VALUES (%s, 1, 1, '', '', '', now(), '{}')",
            [document.pk],
        )


def test_only_what_can_no_longer_be_recovered_is_purged(settings: Settings) -> None:
    settings.PALIMPSEST = {"DELETED_DOCUMENT_DAYS": 7}
    ada = a_user("ada")
    kept, recent, old = (a_document(ada, title=title) for title in ("kept", "recent", "old"))
    delete_document(recent, now=timezone.now() - timedelta(days=6.9))
    delete_document(old, now=timezone.now() - timedelta(days=7.1))

    assert purge_deleted() == 1
    assert set(Document.objects.all()) == {kept, recent}
    assert purge_deleted() == 0


def test_a_purged_document_leaves_no_row_behind_and_others_keep_theirs() -> None:
    ada = a_user("ada")
    old, kept = a_document(ada), a_document(ada)
    write_history(old)
    write_history(kept)
    delete_document(old, now=timezone.now() - timedelta(days=100))
    document_id = old.pk

    assert purge_deleted() == 1

    for table in ("history_update", "history_session", "history_head"):
        assert rows_of(table, document_id) == 0
        assert rows_of(table, kept.pk) > 0
    assert not Membership.objects.filter(document_id=document_id).exists()
    assert not Access.objects.filter(document_id=document_id).exists()


def test_one_run_takes_a_bounded_batch_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PURGE_BATCH_MAX", 2)
    ada = a_user("ada")
    for days in (50, 70, 60):
        delete_document(a_document(ada, title=str(days)), now=timezone.now() - timedelta(days=days))
    assert purge_deleted() == 2
    assert Document.objects.get().title == "50"
    assert purge_deleted() == 1


def test_the_name_of_a_purged_document_is_free_again() -> None:
    ada = a_user("ada")
    delete_document(a_document(ada, name="minutes"), now=timezone.now() - timedelta(days=100))
    purge_deleted()
    assert a_document(ada, name="minutes").access_version == 2
