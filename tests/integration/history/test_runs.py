"""Runs: what a person reads as one edit is the same before and after squash, in one document and across all."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pycrdt import Doc, Map, Text
from pytest_django import Settings

from documents.models import Document, Role
from documents.roles import readable_by
from history import fragments, runs
from history.append import append
from history.audit.trail import TrailFilter, What, trail_page
from history.crdt.lib0 import Malformed
from history.crdt.updates import decode_update, extent
from history.fates import PendingUpdate
from history.fragments import OpenedLog, open_logs
from history.models import Kind, Run, Update, Via
from history.proof.verify import Verdict, verify_document
from history.runs import RunSummary, edits, runs_of
from history.squash import squash_document
from tests.builders import (
    NEVER_WARM,
    append_rows,
    log_of,
    make_document,
    make_session,
    make_user,
    rechain,
    seconds_apart,
    typed,
)
from tests.histories import random_history, updates_of

pytestmark = pytest.mark.django_db(transaction=True)

GAP = timedelta(seconds=300)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "TAIL_BLOCK_ROWS", 7)
    monkeypatch.setattr(fragments, "SEGMENT_BLOCK", 2)
    monkeypatch.setattr(runs, "SUMMARIES_PER_QUERY", 3)


def _random_document(seed: int, *, rows: int = 80, people: int = 3) -> Document:
    """A log of several people with pauses just below, at and above the gap, now and then another kind, and rows that
    nobody can read."""
    rng = random.Random(seed)
    edits = iter([row.update for row in random_history(seed, edits=rows, skip_gc=True)])
    document = make_document()
    sessions = [make_session(document, make_user()) for _ in range(people)]
    kinds = [Kind.SYNC] * 12 + [Kind.RESTORE]
    append(
        [
            PendingUpdate(
                session=rng.choice(sessions),
                payload=next(edits) if rng.random() < 0.8 else bytes(rng.randrange(9)),
                kind=rng.choice(kinds),
            )
            for _ in range(rows)
        ]
    )
    gaps = [rng.choice([0.0, 0.1, 2.0, 40.0, 299.9, 300.0, 300.1, 900.0]) for _ in range(rows - 1)]
    rechain(document, at=seconds_apart(*gaps))
    return document


def _expected(document: Document) -> list[tuple[object, ...]]:
    """The runs, by the definition: (session, kind, first and last seq, first and last time, updates, bytes,
    units inserted and deleted)."""
    found: list[list[tuple[int, int, int, datetime, bytes]]] = []
    last: dict[int, list[tuple[int, int, int, datetime, bytes]]] = {}
    for row in log_of(document):
        run = last.get(row[1])
        if run is None or run[-1][2] != row[2] or row[3] - run[-1][3] > GAP:
            run = last[row[1]] = []
            found.append(run)
        run.append(row)
    found.sort(key=lambda run: -run[-1][0])
    return [
        (
            *(run[0][1], run[0][2], run[0][0], run[-1][0], run[0][3], run[-1][3], len(run)),
            *map(sum, zip(*((len(row[4]), *_units(row[4])) for row in run), strict=True)),
        )
        for run in found
    ]


def _units(payload: bytes) -> tuple[int, int]:
    try:
        return extent(decode_update(payload))
    except Malformed:
        return 0, 0


def _told(summaries: list[RunSummary]) -> list[tuple[object, ...]]:
    return [
        (
            *(run.session_id, run.kind, run.first_seq, run.last_seq, run.first_at, run.last_at),
            *(run.updates, run.bytes, run.inserted, run.deleted),
        )
        for run in summaries
    ]


@pytest.mark.parametrize("seed", range(8))
def test_squash_changes_no_run(seed: int) -> None:
    document = _random_document(seed)
    expected = _expected(document)
    assert _told(runs_of(document.pk, limit=1000)) == expected
    for segments in (1, 3, None):
        squash_document(document.pk, older_than=NEVER_WARM, segments_max=segments)
        assert _told(runs_of(document.pk, limit=1000)) == expected
    assert Run.objects.filter(document=document).exists()
    assert isinstance(verify_document(document.pk), Verdict)


@pytest.mark.parametrize("squashed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_pages_hold_each_run_once(seed: int, squashed: bool) -> None:
    document = _random_document(50 + seed)
    if squashed:
        squash_document(document.pk, older_than=NEVER_WARM, segments_max=4)
    whole = runs_of(document.pk, limit=1000)
    paged: list[RunSummary] = []
    until = None
    while page := runs_of(document.pk, until=until, limit=3):
        paged += page
        until = page[-1].last_seq - 1
    assert paged == whole
    assert runs_of(document.pk, until=0) == []


def test_runs_that_were_read_before_are_told_from_the_rows_that_are_there_now(settings: Settings) -> None:
    """Of the same seqs in the same document: as after a backup was put back and people wrote on."""
    document = _random_document(7)
    first = _told(runs_of(document.pk, limit=1000))
    assert first == _told(runs_of(document.pk, limit=1000)) == _expected(document)
    rechain(document, at=seconds_apart(*[1000.0] * 79))
    usual = settings.PALIMPSEST
    settings.PALIMPSEST = {**usual, "RUN_GAP_SECONDS": 10_000}
    assert len(runs_of(document.pk, limit=1000)) < len(_expected(document))
    settings.PALIMPSEST = usual
    assert _told(runs_of(document.pk, limit=1000)) == _expected(document) != first


def test_runs_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = fragments._Warm()
    monkeypatch.setattr(fragments, "_warm", warm)
    monkeypatch.setattr(fragments, "FRAGMENTS_WARM_MAX", 20)
    document = _random_document(8)
    for _ in range(2):
        assert _told(runs_of(document.pk, limit=1000)) == _expected(document)
        assert 0 < warm._size == sum(map(len, warm._of.values())) <= 20


@pytest.mark.parametrize("squashed", [False, True])
def test_a_split_emoji_does_not_cut_the_run_of_who_split_it(squashed: bool, settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 2, "SEGMENT_ROWS_MAX": 100}
    document = make_document()
    session = make_session(document)
    for place, update in enumerate(typed("abc")):
        splits = frozenset({(1, 1)}) if place == 1 else frozenset[tuple[int, int]]()
        append([PendingUpdate(session=session, payload=update, splits=splits)])
    if squashed:
        squash_document(document.pk, older_than=NEVER_WARM)
    (run,) = runs_of(document.pk, limit=10)
    assert (run.first_seq, run.last_seq, run.updates, run.kind) == (1, 4, 4, Kind.SYNC)
    assert isinstance(verify_document(document.pk), Verdict)


def test_an_emoji_that_is_split_at_the_edge_of_a_block_does_not_cut_the_run() -> None:
    document = make_document()
    session = make_session(document)
    append_rows(session, typed("abcdef"), kind=Kind.EDIT)
    append([PendingUpdate(session=session, payload=b"\0\0", splits=frozenset({(1, 1)}), kind=Kind.EDIT)])
    assert Update.objects.get(document=document, seq=7).kind == Kind.SPLIT  # the last row of a block of seven
    assert [(run.first_seq, run.last_seq, run.kind) for run in runs_of(document.pk)] == [(1, 8, Kind.EDIT)]


def test_two_people_who_type_at_once_have_one_run_each() -> None:
    document = make_document()
    ada, bob = make_user("ada"), make_user("bob")
    places = ((ada, "192.0.2.1"), (bob, "2001:db8::2"))
    sessions = [make_session(document, user, via=Via.WEBSOCKET, ip=ip) for user, ip in places]
    append([PendingUpdate(session=sessions[place % 2], payload=b"ab") for place in range(30)])
    newest, older = runs_of(document.pk)
    assert (newest.user, newest.via, newest.ip) == (bob, Via.WEBSOCKET, "2001:db8::2")
    assert (newest.updates, newest.bytes) == (15, 30)
    assert (older.user, older.first_seq, older.last_seq) == (ada, 1, 29)


def test_the_migration_counts_the_runs_of_before_from_their_segments() -> None:
    document = _random_document(3)
    squash_document(document.pk, older_than=NEVER_WARM)
    runs_of_it = Run.objects.filter(document=document).order_by("first_seq")
    counted = list(runs_of_it.values_list("first_seq", "inserted", "deleted"))
    assert sum(inserted for _, inserted, _ in counted) > 0 < sum(deleted for _, _, deleted in counted)
    runs_of_it.update(inserted=0, deleted=0)
    migration = import_module("history.migrations.0010_packed_snapshots_and_counted_runs")
    migration.count_runs(apps, None)
    assert list(runs_of_it.values_list("first_seq", "inserted", "deleted")) == counted


@pytest.mark.parametrize("squashed", [False, True])
def test_a_run_says_how_much_it_inserted_and_deleted(squashed: bool, settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 2}
    document = make_document()
    doc: Doc[Any] = Doc()
    text, mapping = doc.get("text", type=Text), doc.get("map", type=Map)
    edits: list[Callable[[], object]] = [
        lambda: text.insert(0, "h\u00e9llo \U0001f600"),  # eight UTF-16 units
        lambda: text.format(0, 5, {"bold": True}),  # two marks, which are no content
        lambda: text.__delitem__(slice(0, 3)),  # h and \u00e9
        lambda: mapping.__setitem__("key", 1),
        lambda: mapping.__setitem__("key", 2),  # and takes away the 1
    ]
    append_rows(make_session(document), [update for edit in edits for update in updates_of(doc, edit)])
    if squashed:
        squash_document(document.pk, older_than=NEVER_WARM)
    (run,) = runs_of(document.pk)
    assert (run.updates, run.inserted, run.deleted) == (5, 8 + 2, 2 + 1)
    assert Run.objects.filter(document=document).count() == squashed


def test_a_run_of_a_deleted_account_stays_with_no_user() -> None:
    document = make_document()
    user = make_user()
    append_rows(make_session(document, user), typed("abc"))
    user.delete()
    (run,) = runs_of(document.pk)
    assert (run.user, run.updates) == (None, 3)


def test_an_empty_log_has_no_runs() -> None:
    assert runs_of(make_document().pk) == []
    assert list(edits()) == []


def _expected_edits(documents: list[Document]) -> list[tuple[datetime, int, int]]:
    runs = [(run, document.pk) for document in documents for run in runs_of(document.pk, limit=1000)]
    return sorted(((run.last_at, pk, run.last_seq) for run, pk in runs), reverse=True)


def _places(found: list[RunSummary]) -> list[tuple[datetime, int, int]]:
    return [(run.last_at, run.document_id, run.last_seq) for run in found]


def test_edits_of_all_documents_come_newest_first() -> None:
    documents = [_random_document(seed, rows=30) for seed in range(4)]
    squash_document(documents[0].pk, older_than=NEVER_WARM)
    expected = _expected_edits(documents)
    found = _places(list(edits()))
    assert sorted(found, reverse=True) == expected
    assert [each[0] for each in found] == [each[0] for each in expected]
    assert [each[0] for each in _places(list(islice(edits(), 5)))] == [each[0] for each in expected[:5]]


def test_edits_are_filtered_by_person_document_and_time() -> None:
    documents = [_random_document(20 + seed, rows=40) for seed in range(3)]
    squash_document(documents[1].pk, older_than=NEVER_WARM, segments_max=2)
    all_runs = list(edits())
    user = next(run.user for run in all_runs if run.document_id == documents[1].pk)
    assert list(edits(user=user)) == [run for run in all_runs if run.user == user]
    assert list(edits(document=documents[2])) == runs_of(documents[2].pk, limit=1000)
    times = sorted(run.last_at for run in all_runs)
    since, until = times[len(times) // 3], times[2 * len(times) // 3]
    between = [run for run in all_runs if since <= run.last_at <= until]
    found = list(edits(since=since, until=until))
    assert sorted(_places(found)) == sorted(_places(between))
    assert list(edits(since=datetime(2040, 1, 1, tzinfo=UTC))) == []
    assert list(edits(until=datetime(2000, 1, 1, tzinfo=UTC))) == []


@pytest.mark.parametrize("squashed", [False, True])
def test_a_page_of_the_audit_takes_few_queries_however_many_documents_there_are(
    squashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    documents = [make_document() for _ in range(70)]
    for place, document in enumerate(documents):
        append_rows(make_session(document, make_user()), typed("abcd"))
        rechain(document, at=seconds_apart(place, 1, 1e6, 1))
        if squashed:
            squash_document(document.pk, older_than=NEVER_WARM)
    times = sorted(run.last_at for run in edits())
    wanted = TrailFilter(documents=Document.objects.all(), what=What.EDITED)
    assert times[69] < times[70]
    for until in (None, times[69]):
        with CaptureQueriesContext(connection) as queries:
            page = trail_page(replace(wanted, until=until))
        assert [line.at for line in page.lines] == times[: None if until is None else 70][:-51:-1]
        assert len(queries) < 50


def _days_after(start: datetime, seq: int) -> datetime:
    return start + timedelta(days=seq)


@pytest.mark.parametrize("squashed", [False, True])
def test_a_document_that_was_edited_after_the_wanted_time_alone_is_not_opened(
    squashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, later = make_document(), make_document()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for each, first in ((document, 0), (later, 1)):
        append_rows(make_session(each), typed("abcd"))
        rechain(each, at=partial(_days_after, start + timedelta(days=first)))
        if squashed:
            squash_document(each.pk, older_than=NEVER_WARM)
    opened: list[int] = []

    def seen(seqs: Mapping[int, int], **options: Any) -> list[OpenedLog]:
        opened.extend(seqs)
        return open_logs(seqs, **options)

    monkeypatch.setattr(runs, "open_logs", seen)
    assert [run.last_seq for run in edits(until=start + timedelta(days=1.5))] == [1]
    assert opened == [document.pk]


def test_edits_show_only_documents_that_the_reader_may_see(settings: Settings) -> None:
    reader = make_user()
    mine, others = make_document(a=(reader, Role.VIEWER)), make_document()
    for document in (mine, others):
        append_rows(make_session(document, make_user()), typed("ab"))
    assert {run.document_id for run in edits(documents_visible=readable_by(reader))} == {mine.pk}
    assert {run.document_id for run in edits()} == {mine.pk, others.pk}


@pytest.mark.parametrize("segments", [1, 3, None])
def test_a_squash_in_the_midst_of_a_long_read_changes_nothing_that_it_tells(segments: int | None) -> None:
    documents = [_random_document(seed) for seed in (1, 2)]
    expected = _places(list(edits()))
    for taken in (1, 5, 20):
        reading = edits()
        found = list(islice(reading, taken))
        for document in documents:
            squash_document(document.pk, older_than=NEVER_WARM, segments_max=segments)
        assert _places([*found, *reading]) == expected
