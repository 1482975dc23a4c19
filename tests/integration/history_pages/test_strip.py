"""The strip: a document's whole life in so many columns, whatever its length, squashed or not."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from history import strip
from history.authors import author_of
from history.models import Head, Kind, Update, Version, Via
from history.pages import listing
from history.pages.drawing import drawn
from history.squash import squash_document
from history.strip import Strip, strip_of
from history.timeline import run_page
from history.versions import change_version, name_version
from history.writes import restore, write_session
from tests.builders import (
    NEVER_WARM,
    append_rows,
    make_document,
    make_session,
    make_user,
    rechain,
    seconds_apart,
    typed,
)
from tests.integration.history_pages.builders import Shared, a_shared_document, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _small_segments(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_ROWS_MIN": 2, "SEGMENT_ROWS_MAX": 100}


def told(found: Strip) -> list[tuple[int, int, list[tuple[str | None, float]]]]:
    """First and last seq of each column, and who wrote how much of it."""
    return [
        (
            column.first_seq,
            column.last_seq,
            [(part.author.name if part.author else None, round(part.stop - part.start, 3)) for part in column.parts],
        )
        for column in found.columns
    ]


@pytest.fixture
def turns() -> Any:
    """A document that ada, bob and ada wrote by turns, twelve updates each."""
    document = make_document()
    ada, bob = make_user("ada"), make_user("bob")
    payloads = typed("x" * 36)
    for turn, user in enumerate((ada, bob, ada)):
        append_rows(make_session(document, user), payloads[12 * turn : 12 * turn + 12])
    rechain(document, at=seconds_apart(*[1.0] * 35))
    return document


def test_a_short_life_has_a_column_for_each_seq(turns: Any) -> None:
    columns = told(strip_of(turns))
    assert [(first, last) for first, last, _ in columns] == [(seq, seq) for seq in range(1, 37)]
    assert [who for _, _, who in columns] == [[(name, 1.0)] for name in ["ada"] * 12 + ["bob"] * 12 + ["ada"] * 12]


def test_a_longer_life_has_as_many_columns_that_share_all_seqs_among_them(
    turns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strip, "COLUMNS_MAX", 5)
    columns = told(strip_of(turns))
    assert [(first, last) for first, last, _ in columns] == [(1, 8), (9, 16), (17, 24), (25, 32), (33, 36)]
    assert columns[1][2] == [("ada", 0.5), ("bob", 0.5)]


@pytest.mark.parametrize("columns_max", [5, 200])
def test_squash_changes_nothing(turns: Any, monkeypatch: pytest.MonkeyPatch, columns_max: int) -> None:
    monkeypatch.setattr(strip, "COLUMNS_MAX", columns_max)
    before = strip_of(turns)
    assert squash_document(turns.pk, older_than=NEVER_WARM)
    assert not Update.objects.filter(document=turns).exists()
    after = strip_of(turns)
    assert told(after) == told(before)
    assert [share.share for share in after.shares] == pytest.approx([share.share for share in before.shares])
    assert after.columns[0].at == before.columns[0].at


def test_shares_are_of_the_whole_the_largest_first(turns: Any) -> None:
    shares = strip_of(turns).shares
    assert [(share.author and share.author.name, round(share.share, 3)) for share in shares] == [
        ("ada", 0.667),
        ("bob", 0.333),
    ]


def test_more_authors_than_are_named_share_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strip, "AUTHORS_MAX", 2)
    document = make_document()
    for number, payload in enumerate(typed("xxxx")):
        append_rows(make_session(document, make_user(f"user {number}")), [payload])
    shares = strip_of(document).shares
    assert [share.author is None for share in shares] == [False, False, True]
    assert shares[-1].share == pytest.approx(0.5)


def test_a_column_names_its_largest_authors_alone(turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strip, "COLUMNS_MAX", 1)
    monkeypatch.setattr(strip, "AUTHORS_PER_COLUMN_MAX", 1)
    assert told(strip_of(turns)) == [(1, 36, [("ada", 0.667), (None, 0.333)])]


def test_what_a_log_that_was_set_back_has_lost_is_not_marked(turns: Any) -> None:
    name_version(turns, name="Lost", seq=36, actor=None)
    Update.objects.filter(document=turns, seq=36).update(kind=Kind.RESTORE)
    assert {mark.what for mark in strip_of(turns).marks} == {"named", Kind.RESTORE.label}
    Head.objects.filter(document=turns).update(seq=30)
    assert strip_of(turns).marks == []


def test_of_many_versions_of_one_run_a_page_lists_the_newest(turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "VERSIONS_PER_PAGE_MAX", 2)
    for seq in (30, 31, 32):
        name_version(turns, name=f"at {seq}", seq=seq, actor=None)
    entries = listing.entries_of(turns, run_page(turns), before=None)
    assert [entry.version.name for entry in entries if entry.version] == ["at 32", "at 31"]


def test_it_asks_for_no_more_rows_and_runs_of_a_column_than_it_may(turns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strip, "COLUMNS_MAX", 1)
    monkeypatch.setattr(strip, "ROWS_PER_COLUMN_MAX", 4)
    monkeypatch.setattr(strip, "RUNS_PER_COLUMN_MAX", 1)
    live = strip_of(turns)
    assert _rows_read(turns) == 4
    assert [share.author and share.author.name for share in live.shares] == ["ada", "bob"]
    squash_document(turns.pk, older_than=NEVER_WARM)
    assert [share.author and share.author.name for share in strip_of(turns).shares] == ["ada"]  # the first run's


def _rows_read(document: Any) -> int:
    """Live rows that the strip looks at, by the database's own count."""
    with CaptureQueriesContext(connection) as captured:
        strip_of(document)
    (query,) = [query["sql"] for query in captured if "generate_series" in query["sql"] and "row.at" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}")
        plan = [line for (line,) in cursor.fetchall()]
    (scan,) = [line for line in plan if " on history_update " in line]
    rows, loops = re.findall(r"rows=([\d.]+) loops=(\d+)", scan)[0]
    return round(float(rows) * int(loops))


