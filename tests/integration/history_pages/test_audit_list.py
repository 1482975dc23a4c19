"""The audit in the admin: its filters, its pages, and what it tells of each edit and act."""

import csv
import io
import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from documents.acts import Actor, acting
from documents.models import Membership, Role
from documents.opening import rename_document
from history.audit import trail
from history.audit.entries import NO_DOCUMENT, record
from history.audit.export import COLUMNS
from history.models import Action, AuditEntry, Via
from history.times import microseconds
from history.writes import restore, write_session
from tests.builders import append_rows, make_session, rechain, typed
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, signed_in

pytestmark = pytest.mark.django_db

START = datetime(2026, 1, 1, tzinfo=timezone.get_default_timezone())
"""Seq n of the first document was written n hours later, of the second n hours and a half."""


@pytest.fixture
def minutes() -> Shared:
    shared = a_shared_document("Minutes")
    for number in range(6):
        shared.type(shared.owner if number % 2 else shared.editor, "x", via=Via.JSON if number == 3 else Via.WEBSOCKET)
    rechain(shared.document, at=lambda seq: START + timedelta(hours=seq))
    return shared


@pytest.fixture
def plans() -> Shared:
    shared = a_shared_document("Plans", prefix="other-")
    for _ in range(3):
        shared.type(shared.owner, "y", ip="2001:db8::1")
    rechain(shared.document, at=lambda seq: START + timedelta(hours=seq, minutes=30))
    return shared


@pytest.fixture
def staff(minutes: Shared, plans: Shared) -> User:
    staff = a_user("staff", is_staff=True)
    for shared in (minutes, plans):
        Membership.objects.create(document=shared.document, user=staff, role=Role.VIEWER)
    return staff


@pytest.fixture
def client(staff: User) -> Client:
    return signed_in(staff)


def listed(client: Client, **query: Any) -> list[tuple[str, int]]:
    """Title and last seq of each edit of a page."""
    lines = page(client, **{"what": "edited", **query}).context["lines"]
    return [(line.document.title, line.run.last_seq) for line in lines]


def acts(client: Client, **query: Any) -> list[tuple[str | None, str]]:
    """Title and what was done, of each line of a page that is no edit."""
    lines = page(client, **query).context["lines"]
    return [(line.document and line.document.title, line.what.value) for line in lines if line.run is None]


def page(client: Client, **query: Any) -> Any:
    response = client.get(reverse("admin:history_edit_changelist"), query)
    assert response.status_code == 200
    return response


EVERYTHING = [
    ("Minutes", 6), ("Minutes", 5), ("Minutes", 4), ("Plans", 3), ("Minutes", 3), ("Plans", 2), ("Minutes", 2),
    ("Plans", 1), ("Minutes", 1),
]  # fmt: skip


def test_all_edits_of_readable_documents_newest_first(client: Client) -> None:
    assert listed(client) == EVERYTHING


@pytest.mark.parametrize("words", ["plan", "PLANS", "key", "name"])
def test_filtered_by_a_documents_title_key_or_room_name(client: Client, plans: Shared, words: str) -> None:
    asked = {"key": str(plans.document.key), "name": plans.document.name}.get(words, words)
    assert listed(client, document=asked) == [("Plans", 3), ("Plans", 2), ("Plans", 1)]


def test_filtered_by_user(client: Client) -> None:
    assert listed(client, user="owner") == [("Minutes", 6), ("Minutes", 4), ("Minutes", 2)]
    assert listed(client, user="nobody of that name") == []
    assert listed(client, user="own") == []


def test_filtered_by_user_in_any_case_unless_another_is_spelt_so(client: Client) -> None:
    assert listed(client, user="OWNER") == [("Minutes", 6), ("Minutes", 4), ("Minutes", 2)]
    a_user("Owner")
    assert listed(client, user="Owner") == []
    assert listed(client, user="owner") == [("Minutes", 6), ("Minutes", 4), ("Minutes", 2)]


