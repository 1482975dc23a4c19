"""Reading: the document at every seq is the same by full replay, through any snapshot and from any mixture of rows
and segments; a seq that is missing is a hole, never a lie."""

import random
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from pycrdt import Doc, Text
from pytest_django import Settings

from history import log
from history.crdt.content import canonical
from history.crdt.idsets import delete_set_of
from history.crdt.roots import root_kinds
from history.crdt.state_vectors import decode_state_vector
from history.errors import LogHole, NoSuchSeq
from history.folds import compact, document_at, full_ydoc, make_ydoc
from history.ladder import build_ladder
from history.log import consistent_read, read_log
from history.models import Head, Segment, Snapshot, Update
from history.snapshots import pack_state
from history.squash import squash_document
from tests.builders import (
    NEVER_WARM,
    append_history,
    append_rows,
    in_thread,
    make_document,
    make_history,
    make_session,
    rechain,
    seconds_apart,
    typed,
)
from tests.histories import random_history, replay

pytestmark = pytest.mark.django_db(transaction=True)


def says(doc: Doc[Any], kinds: Any) -> tuple[Any, ...]:
    """Content, state vector and delete set: what must be equal (invariant 5)."""
    return canonical(doc, kinds), decode_state_vector(doc.get_state()), delete_set_of(doc)


@pytest.mark.parametrize("seed", range(6))
def test_snapshot_and_tail_equal_full_replay_at_every_seq(seed: int) -> None:
    rows = random_history(seed, edits=40, skip_gc=True)
    document = make_document()
    third = len(rows) // 3
    append_history(document, rows[:third])
    compact(document.pk)
    append_history(document, rows[third : 2 * third])
    compact(document.pk)
    append_history(document, rows[2 * third :])
    assert Snapshot.objects.filter(document=document).count() == 2
    kinds = root_kinds(replay(rows, skip_gc=True).get_update())
    for seq in range(len(rows) + 1):
        expected = says(replay(rows[:seq], skip_gc=True), kinds)
        for full in (False, True):
            assert says(document_at(document.pk, seq=seq, full=full).doc, kinds) == expected, (seq, full)
    assert says(make_ydoc(document.pk).doc, kinds) == says(full_ydoc(document.pk).doc, kinds) == expected


@pytest.fixture
def cut_wherever_it_can_be(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SNAPSHOT_DISTANCE_ROWS": 1}
    monkeypatch.setattr("history.folds.STATE_BYTES_A_ROW", sys.maxsize)


@pytest.mark.usefixtures("cut_wherever_it_can_be")
@pytest.mark.parametrize("seed", range(6))
def test_all_that_was_deleted_by_a_moment_is_cut_out_of_a_later_state(seed: int) -> None:
    rows = random_history(200 + seed, edits=40, skip_gc=True)
    document = make_document()
    append_history(document, rows[:-5])
    compact(document.pk)
    append_history(document, rows[-5:])
    for seq in range(len(rows) + 1):
        cut = document_at(document.pk, seq=seq, full=True)
        assert cut.doc.get_update() == replay(rows[:seq], skip_gc=True).get_update(), seq
        assert (cut.seq, cut.row and cut.row.seq) == (seq, seq or None)


@pytest.mark.usefixtures("cut_wherever_it_can_be")
def test_all_that_was_deleted_by_a_moment_is_told_without_reading_the_log_before_it() -> None:
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijkl"))
    append_rows(make_session(document), [b"\x00\x01\x01\x01\x02\x02"])
    compact(document.pk)
    build_ladder(document.pk)
    before = document_at(document.pk, seq=12, full=True).doc.get_update()
    Update.objects.filter(document=document, seq__lt=11).delete()
    assert document_at(document.pk, seq=12, full=True).doc.get_update() == before
    assert "abcdefghijkl" in before.decode("latin-1")


@pytest.mark.usefixtures("cut_wherever_it_can_be")
@pytest.mark.parametrize("damage", [b"not a state", b"\x00\x00"])
def test_a_later_state_that_is_none_or_another_is_passed_over(damage: bytes) -> None:
    document = make_history(3)
    compact(document.pk)
    head = Head.objects.get(document=document).seq
    before = [document_at(document.pk, seq=seq, full=True).doc.get_update() for seq in range(head)]
    Snapshot.objects.filter(document=document).update(full_state=pack_state(damage))
    assert [document_at(document.pk, seq=seq, full=True).doc.get_update() for seq in range(head)] == before


@pytest.mark.parametrize("seed", range(6))
def test_squash_changes_the_document_at_no_seq(seed: int) -> None:
    rows = random_history(100 + seed, edits=40, skip_gc=True)
    document = make_document()
    append_history(document, rows)
    kinds = root_kinds(replay(rows, skip_gc=True).get_update())
    before = [says(document_at(document.pk, seq=seq, full=True).doc, kinds) for seq in range(len(rows) + 1)]
    assert squash_document(document.pk, older_than=NEVER_WARM) > 0
    assert Segment.objects.filter(document=document).count() > 1
    after = [says(document_at(document.pk, seq=seq, full=True).doc, kinds) for seq in range(len(rows) + 1)]
    assert after == before


def test_a_moment_is_opened_by_its_time_in_rows_and_segments_alike() -> None:
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijkl"))
    at = seconds_apart(*[10] * 11)
    rechain(document, at=at)

    def seqs() -> list[int]:
        moments = [at(1) - timedelta(seconds=1), *(at(seq) + timedelta(seconds=5) for seq in range(1, 13))]
        return [document_at(document.pk, at=moment).seq for moment in moments]

    assert seqs() == list(range(13))
    assert squash_document(document.pk, older_than=NEVER_WARM) == 10
    assert seqs() == list(range(13))
    assert document_at(document.pk, seq=7).at == at(7)


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize("missing", [1, 6, 12])
def test_a_missing_seq_is_a_hole(missing: int, squashed: bool) -> None:
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijkl"))
    if squashed:
        squash_document(document.pk, older_than=NEVER_WARM)
        missing = max(missing, 11) if missing > 10 else 1
        Segment.objects.filter(document=document, first_seq=missing).delete()
    Update.objects.filter(document=document, seq=missing).delete()
    for read in (make_ydoc, full_ydoc):
        with pytest.raises(LogHole) as hole:
            read(document.pk)
        assert (hole.value.document_id, hole.value.seq) == (document.pk, missing)


def test_a_seq_beyond_the_head_is_no_moment() -> None:
    document = make_history(1)
    head = Head.objects.get(document=document).seq
    for seq in (-1, head + 1):
        with pytest.raises(NoSuchSeq):
            document_at(document.pk, seq=seq)


def test_a_reader_sees_no_hole_while_a_squash_goes_by(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "PAGE_ROWS": 4}
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijklmno"))
    with consistent_read():
        reading = read_log(document.pk, until=15)
        first = next(reading)  # the list of segments is read, and empty
        assert in_thread(lambda: squash_document(document.pk, older_than=NEVER_WARM)).result(timeout=30) == 15
        assert [row.seq for row in (first, *reading)] == list(range(1, 16))
    assert not Update.objects.filter(document=document).exists()


def test_a_torn_read_is_a_hole_and_never_a_lie(settings: Settings) -> None:
    """Outside of `consistent_read()` nothing keeps the tables together."""
    settings.PALIMPSEST = {**settings.PALIMPSEST, "PAGE_ROWS": 4}
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijklmno"))
    reading = read_log(document.pk, until=15)
    assert next(reading).seq == 1
    squash = in_thread(lambda: squash_document(document.pk, older_than=NEVER_WARM))
    assert squash.result(timeout=30) == 15
    with pytest.raises(LogHole) as hole:
        list(reading)
    assert hole.value.seq == 5


def test_no_query_fetches_more_of_the_log_than_memory_has_room_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "PAGE_BYTES_MAX": 1000}
    document = make_document()
    sizes = [400, 400, 400, 3000, *[10] * 30, 900, 900]
    append_rows(make_session(document), [bytes(size) for size in sizes])
    fetched: list[int] = []
    page = log._page

    def noted(query: Any, params: Any) -> Any:
        rows = page(query, params)
        if query is not log.COUNT_BYTES:
            fetched.append(sum(len(row[-1]) for row in rows))
        return rows

    monkeypatch.setattr(log, "_page", noted)
    with consistent_read():
        assert [len(row.payload) for row in read_log(document.pk, until=len(sizes))] == sizes
    assert all(bytes_ <= 1000 or bytes_ == 3000 for bytes_ in fetched)
    assert sum(fetched) == sum(sizes)