def test_a_document_of_nobody_has_an_empty_strip() -> None:
    assert strip_of(make_document()) == Strip(head_seq=0, columns=(), marks=(), shares=())


def test_it_takes_as_many_queries_for_many_updates_as_for_few(django_assert_num_queries: Any, turns: Any) -> None:
    few = make_document()
    append_rows(make_session(few, make_user()), typed("xx"))
    with CaptureQueriesContext(connection) as captured:
        strip_of(few)
    with django_assert_num_queries(len(captured)):
        strip_of(turns)


@pytest.fixture
def marked() -> Shared:
    """Six updates, a version behind the second, an automatic one behind the fourth; the seventh is a restore."""
    shared = a_shared_document()
    for word in ("one ", "two ", "three ", "four ", "five ", "six "):
        shared.type(shared.owner, word)
    version = name_version(shared.document, name="Draft", note="for <b>review</b>", seq=2, actor=shared.owner)
    change_version(shared.document, version.version.id, locked=True, actor=shared.owner)
    Version.objects.create(
        document=shared.document,
        id=7,
        seq=4,
        at=version.version.at,
        created_at=version.version.created_at,
        automatic=True,
    )
    assert restore(write_session(shared.document, actor=shared.owner, via=Via.PAGE), 2) is not None
    return shared


@pytest.mark.parametrize("is_squashed", [False, True])
def test_versions_and_acts_are_marked_where_they_stand(marked: Shared, is_squashed: bool) -> None:
    if is_squashed:
        rechain(marked.document, at=seconds_apart(*[1.0] * 6))
        squash_document(marked.document.pk, older_than=NEVER_WARM)
    assert Update.objects.filter(document=marked.document).exists() is not is_squashed
    marks = [(mark.what, mark.seq, mark.count, mark.name) for mark in strip_of(marked.document).marks]
    assert marks == [("named", 2, 1, "Draft"), ("automatic", 4, 1, ""), ("restore", 7, 1, "")]


def test_marks_of_one_column_are_one(marked: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strip, "COLUMNS_MAX", 1)
    name_version(marked.document, name="Final", seq=5, actor=marked.owner)
    named = [mark for mark in strip_of(marked.document).marks if mark.what == "named"]
    assert [(mark.seq, mark.count, mark.name) for mark in named] == [(5, 2, "Final")]