def test_filtered_by_door(client: Client) -> None:
    assert listed(client, via="json") == [("Minutes", 4)]
    assert listed(client, via="task") == []


def test_filtered_by_time_with_both_ends_included(client: Client) -> None:
    assert listed(client, since="2026-01-01T03:00", until="2026-01-01T04:00") == [
        ("Minutes", 4), ("Plans", 3), ("Minutes", 3)
    ]  # fmt: skip


def test_filters_narrow_each_other(client: Client) -> None:
    assert listed(client, document="minutes", user="editor", until="2026-01-01T03:00") == [
        ("Minutes", 3), ("Minutes", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        {"since": "soon"},
        {"until": "0001-01-01T00:00"},
        {"since": "9999-12-31T23:59"},
        {"via": "99"},
        {"before": "x"},
        {"since": "2026-02-01T00:00", "until": "2026-01-01T00:00"},
    ],
)
def test_a_filter_that_cannot_be_read_is_answered_in_words(client: Client, query: dict[str, str]) -> None:
    response = page(client, **query)
    assert response.context["lines"] == []
    assert 'role="alert"' in response.content.decode()


def test_pages_hold_every_edit_once(client: Client) -> None:
    assert follow(client, limit=2) == EVERYTHING


def test_pages_hold_every_edit_once_though_many_ended_at_the_same_time(
    client: Client, minutes: Shared, plans: Shared
) -> None:
    for shared in (minutes, plans):
        rechain(shared.document, at=lambda seq: START)
    assert sorted(follow(client, limit=2)) == sorted(listed(client))
    assert len(listed(client)) == 9


