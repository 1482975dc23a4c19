"""Restoring a moment from the page, the admin and the API: one forward update, by somebody, from somewhere."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from pycrdt import Array, Map, Text, XmlElement, XmlFragment, XmlText
from pytest_django import DjangoCaptureOnCommitCallbacks

from documents.models import Membership, Role
from history.crdt.content import canonical
from history.errors import LogUnavailable, OutcomeUnknown
from history.fates import Stored
from history.folds import document_at
from history.models import Kind, Session, Update, Via
from history.signals import log_appended
from history.writes import write_session
from tests.integration.history_pages.builders import (
    Shared,
    a_shared_document,
    a_user,
    hidden_in,
    post_restore,
    signed_in,
)

pytestmark = pytest.mark.django_db

DOORS = {"page": Via.PAGE, "api": Via.API, "admin": Via.ADMIN}


@pytest.fixture
def shared() -> Shared:
    """Every type of root, written and then overwritten: seq 4 is the moment to come back to."""
    shared = a_shared_document()
    doc = shared.doc
    settings = doc.get("settings", type=Map)
    todo = doc.get("todo", type=Array)
    pages = doc.get("pages", type=XmlFragment)
    shared.type(shared.owner, "what was said")
    shared.edit(shared.editor, lambda: settings.update({"language": "en", "day": 3}))
    shared.edit(shared.owner, lambda: todo.extend(["a", "b"]))
    shared.edit(shared.editor, lambda: pages.children.append(XmlElement("p", {"a": "1"}, [XmlText("leaf")])))
    shared.edit(shared.editor, lambda: doc.get("text", type=Text).clear())
    shared.edit(shared.owner, lambda: settings.update({"language": "fr"}))
    shared.edit(shared.owner, lambda: todo.pop(0))
    shared.edit(shared.editor, lambda: pages.children.__delitem__(0))
    return shared


@pytest.fixture
def staff(shared: Shared) -> User:
    staff = a_user("staff", is_staff=True)
    Membership.objects.create(document=shared.document, user=staff, role=Role.EDITOR)
    return staff


@pytest.mark.parametrize("door", DOORS)
def test_a_restore_is_one_row_with_its_actor_its_door_and_its_source(shared: Shared, staff: User, door: str) -> None:
    client = signed_in(staff)
    response = post_restore(client, shared, door, 4, REMOTE_ADDR="198.51.100.9", headers={"User-Agent": "a browser"})
    assert response.status_code in (201, 302)
    assert shared.head_seq == 9
    row = Update.objects.get(document=shared.document, seq=9)
    assert row.kind == Kind.RESTORE
    session = Session.objects.get(document=shared.document, id=row.session_id)
    assert (session.user, session.via, session.ip) == (staff, DOORS[door], "198.51.100.9")
    assert (session.user_agent, session.detail["source_seq"]) == ("a browser", 4)


@pytest.mark.parametrize("door", DOORS)
def test_after_a_restore_the_content_is_what_it_was(shared: Shared, staff: User, door: str) -> None:
    then = canonical(document_at(shared.document.pk, seq=4).doc)
    post_restore(signed_in(staff), shared, door, 4)
    assert canonical(document_at(shared.document.pk).doc) == then
    assert canonical(document_at(shared.document.pk, seq=8).doc) != then


def test_a_restore_is_told_to_open_editors_once(
    shared: Shared, staff: User, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    told: list[int] = []

    def hear(*, stored: Stored, **_: Any) -> None:
        told.append(stored.seq)

    log_appended.connect(hear)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            post_restore(signed_in(staff), shared, "admin", 4)
    finally:
        log_appended.disconnect(hear)
    assert told == [9]


@pytest.mark.parametrize("door", ["page", "admin"])
def test_the_page_asks_first_and_then_says_what_happened(shared: Shared, staff: User, door: str) -> None:
    client = signed_in(staff)
    question = client.get(shared.restore_urls()[door], {"seq": 4})
    assert "seq 4" in question.content.decode()
    assert shared.head_seq == 8
    done = post_restore(client, shared, door, 4, follow=True)
    assert "Restored to seq 4 as seq 9." in done.content.decode()
    assert done.context["moment"].seq == 9
    assert "restored seq 4" in done.content.decode()


@pytest.mark.parametrize("door", ["page", "admin"])
def test_restoring_what_it_is_already_adds_nothing_and_says_so(shared: Shared, staff: User, door: str) -> None:
    done = post_restore(signed_in(staff), shared, door, 8, follow=True)
    assert "It is that already" in done.content.decode()
    assert shared.head_seq == 8


def test_the_api_says_where_the_restore_is_in_the_log(shared: Shared) -> None:
    client = signed_in(shared.editor)
    done = post_restore(client, shared, "api", 4)
    assert done.status_code == 201
    assert {**done.json(), "at": None} == {
        "document": str(shared.document.key), "source_seq": 4, "seq": 9, "at": None, "changed": True
    }  # fmt: skip
    again = post_restore(client, shared, "api", 4)
    assert (again.status_code, again.json()["changed"], again.json()["seq"]) == (200, False, None)


def test_a_confirmation_sent_twice_restores_once(shared: Shared) -> None:
    client = signed_in(shared.owner)
    url = shared.restore_urls()["page"]
    question = client.get(url, {"seq": 4}).content.decode()
    found = re.search(r'name="request_key" value="(\w+)"', question)
    assert found is not None
    for _ in range(2):
        client.post(url, {"seq": 4, "request_key": found[1]})
        shared.type(shared.owner, "later")
    assert Update.objects.filter(document=shared.document, kind=Kind.RESTORE).count() == 1


def test_the_restored_moment_can_itself_be_undone_by_a_restore(shared: Shared) -> None:
    client = signed_in(shared.owner)
    before = canonical(document_at(shared.document.pk).doc)
    post_restore(client, shared, "api", 4)
    post_restore(client, shared, "api", 8)
    assert canonical(document_at(shared.document.pk).doc) == before


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"seq": "4"}', '{"seq": true}', '{"seq": -1}', '{"seq": 1e3}', '{"seq": 1' + "0" * 30 + "}"],
)
def test_a_body_that_names_no_seq_is_a_400(shared: Shared, body: str) -> None:
    url = shared.restore_urls()["api"]
    response = signed_in(shared.owner).post(url, body, content_type="application/json")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed")


@pytest.mark.parametrize("key", ["", "x" * 101, "\u0000", "\ud800", 5])
def test_a_request_key_that_cannot_be_kept_is_a_400(shared: Shared, key: Any) -> None:
    response = signed_in(shared.owner).post(
        shared.restore_urls()["api"], {"seq": 4, "request_key": key}, content_type="application/json"
    )
    assert response.status_code == 400
    assert shared.head_seq == 8


def test_a_form_without_a_seq_is_a_400_in_words(shared: Shared) -> None:
    client = signed_in(shared.owner)
    for response in (client.get(shared.restore_urls()["page"]), client.post(shared.restore_urls()["page"])):
        assert response.status_code == 400
        assert "seq is missing" in response.content.decode()


def test_a_right_that_ends_between_the_gate_and_the_append_is_a_403(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def revoked_meanwhile(*args: Any, **options: Any) -> Any:
        session = write_session(*args, **options)
        Membership.objects.filter(document=shared.document, user=shared.editor).delete()
        return session

    monkeypatch.setattr("history.api.undo.write_session", revoked_meanwhile)
    refused = post_restore(signed_in(shared.editor), shared, "api", 4)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert shared.head_seq == 8


@pytest.mark.parametrize("error", [LogUnavailable, OutcomeUnknown])
def test_a_log_that_cannot_be_written_is_a_503_in_words(
    shared: Shared, staff: User, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("history.writes.append", fail)
    for door in DOORS:
        response = post_restore(signed_in(staff), shared, door, 4)
        assert response.status_code == 503
        assert "log" in response.content.decode()


def part(root: str, **fields: Any) -> dict[str, Any]:
    return {"seq": 4, "root": f"root:{root}", **fields}


@pytest.mark.parametrize("door", ["page", "admin"])
def test_a_preview_shows_what_would_come_of_a_restore(shared: Shared, staff: User, door: str) -> None:
    seen = signed_in(staff).get(shared.restore_urls()[door], {"seq": 4})
    page = seen.content.decode()
    assert "The document becomes what it was at" in page
    assert "inserted 4 words: “leaf what was said”" in page
    assert "+17 characters" in page  # of the text and of the leaf
    assert "<ins>what was said</ins>" in page
    assert shared.head_seq == 8


def test_a_restore_that_would_change_nothing_offers_no_button(shared: Shared) -> None:
    seen = signed_in(shared.owner).get(shared.restore_urls()["page"], {"seq": 8})
    assert "There is nothing to restore." in seen.content.decode()
    assert "request_key" not in seen.content.decode()


@pytest.mark.parametrize(
    ("asked", "text", "keys", "todo", "words"),
    [
        (part("text"), "what was said", {"language": "fr", "day": 3}, ["b"], "Restored “text” to seq 4"),
        (part("settings", path="language"), "", {"language": "en", "day": 3}, ["b"], "“settings › language”"),
        (part("text", **{"from": 0, "to": 5}), "what ", {"language": "fr", "day": 3}, ["b"], "from character 0 to 5"),
        (part("todo"), "", {"language": "fr", "day": 3}, ["a", "b"], "Restored “todo” to seq 4"),
    ],
)
def test_a_part_is_previewed_and_restored_alone(
    shared: Shared, asked: dict[str, Any], text: str, keys: dict[str, Any], todo: list[str], words: str
) -> None:
    client, url = signed_in(shared.owner), shared.restore_urls()["page"]
    seen = client.get(url, asked)
    assert f"“{asked['root'].removeprefix('root:')}" in seen.content.decode()
    done = client.post(url, hidden_in(seen.content.decode()), follow=True)
    assert words in done.content.decode()
    doc = document_at(shared.document.pk).doc
    assert str(doc.get("text", type=Text)) == text
    assert doc.get("settings", type=Map).to_py() == keys
    assert doc.get("todo", type=Array).to_py() == todo


def test_a_key_in_a_map_in_a_map_is_named_line_by_line_and_a_root_without_a_name_is_not_the_whole() -> None:
    shared = a_shared_document()
    outer = shared.doc.get("", type=Map)
    shared.edit(shared.owner, lambda: outer.update({"inner": Map({"k": 1, "l": 1})}))
    shared.edit(shared.owner, lambda: outer["inner"].update({"k": 2, "l": 2}))
    shared.type(shared.owner, "beside it")
    client, url = signed_in(shared.owner), shared.restore_urls()["page"]
    seen = client.get(url, {"seq": "1", "root": "root:", "path": "inner\r\nk"})
    client.post(url, hidden_in(seen.content.decode()))
    assert document_at(shared.document.pk).doc.get("", type=Map).to_py() == {"inner": {"k": 1, "l": 2}}
    seen = client.get(url, {"seq": "1", "root": "root:"})
    client.post(url, hidden_in(seen.content.decode()))
    doc = document_at(shared.document.pk).doc
    assert doc.get("", type=Map).to_py() == {"inner": {"k": 1, "l": 1}}
    assert str(doc.get("text", type=Text)) == "beside it"


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (part("none"), 404, "root"),
        (part("settings", path="none\nk"), 404, "none"),
        (part("text", **{"from": 0}), 400, "range is"),
        (part("text", **{"from": 5, "to": 2}), 400, "range is"),
        (part("text", **{"from": "x"}), 400, "whole number"),
        (part("text", **{"from": 0, "to": 99}), 404, "99"),
        (part("text", path="\x00"), 400, "Null characters"),
    ],
)
def test_a_part_that_is_not_there_is_said_in_words_and_the_form_keeps_what_was_typed(
    shared: Shared, asked: dict[str, Any], status: int, words: str
) -> None:
    client, url = signed_in(shared.owner), shared.restore_urls()["page"]
    for seen in (client.get(url, asked), client.post(url, asked)):
        page = seen.content.decode()
        assert (seen.status_code, words in page) == (status, True), page
        assert '<details class="more" open>' in page
        assert shared.head_seq == 8


def test_a_log_that_is_away_keeps_the_question_and_the_same_button_tries_again_once(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise LogUnavailable("away")

    client, url = signed_in(shared.owner), shared.restore_urls()["page"]
    asked = hidden_in(client.get(url, part("text")).content.decode())
    with monkeypatch.context() as patch:
        patch.setattr("history.writes.append", away)
        failed = client.post(url, asked)
    assert (failed.status_code, hidden_in(failed.content.decode())) == (503, asked)
    client.post(url, asked)
    client.post(url, asked)
    assert shared.head_seq == 9
