"""Undoing what a person or a run did from the pages: a preview first, then one update, by whoever asks."""

from datetime import UTC
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pycrdt import Map, Text

from documents.models import Membership, Role
from history.crdt.content import canonical
from history.errors import LogUnavailable
from history.folds import document_at
from history.models import Kind, Session, Update
from history.squash import squash_document
from history.timeline import user_named
from history.writers import writers
from history.writes import append_update
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
from tests.integration.history_pages.builders import (
    PAGE_DOORS,
    Shared,
    a_shared_document,
    a_user,
    hidden_in,
    page_url,
    signed_in,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared() -> Shared:
    """The owner writes, the editor writes, deletes and sets a key, the owner writes again: seqs 1 to 5."""
    shared = a_shared_document()
    text = shared.doc.get("text", type=Text)
    shared.type(shared.owner, "what the owner said")
    shared.type(shared.editor, " and what the editor said")
    shared.edit(shared.editor, lambda: text.__delitem__(slice(0, 5)))
    shared.edit(shared.editor, lambda: shared.doc.get("map", type=Map).update({"k": 1}))
    shared.type(shared.owner, ", the end")
    return shared


@pytest.fixture
def client(shared: Shared) -> Client:
    staff = a_user("staff", is_staff=True)
    Membership.objects.create(document=shared.document, user=staff, role=Role.EDITOR)
    return signed_in(staff)


def text_of(shared: Shared) -> str:
    return str(document_at(shared.document.pk).doc.get("text", type=Text))


def previewed(client: Client, shared: Shared, door: str = "page", /, **asked: Any) -> Any:
    return client.get(page_url(shared, "undo", door), asked)


def sent(client: Client, shared: Shared, preview: Any, door: str = "page", **options: Any) -> Any:
    """Press the button of a preview."""
    return client.post(page_url(shared, "undo", door), hidden_in(preview.content.decode()), **options)


@pytest.mark.parametrize("door", PAGE_DOORS)
def test_a_preview_shows_what_would_go_and_the_button_does_it(shared: Shared, client: Client, door: str) -> None:
    seen = previewed(client, shared, door, user="editor", **{"from": 1, "to": 5})
    page = seen.content.decode()
    assert seen.context["preview"].plan.updates == 3
    assert "what the owner said, the end" in page
    assert "“and what the editor said”" in page
    assert "3 updates undone" in page
    assert shared.head_seq == 5
    done = sent(client, shared, seen, door, REMOTE_ADDR="198.51.100.9", follow=True)
    assert "Undone what editor did from seq 1 to 5, as seq 6." in done.content.decode()
    assert text_of(shared) == "what the owner said, the end"
    row = Update.objects.get(document=shared.document, seq=6)
    session = Session.objects.get(document=shared.document, id=row.session_id)
    assert (row.kind, session.via, session.ip) == (Kind.UNDO, PAGE_DOORS[door], "198.51.100.9")
    assert session.user is not None and session.user.get_username() == "staff"
    assert session.detail["undone"] == {"user": str(shared.editor.pk), "first_seq": 1, "last_seq": 5}


def test_a_button_that_is_pressed_twice_undoes_once(shared: Shared, client: Client) -> None:
    seen = previewed(client, shared, user="editor")
    first = sent(client, shared, seen)
    shared.type(shared.editor, "later")
    assert sent(client, shared, seen)["Location"] == first["Location"]
    assert Update.objects.filter(document=shared.document, kind=Kind.UNDO).count() == 1


def test_what_was_written_after_the_preview_is_not_undone(shared: Shared, client: Client) -> None:
    seen = previewed(client, shared, user="editor")
    shared.type(shared.editor, " and more")
    sent(client, shared, seen)
    assert text_of(shared) == "what the owner said, the end and more"


def test_the_people_are_those_who_wrote_in_the_span_who_wrote_most_first(shared: Shared, client: Client) -> None:
    def offered(**asked: int) -> list[str]:
        return [name for name, _ in previewed(client, shared, **asked).context["form"].fields["user"].widget.choices][
            1:
        ]

    assert offered() == ["editor", "owner"]
    assert offered(**{"from": 2, "to": 4}) == ["editor"]
    assert offered(to=1) == ["owner"]


@pytest.mark.django_db(transaction=True)
def test_who_wrote_is_the_same_before_and_after_a_squash(shared: Shared, settings: Any) -> None:
    spans = [(first, last) for first in range(1, 6) for last in range(first, 6)]

    def told() -> list[list[Any]]:
        return [writers(shared.document.pk, first_seq=first, last_seq=last) for first, last in spans]

    before = [set(people) for people in told()]
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_ROWS_MIN": 1, "SEGMENT_ROWS_MAX": 2}
    assert squash_document(shared.document.pk, older_than=NEVER_WARM)
    # A run may reach over the end of the span: whoever wrote beside it may then be named too, nobody is left out.
    assert all(people <= set(found) for people, found in zip(before, told(), strict=True))
    assert writers(shared.document.pk, first_seq=1, last_seq=5, limit=1) == [shared.editor]


def test_a_run_is_undone_from_its_place_in_the_list(shared: Shared, client: Client) -> None:
    page = client.get(shared.urls()["page"]).content.decode()
    session = Update.objects.get(document=shared.document, seq=2).session_id
    link = f"{page_url(shared, 'undo', 'page')}?run-session={session}&amp;from=2&amp;to=2"
    assert link in page
    seen = client.get(link.replace("&amp;", "&"))
    assert "in one sitting" in seen.content.decode()
    sent(client, shared, seen)
    assert text_of(shared) == "the owner said, the end"


def test_somebody_without_an_account_is_undone_by_the_run(shared: Shared, client: Client) -> None:
    session = make_session(shared.document)
    append_update(session, typed(["by nobody "], client_id=5)[0])
    seen = previewed(client, shared, "page", **{"run-session": session.id, "from": 6, "to": 6})
    assert "no account" in seen.content.decode()
    sent(client, shared, seen)
    assert "by nobody" not in text_of(shared)


def test_an_undo_is_undone_by_its_own_run(shared: Shared, client: Client) -> None:
    before = canonical(document_at(shared.document.pk).doc)
    sent(client, shared, previewed(client, shared, user="editor"))
    assert canonical(document_at(shared.document.pk).doc) != before
    session = Update.objects.get(document=shared.document, seq=6).session_id
    sent(client, shared, previewed(client, shared, "page", **{"run-session": session, "from": 6, "to": 6}))
    assert canonical(document_at(shared.document.pk).doc) == before


def test_a_span_of_times_takes_the_whole_of_its_seconds(shared: Shared, client: Client) -> None:
    rechain(shared.document, at=seconds_apart(10, 10.4, 10, 10))
    times = {row.seq: row.at for row in Update.objects.filter(document=shared.document)}
    local = {seq: f"{at.astimezone(timezone.get_current_timezone()):%Y-%m-%dT%H:%M:%S}" for seq, at in times.items()}
    seen = previewed(client, shared, user="editor", since=local[3], until=local[3])
    assert (seen.context["wanted"].first_seq, seen.context["wanted"].last_seq) == (3, 3)
    late = previewed(client, shared, user="editor", since=f"{times[5].astimezone(UTC):%Y}-12-31T00:00:00")
    assert "Nothing was written then." in late.content.decode()
    assert late.status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"user": "editor", "from": 0}, 400, "greater than or equal to 1"),
        ({"user": "editor", "from": "x"}, 400, "whole number"),
        ({"user": "editor", "from": "1", "since": "2026-01-01T00:00:00"}, 400, "Give a seq or a time, not both."),
        ({"user": "editor", "since": "0001-01-01T00:00:00"}, 400, "greater than or equal to"),
        ({"user": "editor", "since": "9999-12-31T23:59:59"}, 400, "less than or equal to"),
        ({"user": "editor", "from": 9}, 404, "There is no moment 9"),
        ({"user": "\x00"}, 400, "Null characters"),
        ({"user": "nobody of that name"}, 400, "There is no account of that name."),
        ({"run-session": 1}, 400, "There is no such run"),
        ({"run-session": "9" * 30}, 400, "cannot be read"),
        ({"user": "editor", "run-session": 1}, 400, "not both"),
        ({"user": "viewer"}, 200, "viewer wrote nothing from seq 1 to 5"),
    ],
)
def test_what_cannot_be_undone_is_said_in_words_and_the_form_keeps_what_was_typed(
    shared: Shared, client: Client, asked: dict[str, Any], status: int, words: str
) -> None:
    seen = previewed(client, shared, **asked)
    assert (seen.status_code, words in seen.content.decode()) == (status, True)
    assert seen.context["form"].data["user"] if "user" in asked else True
    assert shared.head_seq == 5