@pytest.mark.parametrize("table", ["update", "run"])
def test_acts_are_found_without_looking_through_the_log(marked: Shared, table: str) -> None:
    asked = {"document_id": marked.document.pk, "width": 1, "head_seq": 7, "acts_max": 10}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {strip.ACTS}", asked)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert f"history_{table}_act" in plan


def test_the_strip_is_drawn_in_attributes_and_leads_to_its_moments(marked: Shared) -> None:
    html = signed_in(marked.viewer).get(marked.urls()["page"], {"show": "authors"}).content.decode()
    stretches = re.findall(r'<a class="stretch" href="\?seq=(\d+)&amp;show=authors" data-seq="\1"', html)
    assert stretches == [str(seq) for seq in range(1, 8)]
    colour = author_of(marked.owner).colour
    assert f'<rect class="author-{colour}" x="0.000%" width="14.286%" y="0.000%" height="100.000%"/>' in html
    assert [re.sub("·.*", "", title) for title in re.findall(r'class="flag \w+".*?<title>(.*?)</title>', html)] == [
        "Version “Draft” ",
        "Version kept by itself ",
        "Restore ",
    ]
    assert " style=" not in html


def test_parts_are_drawn_from_the_ground_up_and_dates_stand_along_it(
    turns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strip, "COLUMNS_MAX", 5)
    shown = drawn(strip_of(turns))
    assert shown.stretches[1].title == "ada 50%, bob 50% · seq 9–16 · about 1 Jan 2026"
    assert [(bar.y, bar.height) for bar in shown.stretches[1].bars] == [("50.000%", "50.000%"), ("0.000%", "50.000%")]
    assert len(shown.ticks) == 5
    assert [line.share for line in shown.legend] == ["67%", "33%"]


def test_a_life_of_one_day_is_told_by_the_time_of_day(marked: Shared) -> None:
    rechain(marked.document, at=seconds_apart(*[600.0] * 6))
    ticks = drawn(strip_of(marked.document)).ticks
    assert len({*ticks}) == len(ticks) > 1
    assert all(re.fullmatch(r"\d+ \w+, \d\d:\d\d", tick) for tick in ticks)


def entries(response: Any) -> list[tuple[str, int]]:
    return [("version" if entry.version else "run", entry.seq) for entry in response.context["entries"]]


def test_versions_stand_among_the_runs_each_once_over_all_pages(
    marked: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    rechain(marked.document, at=seconds_apart(*[600.0] * 6))
    client = signed_in(marked.viewer)
    order = "run 7, run 6, run 5, version 4, run 4, run 3, version 2, run 2, run 1"
    whole = [(what, int(seq)) for what, seq in (entry.split() for entry in order.split(", "))]
    assert entries(client.get(marked.urls()["page"])) == whole
    monkeypatch.setattr("history.timeline.run_page.__kwdefaults__", {"before": None, "limit": 2})
    seen: list[tuple[str, int]] = []
    query: dict[str, Any] = {}
    while True:
        page = client.get(marked.urls()["page"], query)
        seen += entries(page)
        if page.context["runs"].next_before is None:
            break
        query = {"before": page.context["runs"].next_before}
    assert seen == whole


def test_a_version_says_its_name_note_and_author_and_whether_it_is_locked(marked: Shared) -> None:
    html = signed_in(marked.viewer).get(marked.urls()["page"], {"seq": 2}).content.decode()
    named, automatic = re.findall(r'(?s)<li class="version[^"]*".*?</li>', html)[::-1]
    for words in ('class="version locked"', "Draft", "for &lt;b&gt;review&lt;/b&gt;", "named by owner", ">locked<"):
        assert words in named
    assert 'class="version automatic"' in automatic
    assert "named by" not in automatic
    assert '<span class="badge version">Draft</span>' in html


def test_an_undo_is_marked_as_one() -> None:
    document = make_document()
    append_rows(make_session(document, make_user()), typed("x"), kind=Kind.UNDO)
    assert [mark.what for mark in strip_of(document).marks] == ["undo"]
