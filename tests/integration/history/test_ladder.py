"""The ladder of snapshots: made where it is missing, the same whoever makes it, and nothing but time."""

import logging
import random

import pytest
from django.db import connection, transaction
from django.db.models import Sum
from django.db.models.functions import Length
from pycrdt import Text
from pytest_django import Settings

from documents.models import Document
from history import ladder, snapshots
from history.crdt.roots import root_kinds
from history.folds import compact, document_at, fold_for_rung, full_ydoc, make_ydoc
from history.ladder import build_ladder
from history.models import Head, Segment, Snapshot, Update
from history.proof.verify import Verdict, verify_document
from history.snapshots import digest, pack_state, state_of, unpack_state
from history.squash import squash_document
from history.tasks import build_ladders
from tests.builders import (
    NEVER_WARM,
    append_history,
    append_rows,
    in_thread,
    make_document,
    make_history,
    make_session,
    typed,
)
from tests.histories import random_history, replay
from tests.integration.history.test_folds import says

pytestmark = pytest.mark.django_db(transaction=True)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _settings(settings: Settings) -> None:
    settings.PALIMPSEST = {
        **{"SEGMENT_ROWS_MIN": 4, "SEGMENT_ROWS_MAX": 10},
        **{"SNAPSHOT_DISTANCE_ROWS": 7, "SNAPSHOTS_LOG_PERCENT": 10_000},
    }


def _seqs(document: Document) -> list[int]:
    return list(Snapshot.objects.filter(document=document).order_by("seq").values_list("seq", flat=True))


def _typed_document(text: str = ALPHABET) -> Document:
    document = make_document()
    append_rows(make_session(document), typed(text))
    return document


@pytest.mark.parametrize("seed", range(3))
def test_the_document_is_the_same_at_every_seq_with_the_ladder_without_it_and_after_squash(seed: int) -> None:
    rows = random_history(300 + seed, edits=40, skip_gc=True)
    document = make_document()
    append_history(document, rows)
    kinds = root_kinds(replay(rows, skip_gc=True).get_update())
    expected = [says(replay(rows[:seq], skip_gc=True), kinds) for seq in range(len(rows) + 1)]

    def holds() -> None:
        for seq in range(len(rows) + 1):
            full = seq % 2 == 1
            assert says(document_at(document.pk, seq=seq, full=full).doc, kinds) == expected[seq], (seq, full)

    assert build_ladder(document.pk) == (len(rows) - 1) // 7
    holds()
    squash_document(document.pk, older_than=NEVER_WARM)
    holds()
    assert build_ladder(document.pk) == 0
    assert isinstance(verify_document(document.pk), Verdict)
    Snapshot.objects.filter(document=document).delete()
    holds()
    assert build_ladder(document.pk) == (len(rows) - 1) // 7
    holds()
    assert isinstance(verify_document(document.pk), Verdict)


def test_no_moment_is_further_from_a_snapshot_than_the_distance() -> None:
    document = _typed_document()
    squash_document(document.pk, older_than=NEVER_WARM)
    build_ladder(document.pk)
    assert _seqs(document) == [7, 14, 21, 26]
    assert [document_at(document.pk, seq=seq).tail_rows for seq in range(1, 27)] == [
        *range(1, 7),
        *range(7),
        *range(7),
        *range(5),
        0,
    ]


def test_only_the_newest_snapshot_holds_what_was_deleted() -> None:
    document = _typed_document()
    compact(document.pk)
    append_rows(make_session(document), typed(ALPHABET, client_id=2))
    compact(document.pk)
    build_ladder(document.pk)
    full = Snapshot.objects.filter(document=document).exclude(full_state=b"")
    assert list(full.values_list("seq", flat=True)) == [52]
    assert full_ydoc(document.pk).tail_rows == 0
    assert document_at(document.pk, seq=51, full=True).tail_rows == 2
    for snapshot in Snapshot.objects.filter(document=document):
        assert digest(bytes(snapshot.state), bytes(snapshot.full_state)) == bytes(snapshot.sha256)
        assert len(state_of(snapshot)) == snapshot.state_bytes


