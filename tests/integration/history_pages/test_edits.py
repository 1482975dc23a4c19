"""The list of who edited what: its filters, its pages, and what it tells of each edit."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from documents.models import Membership, Role
from history import timeline
from history.models import Via
from tests.builders import rechain
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
    """Title and last seq of each line of a page."""
    return [(line.document.title, line.run.last_seq) for line in page(client, **query).context["lines"]]


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
    assert listed(client, via=Via.JSON.value) == [("Minutes", 4)]
    assert listed(client, via=Via.TASK.value) == []


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
        {"from": "x"},
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


def test_pages_of_a_door_go_on_where_reading_stopped(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "EDITS_READ_MAX", 2)
    assert follow(client, limit=50, via=Via.JSON.value) == [("Minutes", 4)]


def follow(client: Client, *, limit: int, **query: Any) -> list[tuple[str, int]]:
    """All lines of all pages, by the link to the older ones."""
    lines: list[tuple[str, int]] = []
    url = reverse("admin:history_edit_changelist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("history.edits.EDITS_PER_PAGE", limit)
        response = client.get(url, query)
        for _ in range(20):
            found = [(line.document.title, line.run.last_seq) for line in response.context["lines"]]
            assert len(found) <= limit
            lines += found
            if response.context["next_query"] is None:
                return lines
            response = client.get(f"{url}?{response.context['next_query']}")
    raise AssertionError("the pages do not end")


def test_a_line_says_who_when_where_from_how_much_and_leads_to_the_moment(client: Client, plans: Shared) -> None:
    html = page(client, document="Plans").content.decode()
    for said in ("other-owner", "1 Jan 2026, 03:30:00", "websocket", "2001:db8::1", "1<br>"):
        assert said in html
    assert f"{plans.urls()['admin']}?seq=3&amp;before=4" in html


def test_edits_of_accounts_that_are_gone_stay_in_the_list(client: Client, plans: Shared) -> None:
    plans.owner.delete()
    html = page(client, document="Plans").content.decode()
    assert "other-owner" not in html
    assert html.count("no account") == 3


def test_only_staff_reach_the_list(minutes: Shared) -> None:
    for who in (Client(), signed_in(minutes.owner)):
        assert who.get(reverse("admin:history_edit_changelist")).status_code == 302