def test_a_tail_that_has_grown_is_compacted_when_it_is_opened(settings: Settings) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 10}
    document = make_document()
    append_rows(make_session(document), typed("abcdefghijkl"))
    make_ydoc(document.pk)
    assert list(Snapshot.objects.filter(document=document).values_list("seq", flat=True)) == [12]
    assert make_ydoc(document.pk).tail_rows == 0


def test_a_document_of_many_people_gets_its_snapshot() -> None:
    document = make_document()
    rng = random.Random(1)
    for _ in range(40):
        append_rows(make_session(document), typed("a", client_id=rng.getrandbits(32)))
    compact(document.pk)
    assert Snapshot.objects.filter(document=document).exists()


def test_deleting_all_snapshots_changes_nothing() -> None:
    document = make_history(7)
    compact(document.pk)
    kinds = root_kinds(full_ydoc(document.pk).doc.get_update())
    before = says(make_ydoc(document.pk).doc, kinds)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM history_snapshot")
    assert says(make_ydoc(document.pk).doc, kinds) == before


@pytest.mark.parametrize("tail_is_long", [True, False])
def test_a_document_opens_though_its_snapshot_cannot_be_stored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tail_is_long: bool
) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 2} if tail_is_long else {"SNAPSHOT_BYTES_MIN": 1}
    document = make_document()
    append_rows(make_session(document), typed("hello"))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ValueError("the snapshot does not load to the same state vector")

    monkeypatch.setattr("history.folds.store_snapshot", refuse)
    folded = make_ydoc(document.pk)
    assert (str(folded.doc.get("text", type=Text)), folded.seq, folded.snapshot_seq) == ("hello", 5, 0)


@pytest.mark.parametrize("what", ["an insert", "a delete"])
def test_nothing_is_snapshotted_while_a_row_waits_for_one_that_is_missing(settings: Settings, what: str) -> None:
    document = make_document()
    first, missing, third = typed("abc")
    waiting = third if what == "an insert" else b"\x00\x01\x01\x01\x01\x01"  # the unit that is missing is deleted
    append_rows(make_session(document), [first, waiting])  # past the gate, which would never take it
    with pytest.raises(ValueError, match="pending"):
        compact(document.pk)
    settings.PALIMPSEST = {"SNAPSHOT_ROWS": 1}
    assert text_of(make_ydoc(document.pk).doc) == "a"
    assert not Snapshot.objects.filter(document=document).exists()
    append_rows(make_session(document), [missing])
    compact(document.pk)
    assert text_of(make_ydoc(document.pk).doc) == ("abc" if what == "an insert" else "a")
    assert Snapshot.objects.filter(document=document).exists()


def text_of(doc: "Doc[Any]") -> str:
    return str(doc.get("text", type=Text))
