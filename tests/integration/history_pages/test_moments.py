"""The document as it was: the same at every door, at every seq and time."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from pycrdt import Array, Map, XmlElement, XmlFragment, XmlText

from history.crdt.content import content_of
from history.folds import document_at
from history.models import Update, Via
from tests.builders import rechain, seconds_apart
from tests.integration.history_pages.builders import Shared, a_shared_document, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared() -> Shared:
    """Six seqs: text, text, a map, an array, XML, text; written by two people, minutes apart."""
    shared = a_shared_document()
    doc = shared.doc
    settings = doc.get("settings", type=Map)
    todo = doc.get("todo", type=Array)
    pages = doc.get("pages", type=XmlFragment)
    shared.type(shared.owner, "one ")
    shared.type(shared.editor, "two ", via=Via.JSON)
    shared.edit(shared.owner, lambda: settings.update({"language": "en"}))
    shared.edit(shared.editor, lambda: todo.extend(["a", {"done": True}]))
    shared.edit(shared.owner, lambda: pages.children.append(XmlElement("heading", {"level": "1"}, [XmlText("Roof")])))
    shared.type(shared.editor, "three")
    rechain(shared.document, at=seconds_apart(60, 60, 600, 600, 600))
    return shared


@pytest.fixture
def client(shared: Shared) -> Client:
    return signed_in(shared.viewer)


def test_the_api_gives_what_the_log_folds_to_at_every_seq(shared: Shared, client: Client) -> None:
    for seq in range(shared.head_seq + 1):
        answer = client.get(shared.urls()["content"], {"seq": seq}).json()
        assert answer["content"] == content_of(document_at(shared.document.pk, seq=seq).doc)
        assert (answer["seq"], answer["head_seq"], answer["document"]) == (seq, 6, str(shared.document.key))


def test_a_moment_says_who_wrote_it_when_and_through_which_door(shared: Shared, client: Client) -> None:
    answer = client.get(shared.urls()["content"], {"seq": 2}).json()
    assert (answer["author"], answer["via"], answer["kind"]) == ("editor", "json", "edit")
    assert answer["at"] == "2026-01-01T00:01:00Z"
    first = client.get(shared.urls()["content"], {"seq": 0}).json()
    assert (first["author"], first["at"], first["content"]) == (None, None, {})


def test_without_a_moment_it_is_the_head(shared: Shared, client: Client) -> None:
    assert client.get(shared.urls()["content"]).json()["seq"] == 6


@pytest.mark.parametrize(
    ("at", "seq"),
    [
        ("2025-12-31T23:59:59Z", 0),
        ("2026-01-01T00:00:00Z", 1),
        ("2026-01-01T00:01:59.999999Z", 2),
        ("2026-01-01T02:02:00+02:00", 3),
        ("2030-01-01T00:00:00Z", 6),
    ],
)
def test_a_time_finds_the_last_seq_that_was_there(shared: Shared, client: Client, at: str, seq: int) -> None:
    assert client.get(shared.urls()["content"], {"at": at}).json()["seq"] == seq
    page = client.get(shared.urls()["page"], {"at": at})
    assert page.context["moment"].seq == seq


@pytest.mark.parametrize(
    "query",
    [
        {"seq": "one"},
        {"seq": "-1"},
        {"seq": "1.0"},
        {"seq": "١"},
        {"seq": "9" * 30},
        {"at": "yesterday"},
        {"at": "2026-01-01T00:00:00"},
        {"at": "0001-01-01T00:00:00Z"},
        {"at": "9999-12-31T23:59:59-12:00"},
        {"seq": "1", "at": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_moment_that_cannot_be_read_is_a_400_that_says_why(
    shared: Shared, client: Client, query: dict[str, str]
) -> None:
    response = client.get(shared.urls()["content"], query)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "malformed"
    assert "seq" in error["message"] or "at" in error["message"]


def test_a_seq_past_the_head_is_a_404_in_words_everywhere(shared: Shared) -> None:
    client = signed_in(shared.owner)
    answer = client.get(shared.urls()["content"], {"seq": 7})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_seq")
    page = client.get(shared.urls()["page"], {"seq": 7})
    assert page.status_code == 404
    assert "There is no moment 7" in page.content.decode()
    assert client.get(shared.restore_urls()["page"], {"seq": 7}).status_code == 404
    assert client.post(shared.restore_urls()["page"], {"seq": 7}).status_code == 404


def test_a_page_takes_a_time_without_an_offset_in_its_own_zone(shared: Shared, client: Client) -> None:
    assert client.get(shared.urls()["page"], {"at": "2026-01-01T00:01:30"}).context["moment"].seq == 2


def test_the_second_that_a_page_shows_leads_back_to_the_same_moment(shared: Shared, client: Client) -> None:
    rechain(shared.document, at=seconds_apart(0.4, 0.4, 0.4, 0.4, 0.4))
    shown = client.get(shared.urls()["page"], {"seq": 3}).context["moment"].at.strftime("%Y-%m-%dT%H:%M:%S")
    assert client.get(shared.urls()["page"], {"at": shown}).context["moment"].seq == 3
    assert client.get(shared.urls()["content"], {"at": f"{shown}Z"}).json()["seq"] == 1


def test_a_malformed_page_address_is_answered_in_words(shared: Shared, client: Client) -> None:
    page = client.get(shared.urls()["page"], {"seq": "x"})
    assert page.status_code == 400
    assert "seq is a whole number" in page.content.decode()


def test_an_etag_spares_the_content_until_the_document_moves_on(shared: Shared, client: Client) -> None:
    url = shared.urls()["content"]
    first = client.get(url, {"seq": 3})
    assert client.get(url, {"seq": 3}, headers={"If-None-Match": first["ETag"]}).status_code == 304
    assert signed_in(shared.owner).get(url, {"seq": 3})["ETag"] == first["ETag"]
    assert client.get(url, {"seq": 4}, headers={"If-None-Match": first["ETag"]}).status_code == 200
    shared.type(shared.owner, "more")
    assert client.get(url, {"seq": 3}, headers={"If-None-Match": first["ETag"]}).status_code == 200


def test_an_etag_tells_a_stranger_nothing(shared: Shared, client: Client) -> None:
    etag = client.get(shared.urls()["content"])["ETag"]
    assert Client().get(shared.urls()["content"], headers={"If-None-Match": etag}).status_code == 401


def test_answers_are_kept_by_no_shared_cache(shared: Shared, client: Client) -> None:
    for url in shared.urls().values():
        control = client.get(url)["Cache-Control"]
        assert "private" in control
        assert "no-cache" in control


def test_the_runs_are_paged_newest_first_and_complete(shared: Shared, client: Client) -> None:
    seen: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        answer = client.get(shared.urls()["runs"], query).json()
        assert len(answer["runs"]) <= 2
        seen += answer["runs"]
        if answer["next_before"] is None:
            break
        query["before"] = answer["next_before"]
    assert [(run["last_seq"], run["author"]) for run in seen] == [
        (6, "editor"), (5, "owner"), (4, "editor"), (3, "owner"), (2, "editor"), (1, "owner")
    ]  # fmt: skip
    assert "ip" not in seen[0]


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"before": "-2"}])
def test_runs_asked_for_wrongly_are_a_400(shared: Shared, client: Client, query: dict[str, str]) -> None:
    assert client.get(shared.urls()["runs"], query).status_code == 400


def test_steps_go_from_run_to_run_and_stop_at_both_ends(shared: Shared, client: Client) -> None:
    def step(seq: int, way: str) -> str:
        query: dict[str, str | int] = {"seq": seq, "step": way, "before": 5, "part": "moment"}
        response = client.get(shared.urls()["page"], query)
        assert response.status_code == 302
        return response["Location"].split("?")[1]

    assert step(4, "next") == "before=5&part=moment&seq=5"
    assert [step(seq, "previous")[-1] for seq in (6, 2, 1, 0)] == ["5", "1", "0", "0"]
    assert [step(seq, "next")[-1] for seq in (0, 5, 6)] == ["1", "6", "6"]


def test_the_part_that_the_slider_asks_for_is_the_moment_alone(shared: Shared, client: Client) -> None:
    query: dict[str, str | int] = {"seq": 2, "part": "moment"}
    part = client.get(shared.urls()["page"], query).content.decode()
    assert "<html" not in part
    assert 'data-seq="2" data-head-seq="6"' in part
    assert "one two" in part


def test_the_page_works_by_forms_alone(shared: Shared, client: Client) -> None:
    page = client.get(shared.urls()["page"], {"seq": 3, "before": 3}).content.decode()
    assert '<form class="choose-seq" method="get"' in page
    assert '<form class="choose-time" method="get"' in page
    assert '<input type="hidden" name="before" value="3">' in page
    assert "<script>" not in page
    assert " style=" not in page
    assert " onclick=" not in page


def test_a_document_that_nobody_has_written_has_an_empty_history() -> None:
    shared = a_shared_document()
    client = signed_in(shared.owner)
    assert "The document is empty at this moment." in client.get(shared.urls()["page"]).content.decode()
    assert client.get(shared.urls()["content"]).json()["content"] == {}
    assert client.get(shared.urls()["runs"]).json()["runs"] == []


def test_a_hole_in_the_log_is_said_in_words_and_no_500(shared: Shared) -> None:
    Update.objects.filter(document=shared.document, seq=3).delete()
    client = signed_in(shared.owner)
    page = client.get(shared.urls()["page"])
    assert page.status_code == 503
    assert "Entry 3 of the log is missing" in page.content.decode()
    answer = client.get(shared.urls()["content"], {"seq": 4})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_hole")
    assert client.get(shared.urls()["content"], {"seq": 2}).status_code == 200
    assert client.post(shared.restore_urls()["page"], {"seq": 2}).status_code == 503


def test_listing_runs_takes_as_many_queries_for_many_updates_as_for_few(
    shared: Shared, client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(60):
        shared.type(shared.owner if number % 2 else shared.editor, "x")
    rechain(shared.document, at=seconds_apart(*[timedelta(minutes=10).total_seconds()] * (shared.head_seq - 1)))
    with django_assert_max_num_queries(28):
        page = client.get(shared.urls()["page"])
    assert len(page.context["runs"].lines) == 30


def test_methods_that_an_address_does_not_know_are_a_405_in_json(shared: Shared, client: Client) -> None:
    for url, allowed in ((shared.urls()["content"], "GET"), (shared.restore_urls()["api"], "POST")):
        refused = client.put(url)
        assert (refused.status_code, refused["Allow"]) == (405, allowed)
        assert refused.json()["error"]["code"] == "method_not_allowed"