def test_a_run_of_another_document_is_none_here_and_names_nobody(shared: Shared, client: Client) -> None:
    other = make_session(make_document(), make_user("mallory"))
    append_rows(other, typed("x"))
    seen = previewed(client, shared, **{"run-session": other.id})
    assert (seen.status_code, "There is no such run" in seen.content.decode()) == (400, True)
    assert "mallory" not in seen.content.decode()


def test_nobody_is_undone_where_nobody_is_named(shared: Shared, client: Client) -> None:
    answer = client.post(page_url(shared, "undo", "page"), {"from": 1})
    assert (answer.status_code, "Say whose edits to undo." in answer.content.decode()) == (400, True)
    assert shared.head_seq == 5


def test_more_updates_than_fit_are_refused_in_words_with_the_form_to_shorten_the_span(
    shared: Shared, client: Client, settings: Any
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNDO_ROWS_MAX": 2}
    seen = previewed(client, shared, user="editor")
    assert seen.status_code == 409
    assert "More than 2 updates would be undone at once; name a shorter span." in seen.content.decode()
    assert 'name="from"' in seen.content.decode()


def test_a_log_that_cannot_be_written_is_a_503_and_the_same_button_tries_again_once(
    shared: Shared, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise LogUnavailable("away")

    seen = previewed(client, shared, user="editor")
    with monkeypatch.context() as patch:
        patch.setattr("history.writes.append", away)
        failed = sent(client, shared, seen)
    assert (failed.status_code, "nothing was changed" in failed.content.decode()) == (503, True)
    assert hidden_in(failed.content.decode()) == hidden_in(seen.content.decode())
    sent(client, shared, failed)
    sent(client, shared, seen)
    assert shared.head_seq == 6


def test_nothing_is_left_the_second_time(shared: Shared, client: Client) -> None:
    sent(client, shared, previewed(client, shared, user="editor", to=5))
    seen = previewed(client, shared, user="editor", to=5)
    assert "Nothing is left of what editor did from seq 1 to 5." in seen.content.decode()
    assert "What others brought back with a restore or an undo counts as theirs." in seen.content.decode()
    again = client.post(page_url(shared, "undo", "page"), {"user": "editor", "from": 1, "to": 5}, follow=True)
    assert "Nothing was added." in again.content.decode()
    assert shared.head_seq == 6


def test_a_document_without_edits_has_nothing_to_undo() -> None:
    empty = a_shared_document()
    seen = previewed(signed_in(empty.owner), empty, user="owner")
    assert (seen.status_code, "Nobody has written yet." in seen.content.decode()) == (200, True)


def test_of_names_that_differ_in_case_alone_only_the_one_that_is_spelt_so_is_meant() -> None:
    first, second = a_user("Bob"), a_user("bob")
    assert (user_named("Bob"), user_named("bob"), user_named("BoB")) == (first, second, None)
    assert user_named("ADA") is None
    ada = a_user("ada")
    assert user_named("ADA") == ada
