"""The whole history as a file: for owners, written down, proven elsewhere, and bounded."""

import threading
import tracemalloc
from queue import Queue
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test import Client

from history.models import Action, AuditEntry
from history.pages import exporting
from history.proof import offline_verify
from history.proof.exports import NotExported, export_document
from tests.builders import append_rows, in_thread, make_session, typed
from tests.integration.history.waiting import until_gone
from tests.integration.history_pages.builders import PAGE_DOORS, Shared, a_shared_document, page_url

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared() -> Shared:
    shared = a_shared_document("Minutes of März / II")
    shared.type(shared.owner, "one ")
    shared.type(shared.editor, "two ")
    return shared


def downloaded(client: Client, shared: Shared, door: str = "page", **form: str) -> Any:
    return client.post(page_url(shared, "export", door), form)


@pytest.mark.parametrize("door", PAGE_DOORS)
def test_the_file_is_the_export_and_is_written_into_the_audit(
    shared: Shared, root: Client, door: str, tmp_path: Any
) -> None:
    answer = downloaded(root, shared, door)
    content = answer.getvalue()
    assert content.decode() == "".join(export_document(shared.document.pk))
    assert answer["Content-Type"] == "application/jsonl"
    assert answer["Content-Disposition"].startswith('attachment; filename="minutes-of-marz-ii-')
    assert "no-store" in answer["Cache-Control"]
    assert "no-store" in answer["Cache-Control"]
    file = tmp_path / "export.jsonl"
    file.write_bytes(content)
    assert offline_verify.main([str(file)]) == 0
    entry = AuditEntry.objects.get(document_id=shared.document.pk, action=Action.EXPORTED)
    assert (entry.via, entry.detail) == (PAGE_DOORS[door], {"of": "history", "pseudonymous": False})
    assert entry.user is not None and entry.user.get_username() == "root"


def test_a_pseudonymous_file_names_nobody(shared: Shared, root: Client) -> None:
    content = downloaded(root, shared, pseudonymous="on").getvalue().decode()
    assert "editor" not in content and "192.0.2.7" not in content
    assert AuditEntry.objects.get(action=Action.EXPORTED).detail == {"of": "history", "pseudonymous": True}


def test_the_page_that_asks_exports_nothing(shared: Shared, root: Client) -> None:
    assert b"Download" in root.get(page_url(shared, "export", "page")).content
    assert not AuditEntry.objects.filter(action=Action.EXPORTED).exists()


def test_a_log_that_is_not_what_its_hashes_say_breaks_the_download_off(shared: Shared, root: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE history_head SET hash = decode(repeat('00', 32), 'hex')")
    with pytest.raises(NotExported):
        downloaded(root, shared).getvalue()


def test_a_long_history_goes_out_in_chunks_and_takes_no_more_memory_than_a_few(
    shared: Shared, root: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "PAGE_ROWS": 10}
    monkeypatch.setattr(exporting, "CHUNK_CHARACTERS", 10_000)
    append_rows(make_session(shared.document), typed(["x" * 5_000] * 400, client_id=9))
    answer = downloaded(root, shared)
    tracemalloc.start()
    sizes = [len(chunk) for chunk in answer]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) > 2_000_000
    assert max(sizes) < 30_000
    assert peak < sum(sizes) // 2


@pytest.mark.django_db(transaction=True)
def test_a_reader_who_takes_nothing_for_too_long_is_cut_off_by_the_database(
    shared: Shared, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "CHUNK_CHARACTERS", 1)
    settings.PALIMPSEST = {**settings.PALIMPSEST, "STALLED_READER_SECONDS": 1.0}
    backends: Queue[int] = Queue()
    stalled = threading.Event()

    def read_and_stall() -> None:
        chunks = exporting.chunks_of(shared.document.pk, pseudonymous=False)
        next(chunks)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            backends.put(cursor.fetchone()[0])
        assert stalled.wait(30)
        for _ in chunks:
            pass

    reading = in_thread(read_and_stall)
    until_gone(backends.get(timeout=30))
    stalled.set()
    with pytest.raises(DatabaseError):
        reading.result(timeout=30)