def test_no_line_is_lost_where_an_edit_goes_on_between_two_pages(client: Client, minutes: Shared) -> None:
    writer = make_session(minutes.document)
    updates = typed("ab", client_id=9)
    append_rows(writer, updates[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("history.audit.filters.LINES_PER_PAGE", 1)
        first = page(client, what="edited").context
        append_rows(writer, updates[1:])
        (before,) = parse_qs(first["next_query"])["before"]
        assert [line.run.last_seq for line in first["lines"]] == [7]
        assert listed(client, before=before) == [("Minutes", 6)]


def test_a_page_looks_at_no_more_than_it_may_wherever_it_is_asked_to_begin(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "LINES_READ_MAX", 2)
    after_all = microseconds(timezone.now() + timedelta(days=1))
    assert len(listed(client, before=f"{after_all}.{10**17}")) == 2


def test_pages_of_a_door_go_on_where_reading_stopped(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "LINES_READ_MAX", 2)
    assert follow(client, limit=50, via="json") == [("Minutes", 4)]


def follow(client: Client, *, limit: int, **query: Any) -> list[tuple[str, int]]:
    """All lines of all pages, by the link to the older ones."""
    lines: list[tuple[str, int]] = []
    url = reverse("admin:history_edit_changelist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("history.audit.filters.LINES_PER_PAGE", limit)
        response = client.get(url, {"what": "edited", **query})
        for _ in range(20):
            found = [(line.document.title, line.run.last_seq) for line in response.context["lines"]]
            assert len(found) <= limit
            lines += found
            if response.context["next_query"] is None:
                return lines
            response = client.get(f"{url}?{response.context['next_query']}")
    raise AssertionError("the pages do not end")


def test_a_line_says_who_when_where_from_how_much_and_leads_to_the_moment(client: Client, plans: Shared) -> None:
    html = page(client, document="Plans", what="edited").content.decode()
    for said in ("other-owner", "1 Jan 2026, 03:30:00", "websocket", "2001:db8::1", "1<br>"):
        assert said in html
    assert f"{plans.urls()['admin']}?seq=3&amp;before=4" in html


def test_edits_of_accounts_that_are_gone_stay_in_the_list(client: Client, plans: Shared) -> None:
    plans.owner.delete()
    html = page(client, document="Plans", what="edited").content.decode()
    assert "other-owner" not in html
    assert html.count("no account") == 3


def test_only_staff_reach_the_list(minutes: Shared) -> None:
    for who in (Client(), signed_in(minutes.owner)):
        assert who.get(reverse("admin:history_edit_changelist")).status_code == 302


def test_acts_stand_beside_edits_in_the_order_of_time(client: Client, minutes: Shared) -> None:
    rename_document(minutes.document, title="Notes")
    seen = [(line.what.value, line.run is None) for line in page(client, document="Notes").context["lines"]]
    assert seen[0] == ("renamed", True)
    assert ("edited", False) in seen
    times = [line.at for line in page(client).context["lines"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == trail.LINES_PER_PAGE or len(times) > len(EVERYTHING)


def test_filtered_by_what_was_done(client: Client, minutes: Shared) -> None:
    restore(write_session(minutes.document, actor=minutes.owner, via=Via.PAGE), 1)
    rename_document(minutes.document, title="Notes")
    assert acts(client, what="renamed") == [("Notes", "renamed")]
    assert listed(client, what="restored") == [("Notes", 7)]
    assert acts(client, what="restored") == []
    assert ("Notes", 7) not in listed(client, what="edited")


@pytest.mark.parametrize("words", ["plan", "OTHER-OWNER", "other-ed"])
def test_words_are_looked_for_in_titles_and_names(client: Client, words: str) -> None:
    found = listed(client, words=words)
    assert found == ([] if words == "other-ed" else [("Plans", 3), ("Plans", 2), ("Plans", 1)])
    about = [(line.member, line.what.value) for line in page(client, words=words).context["lines"] if line.member]
    whom = "other-owner" if words == "OTHER-OWNER" else "other-editor"
    assert (whom, "member-added") in about  # by the title, or as whom it is about


def test_words_are_looked_for_in_details(client: Client, minutes: Shared) -> None:
    rename_document(minutes.document, title="Ünbeschrieben")
    rename_document(minutes.document, title="Minutes")
    assert acts(client, words="nbeschrieb") == [("Minutes", "renamed")] * 2


def test_acts_are_filtered_by_user_door_and_time(client: Client, minutes: Shared, plans: Shared) -> None:
    with acting(Actor(user=minutes.editor, door="page", ip="192.0.2.9")):
        rename_document(plans.document, title="Schemes")
    assert acts(client, user="editor", document="Schemes") == [("Schemes", "renamed")]
    assert ("Schemes", "renamed") in acts(client, via="page")
    assert acts(client, via="websocket", what="renamed") == []
    assert acts(client, until="2026-01-01T00:00", what="renamed") == []
    html = page(client, what="renamed").content.decode()
    for said in ("editor", "192.0.2.9", "page", "was: Plans, title: Schemes"):
        assert said in html


def test_nobody_sees_acts_on_what_they_may_not_read(client: Client, staff: User, minutes: Shared) -> None:
    rename_document(minutes.document, title="Notes")
    record(Action.EXPORTED, document=None)
    assert acts(client, what="renamed") == [("Notes", "renamed")]
    Membership.objects.get(document=minutes.document, user=staff).delete()
    assert acts(client, what="renamed") == []
    assert acts(client, what="exported") == []
    for words in ("Notes", minutes.document.name, str(minutes.document.key)):
        assert acts(client, document=words) == []


def test_superusers_see_what_was_erased_and_what_is_of_no_one_document(minutes: Shared, plans: Shared) -> None:
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    record(Action.EXPORTED, document=None)
    key = str(minutes.document.key)
    with acting(Actor(user=plans.owner, door="admin")):
        minutes.document.delete()
    assert acts(root, what="erased") == [(None, "erased")]
    assert acts(root, what="exported") == [(None, "exported")]
    of_one = acts(root, document=key)
    assert of_one[0] == (None, "erased")
    assert (None, "created") in of_one
    assert ("Plans", "created") not in of_one
    assert listed(root) == [("Plans", 3), ("Plans", 2), ("Plans", 1)]


def test_pages_hold_every_line_once(minutes: Shared, plans: Shared, client: Client) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("history.audit.trail.LINES_PER_PAGE", 100)
        patch.setattr("history.audit.filters.LINES_PER_PAGE", 100)
        whole = [_place(line) for line in page(client).context["lines"]]
        patch.setattr("history.audit.filters.LINES_PER_PAGE", 2)
        patch.setattr("history.audit.trail.ENTRIES_PER_QUERY", 3)
        patch.setattr("history.runs.SUMMARIES_PER_QUERY", 2)
        paged, query = [], "?"
        for _ in range(50):
            context = client.get(reverse("admin:history_edit_changelist") + query).context
            paged += [_place(line) for line in context["lines"]]
            if context["next_query"] is None:
                break
            query = f"?{context['next_query']}"
    assert len(whole) > 15
    assert len(set(whole)) == len(whole)
    assert paged == whole


def _place(line: Any) -> tuple[Any, ...]:
    return line.document_id, line.run and line.run.last_seq, line.entry


def _whole(file: Any) -> bytes:
    return b"".join(file.streaming_content)


def test_every_edit_and_act_of_the_filters_is_in_the_files(client: Client, staff: User, plans: Shared) -> None:
    lines = page(client, document="Plans").context["lines"]
    query = urlencode({"document": "Plans"})
    csv_file = client.get(reverse("admin:history_edit_export", args=["csv"]) + f"?{query}")
    assert csv_file["Content-Disposition"].startswith("attachment; filename=")
    rows = list(csv.DictReader(io.StringIO(_whole(csv_file).decode(), newline="")))
    jsonl_file = client.get(reverse("admin:history_edit_export", args=["jsonl"]) + f"?{query}")
    records = [json.loads(line) for line in _whole(jsonl_file).splitlines()]
    assert [row["what"] for row in rows] == [each["what"] for each in records] == [line.what.value for line in lines]
    assert list(rows[0]) == list(records[0]) == list(COLUMNS)
    (last,) = [each for each in records if each["last_seq"] == 3]
    assert (last["who"], last["door"], last["ip"]) == ("other-owner", "websocket", "2001:db8::1")
    exported = AuditEntry.objects.filter(action=Action.EXPORTED, document_id=NO_DOCUMENT)
    assert [(each.user_id, each.via, each.detail) for each in exported] == [
        (staff.pk, Via.ADMIN.value, {"of": "audit", "format": form, "filters": query}) for form in ("csv", "jsonl")
    ]


def test_there_is_no_file_of_another_form_nor_of_filters_that_cannot_be_read(client: Client) -> None:
    assert client.get(reverse("admin:history_edit_export", args=["xlsx"])).status_code == 404
    assert client.get(reverse("admin:history_edit_export", args=["csv"]), {"since": "soon"}).status_code == 404
    assert not AuditEntry.objects.filter(action=Action.EXPORTED).exists()


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_cell_of_a_spreadsheet_begins_as_a_formula_does(client: Client, plans: Shared, start: str) -> None:
    rename_document(plans.document, title=f'{start}HYPERLINK("https://example.com")')
    User.objects.filter(pk=plans.owner.pk).update(username=f"{start}cmd")
    file = client.get(reverse("admin:history_edit_export", args=["csv"]), {"document": "HYPERLINK"})
    text = _whole(file).decode()
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert f"'{start}cmd" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_only_staff_reach_the_files(minutes: Shared) -> None:
    for who in (Client(), signed_in(minutes.owner)):
        assert who.get(reverse("admin:history_edit_export", args=["csv"])).status_code == 302


def test_what_is_so_or_not_is_told_in_words(minutes: Shared) -> None:
    record(Action.EXPORTED, document=minutes.document, detail={"of": "history", "pseudonymous": False})
    entry = AuditEntry.objects.get(document_id=minutes.document.pk, action=Action.EXPORTED)
    page = signed_in(a_user("root", is_staff=True, is_superuser=True)).get(
        reverse("admin:history_edit_changelist"), {"what": entry.get_action_display()}
    )
    assert "of: history, pseudonymous: no" in page.content.decode()