def test_all_snapshots_stay_within_their_share_of_the_log_as_it_is_stored(settings: Settings) -> None:
    """The document is as large as its log: the shares, not the distance, decide."""
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SNAPSHOT_DISTANCE_ROWS": 2, "SNAPSHOTS_LOG_PERCENT": 200}
    rng = random.Random(1)
    pieces = ["".join(rng.choices(ALPHABET, k=40)) for _ in range(200)]
    document = make_document()
    append_rows(make_session(document), typed(pieces))
    build_ladder(document.pk)

    def shares() -> tuple[int, int]:
        snapshots = Snapshot.objects.filter(document=document)
        taken = snapshots.aggregate(taken=Sum(Length("state")) + Sum(Length("full_state")))["taken"]
        segments, rows = Segment.objects.filter(document=document), Update.objects.filter(document=document)
        sizes = (model.aggregate(size=Sum(Length("payload")))["size"] or 0 for model in (segments, rows))
        return taken, 2 * sum(sizes)

    taken, allowed = shares()
    before = _seqs(document)
    assert allowed / 2 < taken <= allowed
    assert 3 < len(before) < 200 // 2
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_ROWS_MAX": 4000}
    squash_document(document.pk, older_than=NEVER_WARM)
    assert shares()[0] > shares()[1]  # the log takes less now
    build_ladder(document.pk)
    taken, allowed = shares()
    assert taken <= allowed or len(_seqs(document)) == 1
    once = _seqs(document)
    assert build_ladder(document.pk) == 0
    assert _seqs(document) == once


def test_a_build_that_is_cut_short_is_taken_up_where_it_stopped() -> None:
    document = _typed_document()
    assert build_ladder(document.pk, rungs_max=2) == 2
    assert _seqs(document) == [7, 14, 26]
    assert not Snapshot.objects.get(document=document, seq=26).ladder_built
    assert build_ladder(document.pk) == 1
    assert _seqs(document) == [7, 14, 21, 26]
    assert Snapshot.objects.get(document=document, seq=26).ladder_built


def test_a_build_reads_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    document = _typed_document()
    compact(document.pk)
    tails: list[int] = []

    def noted(document_id: int, seq: int) -> object:
        folded = fold_for_rung(document_id, seq)
        tails.append(folded[0].tail_rows)
        return folded

    monkeypatch.setattr(ladder, "fold_for_rung", noted)
    build_ladder(document.pk)
    assert tails == [7, 7, 7]


def test_two_builders_and_a_writer_at_once_make_one_right_ladder() -> None:
    document = _typed_document(ALPHABET * 4)
    session = make_session(document)

    def write() -> None:
        for update in typed(ALPHABET, client_id=2):
            append_rows(session, [update])
            make_ydoc(document.pk)

    workers = [in_thread(lambda: build_ladder(document.pk)) for _ in range(2)]
    writer = in_thread(write)
    for worker in workers:
        worker.result(timeout=60)
    writer.result(timeout=60)
    build_ladder(document.pk)
    newest = _seqs(document)[-1]
    assert set(range(7, newest, 7)) <= set(_seqs(document))
    assert isinstance(verify_document(document.pk), Verdict)
    assert make_ydoc(document.pk).seq == 130


def test_nothing_is_made_from_a_log_that_waits_for_a_missing_row() -> None:
    document = make_document()
    first, _missing, *rest = typed(ALPHABET)
    append_rows(make_session(document), [first, *rest])  # past the gate, which would never take them
    snapshot = Snapshot(document=document, seq=25, state=pack_state(b"\0\0"), state_bytes=2)
    snapshot.sha256, snapshot.created_at = b"", Head.objects.get(document=document).at
    snapshot.save(force_insert=True)
    with pytest.raises(ValueError, match="pending"):
        build_ladder(document.pk)
    assert _seqs(document) == [25]


def test_a_snapshot_that_does_not_unpack_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    document = _typed_document()
    build_ladder(document.pk)
    packed = bytes(Snapshot.objects.get(document=document, seq=14).state)
    torn = packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:]
    Snapshot.objects.filter(document=document, seq=14).update(state=torn)
    folded = document_at(document.pk, seq=16)
    assert (str(folded.doc.get("text", type=Text)), folded.snapshot_seq) == (ALPHABET[:16], 7)
    assert f"snapshot passed over: document={document.pk} seq=14" in caplog.text


