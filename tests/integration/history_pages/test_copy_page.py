"""A copy of a moment from the pages: a document of one's own, made once, with its history for owners alone."""

import html
from typing import Any

import pytest
from django.test import Client
from pycrdt import Text

from documents.models import Document, Membership, Role
from history.errors import LogUnavailable
from history.folds import document_at
from history.models import Action, AuditEntry, Head, Kind, Session, Update
from tests.integration.history_pages.builders import (
    PAGE_DOORS,
    Shared,
    a_user,
    hidden_in,
    page_url,
    signed_in,
)

pytestmark = pytest.mark.django_db


def copied(client: Client, shared: Shared, door: str = "page", /, *, seq: int = 2, **typed: Any) -> Any:
    """Open the form and send it; fields that are not named stay as they are."""
    url = page_url(shared, "copy", door)
    asked = hidden_in(client.get(url, {"seq": seq}).content.decode())
    return client.post(url, {**asked, "title": "Mine", **typed})


def the_copy(shared: Shared) -> Document:
    return Document.objects.exclude(pk=shared.document.pk).get()


@pytest.mark.parametrize("door", PAGE_DOORS)
def test_a_reader_gets_a_document_of_their_own_that_says_what_this_one_said(shared: Shared, door: str) -> None:
    reader = a_user("reader", is_staff=True)
    Membership.objects.create(document=shared.document, user=reader, role=Role.VIEWER)
    answer = copied(signed_in(reader), shared, door)
    copy = the_copy(shared)
    assert answer["Location"] == copy.get_absolute_url()
    assert (copy.title, copy.created_by) == ("Mine", reader)
    assert str(document_at(copy.pk).doc.get("text", type=Text)) == "one two "
    row = Update.objects.get(document=copy)
    session = Session.objects.get(document=copy, id=row.session_id)
    assert (row.kind, session.user, session.via) == (Kind.IMPORT, reader, PAGE_DOORS[door])
    told = AuditEntry.objects.filter(action=Action.COPIED).values_list("via", "user")
    assert set(told) == {(PAGE_DOORS[door], reader.pk)}


@pytest.mark.parametrize("door", PAGE_DOORS)
def test_an_owner_takes_the_history_along(shared: Shared, door: str) -> None:
    owner = a_user("staff owner", is_staff=True)
    Membership.objects.create(document=shared.document, user=owner, role=Role.OWNER)
    copied(signed_in(owner), shared, door, history="on")
    assert Head.objects.get(document=the_copy(shared)).seq == 2
    assert set(AuditEntry.objects.filter(action=Action.COPIED).values_list("via", flat=True)) == {PAGE_DOORS[door]}


def test_only_owners_are_offered_the_history(shared: Shared) -> None:
    for who, is_offered in ((shared.owner, True), (shared.editor, False), (shared.viewer, False)):
        page = signed_in(who).get(page_url(shared, "copy", "page"), {"seq": 2}).content.decode()
        assert ('name="history"' in page) == is_offered


@pytest.mark.parametrize("options", [{}, {"history": "on"}])
def test_a_form_that_is_sent_twice_makes_one_copy(shared: Shared, options: dict[str, str]) -> None:
    client, url = signed_in(shared.owner), page_url(shared, "copy", "page")
    asked = hidden_in(client.get(url).content.decode())
    assert asked["seq"] == "3"
    answers = [client.post(url, {**asked, "title": "Mine", **options})["Location"] for _ in range(2)]
    assert answers == [the_copy(shared).get_absolute_url()] * 2


@pytest.mark.parametrize(
    ("typed", "status", "words"),
    [
        ({"title": ""}, 400, "This field is required."),
        ({"title": "x" * 300}, 400, "at most"),
        ({"seq": 9}, 404, "There is no moment 9"),
        ({"seq": "x"}, 400, "seq is a whole number"),
        ({"request_key": "k" * 101}, 400, "request_key is"),
    ],
)
def test_what_cannot_be_copied_is_said_in_words(shared: Shared, typed: dict[str, Any], status: int, words: str) -> None:
    answer = signed_in(shared.viewer).post(page_url(shared, "copy", "page"), {"seq": 2, "title": "Mine", **typed})
    assert (answer.status_code, words in answer.content.decode()) == (status, True)
    assert Document.objects.count() == 1


def test_a_history_that_is_too_long_and_a_log_that_is_away_keep_the_form_as_it_was_typed(
    shared: Shared, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise LogUnavailable("away")

    client = signed_in(shared.owner)
    typed = "Mine & “yours”"
    settings.PALIMPSEST = {**settings.PALIMPSEST, "COPY_ROWS_MAX": 1}
    refused = copied(client, shared, title=typed, history="on")
    assert (refused.status_code, "longer than a copy may bring along" in refused.content.decode()) == (409, True)
    with monkeypatch.context() as patch:
        patch.setattr("history.writes.append", away)
        failed = copied(client, shared, title=typed)
    assert (failed.status_code, "nothing was changed" in failed.content.decode()) == (503, True)
    for answer in (refused, failed):
        page = answer.content.decode()
        assert f'value="{html.escape(typed)}"' in page
        assert hidden_in(page)["request_key"]
    assert "checked" in refused.content.decode()
    assert Document.objects.count() == 1
    client.post(page_url(shared, "copy", "page"), {**hidden_in(failed.content.decode()), "title": typed})
    assert the_copy(shared).title == typed
