"""Squash: cold rows become segments; whatever happens, nothing is lost and nothing is there twice."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection, transaction
from pytest_django import Settings

from documents.models import Document
from history import squash
from history.append import append
from history.crdt.packing import PackedRow, unpack
from history.errors import LogHole
from history.fates import PendingUpdate
from history.models import Head, Run, Segment, Update
from history.proof.verify import Verdict, verify_document
from history.squash import SquashRefused, squash_document
from tests.builders import (
    NEVER_WARM,
    append_rows,
    in_thread,
    log_of,
    make_document,
    make_history,
    make_session,
    rechain,
    seconds_apart,
    typed,
)
from tests.integration.history.waiting import backend_waiting_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _typed_document(text: str = ALPHABET) -> Document:
    document = make_document()
    append_rows(make_session(document), typed(text))
    return document


def _spans(document: Document) -> list[tuple[int, int]]:
    return list(Segment.objects.filter(document=document).order_by("first_seq").values_list("first_seq", "last_seq"))


def _holds(document: Document) -> bool:
    outcome = verify_document(document.pk)
    assert isinstance(outcome, Verdict), outcome
    return True


@pytest.mark.parametrize("seed", range(8))
def test_every_row_of_a_random_history_comes_back_with_its_session_kind_and_time(seed: int) -> None:
    document = make_history(200 + seed, edits=50)
    before = log_of(document)
    packed = squash_document(document.pk, older_than=NEVER_WARM)
    assert packed == len(before) - Update.objects.filter(document=document).count() > 0
    assert log_of(document) == before
    assert _holds(document)


def test_segments_hold_at_most_and_at_least_so_many_rows() -> None:
    document = _typed_document()  # 26 rows; segments of 4 to 10
    assert squash_document(document.pk, older_than=NEVER_WARM) == 26
    assert _spans(document) == [(1, 10), (11, 20), (21, 26)]
    append_rows(make_session(document), typed("abc", client_id=2))
    assert squash_document(document.pk, older_than=NEVER_WARM) == 0
    append_rows(make_session(document), typed("d", client_id=3))
    assert squash_document(document.pk, older_than=NEVER_WARM) == 4
    assert _spans(document)[-1] == (27, 30)
    assert _holds(document)


def test_warm_rows_stay_as_they_are() -> None:
    document = _typed_document()
    at = seconds_apart(*[60] * 25)
    rechain(document, at=at)
    assert squash_document(document.pk, older_than=at(17)) == 16
    assert _spans(document) == [(1, 10), (11, 16)]
    assert squash_document(document.pk, older_than=at(17)) == 0
    assert _holds(document)


def test_a_segment_ends_where_its_bytes_are_enough(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_BYTES_MAX": 1000}
    document = make_document()
    append_rows(make_session(document), [bytes(size) for size in (400, 400, 400, 3000, 100, 100, 100, 100)])
    with_tail = squash_document(document.pk, older_than=NEVER_WARM)
    assert (with_tail, _spans(document)) == (8, [(1, 2), (3, 3), (4, 4), (5, 8)])


def test_a_limit_of_segments_and_the_progress_are_kept() -> None:
    document = _typed_document()
    told: list[int] = []
    assert squash_document(document.pk, older_than=NEVER_WARM, segments_max=2, progress=told.append) == 20
    assert told == [10, 20]


def test_squash_must_not_run_inside_another_transaction() -> None:
    document = _typed_document()
    with pytest.raises(RuntimeError), transaction.atomic():
        squash_document(document.pk, older_than=NEVER_WARM)


def test_rows_that_were_tampered_with_are_never_packed() -> None:
    document = _typed_document()
    Update.objects.filter(document=document, seq=13).update(payload=b"\x00\x00")
    with pytest.raises(SquashRefused) as refused:
        squash_document(document.pk, older_than=NEVER_WARM)
    assert refused.value.seq == 13
    assert _spans(document) == [(1, 10)]
    assert Update.objects.filter(document=document).count() == 16


def test_a_gap_in_the_rows_is_never_packed() -> None:
    document = _typed_document()
    Update.objects.filter(document=document, seq=3).delete()
    with pytest.raises(LogHole):
        squash_document(document.pk, older_than=NEVER_WARM)
    assert _spans(document) == []


def _forgetful_pack(rows: list[PackedRow]) -> bytes:
    """A packer with a fault: it loses the last byte of each payload."""
    from history.crdt.packing import pack

    return pack([PackedRow(row.session_id, row.kind, row.at_microseconds, row.payload[:-1]) for row in rows])


def test_what_does_not_read_back_is_taken_back_before_a_row_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    document = _typed_document()
    before = log_of(document)
    monkeypatch.setattr(squash, "pack", _forgetful_pack)
    with pytest.raises(SquashRefused, match="does not read back"):
        squash_document(document.pk, older_than=NEVER_WARM)
    assert log_of(document) == before
    assert not Segment.objects.exists()


def test_a_row_that_goes_while_it_is_packed_is_not_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    document = _typed_document()
    compare = squash._compare_what_was_stored

    def compared_later(*packed: Any) -> None:
        in_thread(Update.objects.filter(document=document, seq=3).delete).result(timeout=30)
        compare(*packed)

    monkeypatch.setattr(squash, "_compare_what_was_stored", compared_later)
    with pytest.raises(SquashRefused, match="9 rows went"):
        squash_document(document.pk, older_than=NEVER_WARM)
    assert not Segment.objects.exists()
    assert Update.objects.filter(document=document).count() == len(ALPHABET) - 1


GARBLE_SEGMENTS = """
CREATE FUNCTION garble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.payload = set_byte(NEW.payload, octet_length(NEW.payload) / 2,
                           get_byte(NEW.payload, octet_length(NEW.payload) / 2) # 1);
    RETURN NEW;
END $$;
CREATE TRIGGER garble BEFORE INSERT ON history_segment FOR EACH ROW EXECUTE FUNCTION garble();
"""


@pytest.fixture
def garbled_segments() -> Iterator[None]:
    """One bit of each segment is another in the table than in the INSERT."""
    with connection.cursor() as cursor:
        cursor.execute(GARBLE_SEGMENTS)
        yield
        cursor.execute("DROP TRIGGER garble ON history_segment; DROP FUNCTION garble()")


def test_it_is_what_the_database_holds_that_must_read_back(garbled_segments: None) -> None:
    document = _typed_document()
    before = log_of(document)
    with pytest.raises(SquashRefused):
        squash_document(document.pk, older_than=NEVER_WARM)
    assert log_of(document) == before
    assert (Segment.objects.count(), Update.objects.filter(document=document).count()) == (0, 26)


def test_without_the_comparison_a_faulty_packer_would_lose_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is worth something: it is the comparison that saves the rows."""
    document = _typed_document()
    before = log_of(document)
    monkeypatch.setattr(squash, "pack", _forgetful_pack)
    monkeypatch.setattr(squash, "_compare_what_was_stored", lambda segment, rows: None)
    squash_document(document.pk, older_than=NEVER_WARM)
    assert log_of(document) != before


@pytest.mark.parametrize("step", ["_store", "_compare_what_was_stored", "_replace_rows"])
def test_an_exception_after_any_step_takes_all_of_it_back(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = _typed_document()
    before = log_of(document)
    real = getattr(squash, step)

    def die_after(*args: object, **options: object) -> None:
        real(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(squash, step, die_after)
        squash_document(document.pk, older_than=NEVER_WARM)
    assert (Segment.objects.count(), Run.objects.count(), Update.objects.count()) == (0, 0, 26)
    assert squash_document(document.pk, older_than=NEVER_WARM) == 26
    assert log_of(document) == before
    assert _holds(document)


def test_two_workers_at_once_pack_each_row_once() -> None:
    document = _typed_document(ALPHABET * 8)
    before = log_of(document)
    workers = [in_thread(lambda: squash_document(document.pk, older_than=NEVER_WARM)) for _ in range(3)]
    packed = sum(worker.result(timeout=60) for worker in workers)
    packed += squash_document(document.pk, older_than=NEVER_WARM)
    assert packed == len(before) == 208
    assert log_of(document) == before
    assert _holds(document)


def test_a_second_worker_leaves_a_document_that_the_first_is_at() -> None:
    document = _typed_document()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(squash.TRY_LOCK, [document.pk])
        other = in_thread(lambda: squash_document(document.pk, older_than=NEVER_WARM))
        assert other.result(timeout=30) == 0


def test_a_live_append_does_not_wait_for_a_squash() -> None:
    document = _typed_document()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE history_run IN EXCLUSIVE MODE")  # holds the squash in the middle of a segment
        packing = in_thread(lambda: squash_document(document.pk, older_than=NEVER_WARM))
        backend_waiting_for_a_lock()
        appending = in_thread(lambda: append_rows(make_session(document), typed("!", client_id=2)))
        assert appending.result(timeout=30) == [27]
        assert not packing.done()
    packing.result(timeout=30)
    assert Head.objects.get(document=document).seq == 27
    assert _holds(document)


def test_live_appends_during_squashes_are_all_in_the_log() -> None:
    document = make_document()
    session = make_session(document)
    updates = typed(ALPHABET * 10)

    def write() -> None:
        for update in updates:
            append([PendingUpdate(session=session, payload=update)])

    writer = in_thread(write)
    while not writer.done():
        squash_document(document.pk, older_than=NEVER_WARM)
    writer.result()
    squash_document(document.pk, older_than=NEVER_WARM)
    assert [row[4] for row in log_of(document)] == updates
    assert _holds(document)


def test_a_segment_keeps_what_its_columns_say(settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 20, "SEGMENT_ROWS_MAX": 100}
    document = _typed_document()
    rows = log_of(document)
    squash_document(document.pk, older_than=NEVER_WARM + timedelta(0))
    segment = Segment.objects.get(document=document)
    assert (segment.first_at, segment.last_at) == (rows[0][3], rows[-1][3])
    assert bytes(segment.end_hash) == bytes(Head.objects.get(document=document).hash)
    assert segment.counts == {
        "rows": 26,
        "payload_bytes": sum(len(row[4]) for row in rows),
        "packed_bytes": len(segment.payload),
    }
    assert [row.payload for row in unpack(bytes(segment.payload))] == [row[4] for row in rows]


def test_the_check_names_segments_that_must_have_more_rows_than_they_may(settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 100, "SEGMENT_ROWS_MAX": 100}
    assert "history.W003" not in [each.id for each in run_checks()]
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 101, "SEGMENT_ROWS_MAX": 100}
    assert "history.W003" in [each.id for each in run_checks()]
