"""Versions over HTTP: who may do what, what is answered, and what is refused in JSON."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from history.models import Version
from tests.integration.history_pages.builders import Shared, a_user, signed_in

pytestmark = pytest.mark.django_db

# Who → the statuses of list, name, rename, lock, delete.
MATRIX: dict[str, tuple[int, ...]] = {
    "anonymous": (401, 401, 401, 401, 401),
    "stranger": (404, 404, 404, 404, 404),
    "viewer": (200, 403, 403, 403, 403),
    "editor": (200, 201, 200, 403, 204),
    "owner": (200, 201, 200, 200, 409),
}


def url(shared: Shared, version_id: int | None = None) -> str:
    key = shared.document.key
    return (
        reverse("document-versions", args=[key])
        if version_id is None
        else reverse("document-version", args=[key, version_id])
    )


def named(client: Client, shared: Shared, **body: Any) -> Any:
    return client.post(url(shared), body, content_type="application/json")


def client_of(who: str, shared: Shared) -> Client:
    match who:
        case "anonymous":
            return Client()
        case "stranger":
            return signed_in(a_user("stranger"))
        case _:
            return signed_in(getattr(shared, who))


@pytest.mark.parametrize("who", MATRIX)
def test_viewers_read_editors_name_and_owners_lock(shared: Shared, who: str) -> None:
    theirs = named(signed_in(shared.owner), shared, name="Theirs").json()["id"]
    client = client_of(who, shared)
    one = url(shared, theirs)
    statuses = (
        client.get(url(shared)).status_code,
        named(client, shared, name="Mine").status_code,
        client.patch(one, {"name": "Renamed"}, content_type="application/json").status_code,
        client.patch(one, {"locked": True}, content_type="application/json").status_code,
        client.delete(one).status_code,
    )
    assert statuses == MATRIX[who]


def test_a_version_is_told_whole_and_listed_as_it_was_told(shared: Shared) -> None:
    client = signed_in(shared.editor)
    told = named(client, shared, name="Draft", note="for Bea", seq=2).json()
    assert (told["seq"], told["name"], told["note"], told["author"]) == (2, "Draft", "for Bea", "editor")
    assert (told["locked"], told["automatic"], told["beyond"]) == (False, False, False)
    head = named(client, shared, name="Head").json()
    listed = client.get(url(shared)).json()
    assert listed == {"document": str(shared.document.key), "versions": [head, told], "next_before": None}
    first = client.get(url(shared), {"limit": 1}).json()
    assert first["versions"] == [head]
    second = client.get(url(shared), {"limit": 1, "before": first["next_before"]}).json()
    assert (second["versions"], second["next_before"]) == ([told], None)


def test_what_stands_in_the_way_is_said_in_json(shared: Shared) -> None:
    client = signed_in(shared.owner)
    version = named(client, shared, name="Signed").json()["id"]
    assert client.patch(url(shared, version), {"locked": True}, content_type="application/json").json()["locked"]
    refusals = {
        "name_taken": named(client, shared, name="Signed"),
        "no_such_seq": named(client, shared, name="Later", seq=99),
        "locked": client.patch(url(shared, version), {"name": "x"}, content_type="application/json"),
        "no_such_version": client.delete(url(shared, version + 1)),
        "method_not_allowed": client.put(url(shared)),
    }
    assert {code: response.json()["error"]["code"] for code, response in refusals.items()} == {
        code: code for code in refusals
    }
    assert refusals["method_not_allowed"]["Allow"] == "GET, POST"


@pytest.mark.parametrize(
    "body",
    ['{"seq": 1}', '{"name": 1}', '{"name": "x", "seq": "1"}', '{"name": "x", "seq": -1}', '{"name": "x", "note": 1}',
     '{"name": ""}', '{"name": "a\\u0000"}', '{"name": "x", "note": "\\ud800"}', "[]", "{", f'"{"x" * 20000}"'],
)  # fmt: skip
def test_a_naming_that_cannot_be_read_is_a_400(shared: Shared, body: str) -> None:
    response = signed_in(shared.editor).post(url(shared), body, content_type="application/json")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed")
    assert not Version.objects.exists()


@pytest.mark.parametrize("body", ["{}", '{"name": 1}', '{"locked": 1}', '{"locked": "yes"}', '{"unknown": 1}', "[]"])
def test_a_change_that_cannot_be_read_is_a_400(shared: Shared, body: str) -> None:
    client = signed_in(shared.owner)
    version = named(client, shared, name="Draft").json()["id"]
    response = client.patch(url(shared, version), body, content_type="application/json")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed")


@pytest.mark.parametrize("query", [{"before": "1"}, {"before": "a.b"}, {"before": "1.2.3"}, {"limit": "0"}])
def test_a_page_that_cannot_be_read_is_a_400(shared: Shared, query: dict[str, str]) -> None:
    assert signed_in(shared.viewer).get(url(shared), query).status_code == 400


def test_a_form_in_place_of_json_is_malformed(shared: Shared) -> None:
    client = signed_in(shared.owner, enforce_csrf_checks=True)
    client.get(shared.urls()["page"])
    token = client.cookies["csrftoken"].value
    answer = client.post(reverse("document-copies", args=[shared.document.key]), {"csrfmiddlewaretoken": token})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")


def test_no_act_on_versions_goes_without_a_csrf_token(shared: Shared) -> None:
    version = named(signed_in(shared.owner), shared, name="Draft").json()["id"]
    client = signed_in(shared.owner, enforce_csrf_checks=True)
    answers = (
        named(client, shared, name="Forged"),
        client.patch(url(shared, version), {"name": "Forged"}, content_type="application/json"),
        client.delete(url(shared, version)),
    )
    assert [answer.json()["error"]["code"] for answer in answers] == ["csrf"] * 3
    assert [version.name for version in Version.objects.all()] == ["Draft"]


def test_any_two_versions_are_compared_by_their_seqs(shared: Shared) -> None:
    client = signed_in(shared.editor)
    for name, seq in (("Start", 0), ("Draft", 1), ("Sent", 3)):
        named(client, shared, name=name, seq=seq)
    listed = signed_in(shared.viewer).get(url(shared)).json()["versions"]
    seqs = {version["name"]: version["seq"] for version in listed}
    changes = reverse("document-changes", args=[shared.document.key])
    for before, after, inserted in (("Draft", "Sent", "two three"), ("Start", "Draft", "one")):
        found = signed_in(shared.viewer).get(changes, {"from": seqs[before], "to": seqs[after]}).json()
        assert inserted in json.dumps(found["changes"])


def copied(client: Client, shared: Shared, **body: Any) -> Any:
    return client.post(
        reverse("document-copies", args=[shared.document.key]), json.dumps(body), content_type="application/json"
    )


# Who → the statuses of a copy without history and of one with it.
COPIERS = {
    "anonymous": (401, 401),
    "stranger": (404, 404),
    "viewer": (201, 403),
    "editor": (201, 403),
    "owner": (201, 201),
}


@pytest.mark.parametrize("who", COPIERS)
def test_readers_copy_a_moment_and_owners_its_history(shared: Shared, who: str) -> None:
    client = client_of(who, shared)
    statuses = copied(client, shared).status_code, copied(client, shared, history=True).status_code
    assert statuses == COPIERS[who]


def test_a_copy_is_a_document_of_ones_own_that_says_where_it_is_from(shared: Shared) -> None:
    client = signed_in(shared.viewer)
    answer = copied(client, shared, seq=2, title="Mine", name="mine").json()
    assert answer == {
        "document": answer["document"],
        "name": "mine",
        "title": "Mine",
        "source_document": str(shared.document.key),
        "source_seq": 2,
        "history": False,
    }
    content = client.get(reverse("document-content", args=[answer["document"]])).json()
    assert (content["content"]["text"]["text"], content["kind"], content["via"]) == ("one two ", "import", "api")
    again = copied(client, shared, seq=2, name="mine")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "name_taken")
    whole = copied(signed_in(shared.owner), shared, history=True).json()
    assert (whole["title"], whole["source_seq"], whole["history"]) == ("Copy of Minutes", 3, True)
    runs = signed_in(shared.owner).get(reverse("document-runs", args=[whole["document"]])).json()["runs"]
    assert {run["author"] for run in runs} == {"editor"}


def test_a_copy_that_is_asked_for_twice_is_made_once(shared: Shared) -> None:
    client = signed_in(shared.viewer)
    first = copied(client, shared, request_key="k")
    shared.type(shared.editor, "meanwhile")
    again = copied(client, shared, request_key="k")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


@pytest.mark.parametrize(
    "body",
    [{"seq": -1}, {"seq": "1"}, {"title": 1}, {"title": ""}, {"name": "a//b"}, {"history": "yes"}, {"request_key": ""}],
)
def test_a_copying_that_cannot_be_read_is_a_400(shared: Shared, body: dict[str, Any]) -> None:
    response = copied(signed_in(shared.owner), shared, **body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed")


def test_a_copy_of_no_moment_is_a_404_and_one_that_is_too_long_a_409(shared: Shared, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "COPY_ROWS_MAX": 2}
    client = signed_in(shared.owner)
    assert copied(client, shared, seq=4).json()["error"]["code"] == "no_such_seq"
    assert copied(client, shared, history=True).json()["error"]["code"] == "too_long"
    assert copied(signed_in(shared.owner, enforce_csrf_checks=True), shared).json()["error"]["code"] == "csrf"
