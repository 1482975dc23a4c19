"""The Celery tasks: each finds its work by one query, is idempotent, and lets no document spoil another's turn."""

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models import Model
from django.utils import timezone
from pytest_django import Settings

from documents.models import Chore, Document
from history import tasks
from history.due import cold_documents
from history.models import Head, Run, Segment, Snapshot, Update
from history.proof.verify import Difference, Verdict, verify_document
from history.tasks import keep_versions, squash_cold_rows, sweep_snapshots, verify_sample
from tests.builders import append_rows, log_of, make_document, make_history, make_session, rechain, typed

pytestmark = pytest.mark.django_db(transaction=True)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _typed_document(text: Iterable[str] = ALPHABET) -> int:
    document = make_document()
    append_rows(make_session(document), typed(text))
    return document.pk


def test_the_sweep_stores_snapshots_of_tails_that_are_due_once(settings: Settings) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10, "SNAPSHOT_BYTES_MIN": 100_000}
    long, _short = _typed_document(), _typed_document("abc")
    large = make_document()
    append_rows(make_session(large), typed("a" * 3, client_id=9) + typed("b" * 4, client_id=10))
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10, "SNAPSHOT_BYTES_MIN": 60}
    assert sweep_snapshots() == 2
    assert set(Snapshot.objects.values_list("document_id", "seq")) == {(long, 26), (large.pk, 7)}
    assert sweep_snapshots() == 0


def test_the_sweep_leaves_documents_that_nobody_edited_lately(settings: Settings) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10}
    _typed_document()
    Head.objects.update(at=timezone.now() - timedelta(days=3))
    assert sweep_snapshots() == 0


def test_one_document_with_a_hole_does_not_stop_the_sweep(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10}
    broken, whole = _typed_document(ALPHABET * 2), _typed_document()
    Update.objects.filter(document_id=broken, seq=5).delete()
    sweep_snapshots()
    assert set(Snapshot.objects.values_list("document_id", flat=True)) == {whole}
    assert f"snapshot failed: document={broken}" in caplog.text


def _age(document_id: int) -> None:
    document = Head.objects.get(document_id=document_id).document
    rechain(document, at=lambda seq: timezone.now() - timedelta(days=2) + timedelta(seconds=seq))


def test_cold_rows_are_squashed_and_warm_ones_are_not() -> None:
    cold, warm, few = _typed_document(), _typed_document(), _typed_document("abc")
    _age(cold)
    _age(few)
    before = log_of(Head.objects.get(document_id=cold).document)
    assert squash_cold_rows() == 26
    assert squash_cold_rows() == 0
    assert set(Segment.objects.values_list("document_id", flat=True)) == {cold}
    assert Update.objects.filter(document_id__in=[warm, few]).count() == 29
    assert log_of(Head.objects.get(document_id=cold).document) == before


def test_a_few_large_rows_that_fill_a_segment_are_squashed_too(settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 10, "SEGMENT_BYTES_MAX": 50_000}
    large, single, warm = (_typed_document(["x" * 20_000] * count) for count in (4, 1, 4))
    _age(large)
    _age(single)
    assert cold_documents(older_than=timezone.now() - timedelta(days=1), limit=9) == [large]
    assert squash_cold_rows() == 2
    assert squash_cold_rows() == 0
    assert set(Segment.objects.values_list("document_id", flat=True)) == {large}
    assert Update.objects.filter(document_id=warm).count() == 4


def test_documents_that_are_refused_do_not_stand_before_all_others_for_ever() -> None:
    broken, whole = _typed_document(ALPHABET * 2), _typed_document()
    _age(broken)
    _age(whole)
    older_than = timezone.now() - timedelta(days=1)
    assert {cold_documents(older_than=older_than, limit=1)[0] for _ in range(100)} == {broken, whole}


