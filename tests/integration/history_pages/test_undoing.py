"""Undo of what somebody did, and restore of a piece, over the API: previews, rights, and who did it to whom."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.urls import reverse
from pycrdt import Array, Map, Text
from pytest_django import DjangoCaptureOnCommitCallbacks

from documents.models import Membership
from history.crdt.content import canonical
from history.fates import Stored
from history.folds import document_at
from history.models import Kind, Session, Update, Via
from history.signals import log_appended
from history.squash import squash_document
from history.undoing import Whose, plan_undo
from history.writes import LOCK, UNLOCK, append_update, undo, write_session
from tests.builders import NEVER_WARM, in_thread, make_session, rechain, seconds_apart, typed
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared() -> Shared:
    """The owner writes, the editor writes and deletes, the owner writes again: seqs 1 to 5."""
    shared = a_shared_document()
    text = shared.doc.get("text", type=Text)
    shared.type(shared.owner, "what the owner said")
    shared.type(shared.editor, " and what the editor said")
    shared.edit(shared.editor, lambda: text.__delitem__(slice(0, 5)))
    shared.edit(shared.editor, lambda: shared.doc.get("map", type=Map).update({"k": Array([1])}))
    shared.type(shared.owner, ", the end")
    return shared


def ask(client: Client, shared: Shared, act: str = "undo", /, **body: Any) -> Any:
    url = reverse(f"document-{act}", args=[shared.document.key])
    return client.post(url, body, content_type="application/json", REMOTE_ADDR="198.51.100.9")


def text_of(shared: Shared) -> str:
    return str(document_at(shared.document.pk).doc.get("text", type=Text))


def test_an_undo_is_one_row_of_who_asked_and_says_what_it_undid(shared: Shared) -> None:
    done = ask(signed_in(shared.owner), shared, user="editor", **{"from": 1})
    assert done.status_code == 201
    assert {**done.json(), "at": None} == {
        "document": str(shared.document.key), "from_seq": 1, "to_seq": 5, "seq": 6, "at": None, "changed": True
    }  # fmt: skip
    assert text_of(shared) == "what the owner said, the end"
    assert canonical(document_at(shared.document.pk).doc).count('"type":"map"') == 0
    row = Update.objects.get(document=shared.document, seq=6)
    session = Session.objects.get(document=shared.document, id=row.session_id)
    assert (row.kind, session.user, session.via, session.ip) == (Kind.UNDO, shared.owner, Via.API, "198.51.100.9")
    assert session.detail == {"undone": {"user": str(shared.editor.pk), "first_seq": 1, "last_seq": 5}}


def test_a_preview_says_what_an_undo_would_do_and_writes_nothing(shared: Shared) -> None:
    seen = ask(signed_in(shared.owner), shared, user="editor", preview=True, **{"from": 1, "to": 5}).json()
    assert shared.head_seq == 5
    assert {name: seen[name] for name in ("changed", "updates", "inserted", "deleted", "head_seq")} == {
        "changed": True, "updates": 3, "inserted": 5, "deleted": 25, "head_seq": 5
    }  # fmt: skip
    assert seen["content"]["text"]["text"] == "what the owner said, the end"


def test_an_undo_is_told_to_open_editors_once(
    shared: Shared, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    told: list[int] = []

    def hear(*, stored: Stored, **_: Any) -> None:
        told.append(stored.seq)

    log_appended.connect(hear)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            ask(signed_in(shared.owner), shared, user="editor", **{"from": 1})
    finally:
        log_appended.disconnect(hear)
    assert told == [6]


def test_an_undo_of_an_undo_gives_back_what_it_took(shared: Shared) -> None:
    before = canonical(document_at(shared.document.pk).doc)
    client = signed_in(shared.owner)
    ask(client, shared, user="editor", **{"from": 1})
    assert ask(client, shared, user="owner", **{"from": 6, "to": 6}).status_code == 201
    assert canonical(document_at(shared.document.pk).doc) == before


def test_earlier_undos_of_one_person_are_looked_up_together(shared: Shared, django_assert_max_num_queries: Any) -> None:
    whose = Whose(user_key=shared.editor.pk)
    for _ in range(20):
        seq = shared.type(shared.editor, "x")
        undo(make_session(shared.document), whose, first_seq=seq, last_seq=seq)
    with django_assert_max_num_queries(20):
        plan_undo(shared.document.pk, whose, first_seq=1, last_seq=shared.head_seq)


def test_what_an_undo_gave_back_is_not_given_back_twice(shared: Shared) -> None:
    client = signed_in(shared.owner)
    ask(client, shared, user="editor", **{"from": 3, "to": 3})
    assert ask(client, shared, user="editor", **{"from": 3, "to": 4}).status_code == 201
    assert text_of(shared) == "what the owner said and what the editor said, the end"
    assert ask(client, shared, user="editor", **{"from": 1, "to": 4}).json()["changed"] is True
    again = ask(client, shared, user="editor", **{"from": 1, "to": 4})
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert text_of(shared) == "what the owner said, the end"


@pytest.mark.parametrize(
    "restored",
    [
        {"seq": 2},
        {"seq": 2, "root": "text"},
        {"seq": 2, "root": "text", "range": [0, 8]},
    ],
)
def test_what_a_restore_gave_back_is_not_given_back_twice(shared: Shared, restored: dict[str, Any]) -> None:
    client = signed_in(shared.owner)
    assert ask(client, shared, "restore", **restored).status_code == 201
    assert text_of(shared).startswith("what the owner")
    before = text_of(shared)
    ask(client, shared, user="editor", **{"from": 3, "to": 3})
    assert text_of(shared) == before
    # The restore undone, what was deleted is missing again, and comes back.
    ask(client, shared, user="owner", **{"from": 6, "to": 6})
    ask(client, shared, user="editor", **{"from": 3, "to": 3})
    assert text_of(shared) == "what the owner said and what the editor said, the end"


def test_a_restore_elsewhere_gave_back_nothing_here(shared: Shared) -> None:
    client = signed_in(shared.owner)
    shared.edit(shared.owner, lambda: shared.doc.get("map", type=Map).update({"k": 2}))
    ask(client, shared, "restore", seq=2, root="map", path=["k"])
    ask(client, shared, user="editor", **{"from": 3, "to": 3})
    assert text_of(shared) == "what the owner said and what the editor said, the end"


def test_a_range_restored_elsewhere_gave_back_nothing_here(shared: Shared) -> None:
    client = signed_in(shared.owner)
    text = shared.doc.get("text", type=Text)
    shared.edit(shared.owner, lambda: text.insert(str(text).index("owner") + 2, "XX"))
    assert ask(client, shared, "restore", seq=2, root="text", range=[9, 14]).status_code == 201
    assert text_of(shared) == "the owner said and what the editor said, the end"
    ask(client, shared, user="editor", **{"from": 3, "to": 3})
    assert text_of(shared) == "what the owner said and what the editor said, the end"


def test_the_same_request_is_carried_out_once(shared: Shared) -> None:
    client = signed_in(shared.owner)
    first = ask(client, shared, user="editor", request_key="k", **{"from": 1, "to": 5})
    shared.type(shared.editor, "later")
    again = ask(client, shared, user="editor", request_key="k", **{"from": 1, "to": 5})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert (again.json()["seq"], shared.head_seq) == (6, 7)


def test_an_undo_that_is_sent_again_is_told_with_the_span_that_was_undone(shared: Shared) -> None:
    client = signed_in(shared.owner)
    first = ask(client, shared, user="editor", request_key="k", **{"from": 1})
    shared.type(shared.editor, "later")
    again = ask(client, shared, user="editor", request_key="k", **{"from": 1})
    assert (first.json()["to_seq"], shared.head_seq) == (5, 7)
    assert again.json() == first.json()


def test_an_undo_by_time_begins_at_that_moment(shared: Shared) -> None:
    rechain(shared.document, at=seconds_apart(10, 10, 10, 10))
    times = {row.seq: row.at for row in Update.objects.filter(document=shared.document)}
    client = signed_in(shared.owner)
    seen = ask(client, shared, user="editor", preview=True, **{"from": times[3].isoformat()}).json()
    assert (seen["from_seq"], seen["to_seq"], seen["updates"]) == (3, 5, 2)
    later = (times[3] + timedelta(seconds=1)).isoformat()
    seen = ask(client, shared, user="editor", preview=True, **{"from": later, "to": later}).json()
    assert (seen["from_seq"], seen["to_seq"], seen["changed"]) == (4, 3, False)


def test_one_session_is_undone_by_its_number_as_runs_name_it(shared: Shared) -> None:
    client = signed_in(shared.owner)
    runs = client.get(reverse("document-runs", args=[shared.document.key])).json()["runs"]
    session = next(run["session"] for run in runs if run["first_seq"] == 2)
    ask(client, shared, session=session, **{"from": 1})
    assert text_of(shared) == "the owner said, the end"


@pytest.mark.parametrize("user", ["nobody of that name", "viewer", "a\0b", "\ud800"])
def test_who_wrote_nothing_has_nothing_to_be_undone(shared: Shared, user: str) -> None:
    answer = ask(signed_in(shared.owner), shared, user=user, **{"from": 1})
    assert (answer.status_code, answer.json()["changed"]) == (200, False)
    seen = ask(signed_in(shared.owner), shared, user=user, preview=True, **{"from": 1}).json()
    assert (seen["changed"], seen["updates"], seen["content"]["text"]["text"]) == (False, 0, text_of(shared))


def test_nobody_is_undone_where_no_one_is_named(shared: Shared) -> None:
    append_update(make_session(shared.document), typed(["by nobody"], client_id=5)[0])
    assert Whose().sessions(shared.document.pk) == frozenset()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "editor"},
        {"from": 1},
        {"user": "editor", "session": 1, "from": 1},
        {"user": 5, "from": 1},
        {"session": True, "from": 1},
        {"user": "editor", "from": "yesterday"},
        {"user": "editor", "from": "2026-01-01T00:00:00"},
        {"user": "editor", "from": 1, "to": []},
        {"user": "editor", "from": 1, "preview": "yes"},
        {"user": "editor", "from": 1, "request_key": ""},
    ],
)
def test_an_undo_that_is_not_named_properly_is_a_400(shared: Shared, body: dict[str, Any]) -> None:
    answer = ask(signed_in(shared.owner), shared, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    assert shared.head_seq == 5


@pytest.mark.parametrize(("first", "last"), [(0, 1), (6, 6), (1, 6)])
def test_seqs_that_the_log_has_not_are_a_404(shared: Shared, first: int, last: int) -> None:
    answer = ask(signed_in(shared.owner), shared, user="editor", **{"from": first, "to": last})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_seq")


@pytest.mark.parametrize("act", ["undo", "restore"])
@pytest.mark.parametrize("preview", [False, True])
def test_a_viewer_and_a_stranger_undo_and_restore_nothing(shared: Shared, act: str, preview: bool) -> None:
    body = {"user": "editor", "from": 1, "seq": 1, "preview": preview}
    assert ask(signed_in(shared.viewer), shared, act, **body).status_code == 403
    assert ask(signed_in(a_user("stranger")), shared, act, **body).status_code == 404
    assert ask(Client(), shared, act, **body).status_code == 401
    assert shared.head_seq == 5


def test_an_undo_of_more_updates_than_fit_is_refused_in_words(shared: Shared, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNDO_ROWS_MAX": 2}
    answer = ask(signed_in(shared.owner), shared, user="editor", **{"from": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "too_many_updates")
    assert ask(signed_in(shared.owner), shared, user="editor", **{"from": 3}).status_code == 201


def test_a_root_a_key_and_a_range_are_restored_alone(shared: Shared) -> None:
    client = signed_in(shared.owner)
    settings = shared.doc.get("map", type=Map)
    shared.edit(shared.owner, lambda: settings.update({"k": 2, "l": 3}))
    assert ask(client, shared, "restore", seq=5, root="map", path=["k"]).status_code == 201
    assert document_at(shared.document.pk).doc.get("map", type=Map).to_py() == {"k": [1], "l": 3}
    assert ask(client, shared, "restore", seq=1, root="text", range=[0, 8]).status_code == 201
    assert text_of(shared) == "what the owner said and what the editor said, the end"
    done = ask(client, shared, "restore", seq=1, root="text").json()
    assert text_of(shared) == "what the owner said"
    session = Session.objects.get(
        document=shared.document, id=Update.objects.get(document=shared.document, seq=done["seq"]).session_id
    )
    assert session.detail == {"source_seq": 1, "root": "text", "path": []}


def test_a_preview_of_a_restore_shows_the_content_and_writes_nothing(shared: Shared) -> None:
    seen = ask(signed_in(shared.owner), shared, "restore", seq=1, root="text", preview=True).json()
    assert (seen["changed"], seen["updates"], seen["head_seq"]) == (True, 0, 5)
    assert seen["content"]["text"]["text"] == "what the owner said"
    assert seen["content"]["map"]["value"] == {"k": [1]}
    assert shared.head_seq == 5


@pytest.mark.parametrize(
    "body",
    [
        {"root": 5},
        {"path": ["k"]},
        {"root": "map", "path": "k"},
        {"root": "map", "path": [1]},
        {"range": [0, 1]},
        {"root": "text", "range": [1, 1]},
        {"root": "text", "range": [0, 1, 2]},
        {"root": "text", "range": ["0", "1"]},
        {"root": "text", "path": ["k"], "range": [0, 1]},
    ],
)
def test_a_piece_that_is_not_named_properly_is_a_400(shared: Shared, body: dict[str, Any]) -> None:
    answer = ask(signed_in(shared.owner), shared, "restore", seq=1, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


@pytest.mark.parametrize(
    "body", [{"root": "none"}, {"root": "map", "path": ["k", "x"]}, {"root": "text", "range": [0, 99]}]
)
def test_a_piece_that_is_not_there_is_a_404_in_words(shared: Shared, body: dict[str, Any]) -> None:
    answer = ask(signed_in(shared.owner), shared, "restore", seq=5, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_piece")
    assert shared.head_seq == 5


@pytest.mark.django_db(transaction=True)
def test_an_undo_reads_squashed_rows_as_well(shared: Shared, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_ROWS_MIN": 1}
    assert squash_document(shared.document.pk, older_than=NEVER_WARM) == 5
    assert ask(signed_in(shared.owner), shared, user="editor", **{"from": 1}).status_code == 201
    assert text_of(shared) == "what the owner said, the end"


@pytest.mark.django_db(transaction=True)
def test_two_who_undo_the_same_at_once_give_it_back_once(shared: Shared) -> None:
    """Both would find the words missing: the second one waits until the first has written, and sees them there."""
    writer = connections.create_connection("default")
    began = threading.Event()
    try:
        with writer.cursor() as cursor:
            cursor.execute(LOCK, [shared.document.pk])

        def undo_it() -> Stored | None:
            began.set()
            session = write_session(shared.document, actor=shared.owner, via=Via.TASK)
            return undo(session, Whose(user_key=shared.editor.pk), first_seq=3, last_seq=3)

        both = [in_thread(undo_it) for _ in range(2)]
        assert began.wait(10)
        with writer.cursor() as cursor:
            cursor.execute(UNLOCK, [shared.document.pk])
    finally:
        writer.close()
    outcomes = [each.result(timeout=20) for each in both]
    assert sorted(outcome is None for outcome in outcomes) == [False, True]
    assert text_of(shared) == "what the owner said and what the editor said, the end"


@pytest.mark.django_db(transaction=True)
def test_an_undo_that_waits_too_long_for_another_one_is_a_503(shared: Shared, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_LOCK_TIMEOUT_MS": 50}
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute(LOCK, [shared.document.pk])
        answer = ask(signed_in(shared.owner), shared, user="editor", **{"from": 1})
        with other.cursor() as cursor:
            cursor.execute(UNLOCK, [shared.document.pk])
    finally:
        other.close()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert ask(signed_in(shared.owner), shared, user="editor", **{"from": 1}).status_code == 201


def test_a_right_that_ends_before_the_append_is_a_403(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def revoked_meanwhile(*args: Any, **options: Any) -> Any:
        session = write_session(*args, **options)
        Membership.objects.filter(document=shared.document, user=shared.editor).delete()
        return session

    monkeypatch.setattr("history.api.undo.write_session", revoked_meanwhile)
    answer = ask(signed_in(shared.editor), shared, user="owner", **{"from": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert shared.head_seq == 5
