"""A document's life as people think of it, over the API: by author, up to a pause, a version or a restore."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from history.models import Kind, Update
from history.squash import squash_document
from history.versions import name_version
from tests.builders import NEVER_WARM, append_rows, make_session, rechain, seconds_apart
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, post_restore, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared() -> Shared:
    return a_shared_document()


@pytest.fixture
def client(shared: Shared) -> Client:
    return signed_in(shared.viewer)


def address(shared: Shared) -> str:
    return reverse("document-groups", args=[shared.document.key])


def spans(answer: Any) -> list[tuple[str | None, int, int]]:
    return [(group["author"], group["first_seq"], group["last_seq"]) for group in answer["groups"]]


def test_those_who_may_see_the_document_see_its_groups(shared: Shared) -> None:
    url = address(shared)
    assert Client().get(url).status_code == 401
    assert signed_in(a_user("stranger")).get(url).status_code == 404
    for user in (shared.viewer, shared.editor, shared.owner):
        assert signed_in(user).get(url).json() == {
            "document": str(shared.document.key),
            "groups": [],
            "next_before": None,
        }
    assert signed_in(shared.owner).post(url).status_code == 405


def test_a_group_is_what_one_person_did_through_any_tabs_up_to_a_pause(shared: Shared, client: Client) -> None:
    for person, words in (
        ("owner", "one "),
        ("owner", "two "),
        ("editor", "three "),
        ("owner", "four "),
        ("owner", "!"),
    ):
        shared.type(getattr(shared, person), words)
    rechain(shared.document, at=seconds_apart(60, 60, 60, 301))
    answer = client.get(address(shared)).json()
    assert spans(answer) == [("owner", 5, 5), ("owner", 1, 4), ("editor", 3, 3)]
    group = answer["groups"][1]
    assert (group["first_at"], group["last_at"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:03:00Z")
    assert len(group["sessions"]) == 3
    assert set(group) == {
        "sessions", "first_seq", "last_seq", "first_at", "last_at", "author", "kind", "source_seq",
    }  # fmt: skip


def test_a_named_version_and_a_restore_part_what_stands_around_them(shared: Shared, client: Client) -> None:
    for word in ("one ", "two ", "three "):
        shared.type(shared.owner, word)
    name_version(shared.document, name="draft", seq=2, actor=None)
    assert post_restore(signed_in(shared.owner), shared, "api", 1).status_code == 201
    shared.type(shared.owner, "four")
    answer = client.get(address(shared)).json()
    assert spans(answer) == [("owner", 5, 5), ("owner", 4, 4), ("owner", 3, 3), ("owner", 1, 2)]
    assert [(group["kind"], group["source_seq"]) for group in answer["groups"][:2]] == [("edit", None), ("restore", 1)]


def test_pages_follow_each_other_and_tell_each_group_once(shared: Shared, client: Client) -> None:
    for word in "abcdefg":
        shared.type(shared.owner, word)
        shared.type(shared.editor, word)
    rechain(shared.document, at=seconds_apart(*[400, 1] * 6, 400))
    whole = spans(client.get(address(shared)).json())
    paged, before = [], None
    while True:
        asked = {"limit": 3} | ({} if before is None else {"before": before})
        answer = client.get(address(shared), asked).json()
        paged += spans(answer)
        before = answer["next_before"]
        if before is None:
            break
        assert len(answer["groups"]) == 3
    assert paged == whole
    assert len(whole) == 14


def test_words_tell_what_changed_and_what_others_did_in_between(shared: Shared, client: Client) -> None:
    shared.type(shared.owner, "one ")
    shared.type(shared.editor, "two ")
    shared.type(shared.owner, "three")
    answer = client.get(address(shared), {"words": 1}).json()
    assert [group["words"] for group in answer["groups"]] == ["inserted 3 words: “one two three”", "inserted “two”"]


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 201}, {"words": 1, "limit": 21}, {"words": "yes"}, {"before": "x"}],
    ids=lambda query: "&".join(f"{name}={value}" for name, value in query.items()),
)
def test_what_cannot_be_read_or_is_too_much_is_refused(client: Client, shared: Shared, query: dict[str, Any]) -> None:
    answer = client.get(address(shared), query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


def test_with_words_a_page_is_short_without_being_asked(shared: Shared, client: Client) -> None:
    session = make_session(shared.document)
    append_rows(session, [b"\x00\x00"] * 25, kind=Kind.RESTORE)
    rechain(shared.document, at=seconds_apart(*[400] * 24))
    assert len(client.get(address(shared)).json()["groups"]) == 25
    answer = client.get(address(shared), {"words": 1}).json()
    assert (len(answer["groups"]), answer["next_before"]) == (20, 6)


def test_a_page_costs_the_same_however_long_the_document_is(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_ROWS_MIN": 5, "SEGMENT_ROWS_MAX": 5}
    queries = []
    for rows in (150, 300):
        shared = a_shared_document(prefix=f"{rows}-")
        append_rows(make_session(shared.document, shared.owner), [b"\x00\x00"] * rows)
        rechain(shared.document, at=seconds_apart(*[400] * (rows - 1)))
        squash_document(shared.document.pk, older_than=NEVER_WARM)
        client = signed_in(shared.viewer)
        with CaptureQueriesContext(connection) as captured:
            assert len(client.get(address(shared), {"limit": 10}).json()["groups"]) == 10
        queries.append(len(captured))
    assert queries[0] == queries[1]


def test_a_damaged_log_is_told_in_words(shared: Shared, client: Client) -> None:
    for word in ("one ", "two ", "three "):
        shared.type(shared.owner, word)
    Update.objects.filter(document=shared.document, seq=2)._raw_delete("default")
    answer = client.get(address(shared), {"words": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_hole")