def test_one_document_that_was_tampered_with_does_not_stop_the_squash(caplog: pytest.LogCaptureFixture) -> None:
    broken, whole = _typed_document(ALPHABET * 2), _typed_document()
    _age(broken)
    _age(whole)
    Update.objects.filter(document_id=broken, seq=2).update(payload=b"\x00\x00")
    assert squash_cold_rows() == 26
    assert f"squash refused: document={broken}" in caplog.text
    assert Update.objects.filter(document_id=broken).count() == 52


def test_a_run_of_squash_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SQUASH_SEGMENTS_MAX", 2)
    for document_id in (_typed_document(), _typed_document()):
        _age(document_id)
    runs = [squash_cold_rows() for _ in range(5)]
    assert (max(runs), sum(runs), runs[-1]) == (20, 52, 0)


def test_a_run_of_ladders_is_bounded(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10, "SNAPSHOT_DISTANCE_ROWS": 5, "SNAPSHOTS_LOG_PERCENT": 10_000}
    for _ in range(2):
        _typed_document()
    sweep_snapshots()
    monkeypatch.setattr(tasks, "LADDER_SNAPSHOTS_MAX", 3)
    runs = [tasks.build_ladders() for _ in range(6)]
    assert (max(runs), runs[-1]) == (3, 0)
    assert sum(runs) > 3


def test_the_nightly_sample_logs_each_difference_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    whole, broken = make_history(1), make_history(2)
    assert verify_sample() == 0
    Update.objects.filter(document=broken, seq=4).update(payload=b"\x00\x00")
    assert verify_sample() == 1
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert f"document={broken.pk} seq=4" in record.getMessage()
    assert f"document={whole.pk}" not in caplog.text


def test_a_document_that_is_erased_while_a_sample_is_proven_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, _whole = make_history(1), make_history(2)

    def erased_first(document_id: int) -> Verdict | Difference:
        Document.objects.filter(pk=gone.pk).delete()
        return verify_document(document_id)

    monkeypatch.setattr(tasks, "verify_document", erased_first)
    assert verify_sample() == 0
    assert Chore.objects.values_list("outcome", "troubles", "found").latest("id") == ("done", 0, 0)


@pytest.mark.parametrize(("task", "part"), [(verify_sample, "verify_document"), (keep_versions, "keep_version")])
def test_one_document_that_the_database_does_not_give_stops_no_other(
    task: Any, part: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.PALIMPSEST = {"AUTOMATIC_VERSION_HOURS": 1}
    away, whole = _typed_document(), _typed_document()
    _age(away)
    _age(whole)
    real, done = getattr(tasks, part), []

    def not_given(document_id: int, **options: Any) -> Any:
        if document_id == away:
            raise OperationalError("canceling statement due to statement timeout")
        done.append(document_id)
        return real(document_id, **options)

    monkeypatch.setattr(tasks, part, not_given)
    task()
    assert done == [whole]
    told = Chore.objects.values_list("outcome", "done", "troubles", "error").latest("id")
    assert told == ("done", 2, 1, "OperationalError")


def test_verifying_and_sweeping_twice_in_a_row_leaves_what_one_run_leaves(settings: Settings) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10}
    for seed in range(3):
        make_history(seed, edits=20 * seed + 5)

    def tables() -> list[list[dict[str, Any]]]:
        models: list[type[Model]] = [Head, Snapshot, Update, Segment, Run]
        return [list(model._default_manager.order_by("document_id", "pk").values()) for model in models]

    before = tables()
    assert [verify_sample(), verify_sample()] == [0, 0]
    assert tables() == before
    assert sweep_snapshots() == 2
    once = tables()
    assert (sweep_snapshots(), tables()) == (0, once)
    assert (verify_sample(), tables()) == (0, once)


def test_a_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        document = make_history(seed)
        Update.objects.filter(document=document, seq=1).update(payload=b"\x00\x00")
    with monkeypatch.context() as few:
        few.setattr(tasks, "VERIFY_ROWS_MAX", 1)
        assert verify_sample() == 1
    monkeypatch.setattr(tasks, "VERIFY_DOCUMENTS_MAX", 2)
    assert verify_sample() == 2