def test_most_snapshots_are_differences_and_go_with_what_they_differ_from() -> None:
    document = _typed_document(ALPHABET * 4)
    assert build_ladder(document.pk) == 14
    bases = dict(Snapshot.objects.filter(document=document).order_by("seq").values_list("seq", "base_seq"))
    assert bases == {
        **{7: None, 14: 7, 21: 7, 28: 7, 35: 7, 42: 7, 49: 7},
        **{56: None, 63: 56, 70: 56, 77: 56, 84: 56, 91: 56, 98: 56, 104: None},
    }
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM history_snapshot WHERE seq = 56")
    assert _seqs(document) == [7, 14, 21, 28, 35, 42, 49, 104]
    assert build_ladder(document.pk) == 7
    assert isinstance(verify_document(document.pk), Verdict)


def test_a_difference_whose_base_goes_while_it_is_read_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a caller's transaction each statement sees the database of its own moment."""
    document = _typed_document(ALPHABET * 3)
    build_ladder(document.pk)
    unpack = snapshots.state_of

    def unpacked_later(snapshot: Snapshot) -> bytes:
        assert snapshot.base_seq is not None
        base = Snapshot.objects.filter(document=document, seq=snapshot.base_seq)
        in_thread(base.delete).result(timeout=30)
        return unpack(snapshot)

    monkeypatch.setattr(snapshots, "state_of", unpacked_later)
    difference = Snapshot.objects.filter(document=document).exclude(base_seq=None).latest("seq")
    with transaction.atomic():
        folded = document_at(document.pk, seq=difference.seq)
    assert str(folded.doc.get("text", type=Text)) == (ALPHABET * 3)[: difference.seq]


def test_a_difference_is_not_unpacked_with_another_base() -> None:
    first, second, other = (make_ydoc(make_history(seed).pk).doc.get_update() for seed in (3, 4, 5))
    packed = pack_state(first, base=second)
    assert unpack_state(packed, base=second) == first
    for base in (b"", other):
        with pytest.raises(ValueError, match="snapshot"):
            unpack_state(packed, base=base)


def test_a_state_is_only_unpacked_from_what_was_packed() -> None:
    state = make_ydoc(make_history(3).pk).doc.get_update()
    packed = pack_state(state)
    assert unpack_state(packed) == state
    for cut in range(len(packed)):
        with pytest.raises(ValueError, match="snapshot"):
            unpack_state(packed[:cut])


def test_a_state_that_claims_to_be_too_large_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_state(bytes(1000))
    monkeypatch.setattr(snapshots, "STATE_BYTES_MAX", 999)
    with pytest.raises(ValueError, match="STATE_BYTES_MAX"):
        unpack_state(packed)


def test_the_task_builds_what_a_snapshot_or_a_squash_has_changed_and_then_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    document, short = _typed_document(), _typed_document("abc")
    assert build_ladders() == 3
    assert (_seqs(document), _seqs(short)) == ([7, 14, 21, 26], [])
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM history_snapshot WHERE seq = 14")
    assert build_ladders() == 0  # it is a cache: nobody looks for what was taken out by hand
    squash_document(document.pk, older_than=NEVER_WARM)
    assert build_ladders() == 1
    append_rows(make_session(document), typed("abcde", client_id=2))
    compact(document.pk)
    assert build_ladders() == 1
    assert _seqs(document) == [7, 14, 21, 26, 28, 31]
    Snapshot.objects.all().delete()
    assert build_ladders() == 4
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_one_document_with_a_hole_does_not_stop_the_task(caplog: pytest.LogCaptureFixture) -> None:
    broken, whole = _typed_document(), _typed_document()
    Update.objects.filter(document=broken, seq=5).delete()
    assert build_ladders() == 3
    assert (_seqs(broken), _seqs(whole)) == ([], [7, 14, 21, 26])
    assert f"no ladder: document={broken.pk}" in caplog.text
