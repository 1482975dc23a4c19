"""POST /api/v1/tickets, as a front end calls it."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from documents.models import Document, Role
from documents.tickets import redeem_ticket
from tests.integration.documents.builders import a_document, a_user, signed_in

pytestmark = pytest.mark.django_db


def ask(client: Client, body: Any, **headers: str) -> Any:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.post("/api/v1/tickets", content, content_type="application/json", headers=headers)


def refusal(response: Any) -> tuple[int, str]:
    error = json.loads(response.content)["error"]
    assert set(error) == {"code", "message"}
    assert error["message"]
    return response.status_code, error["code"]


def test_a_member_gets_a_ticket_by_key_or_by_name() -> None:
    ada, eve = a_user("ada"), a_user("eve")
    document = a_document(ada, name="team notes/ä", eve=(eve, Role.VIEWER))
    for asked_for in (str(document.key), document.key.hex, document.name):
        response = ask(signed_in(eve), {"document": asked_for})
        answer = response.json()
        assert response.status_code == 201
        assert set(answer) == {"ticket", "expires_at", "expires_in_seconds", "url"}
        assert answer["url"] == "/ws/team%20notes/%C3%A4"
        assert answer["expires_in_seconds"] == 900
        expires_at = datetime.fromisoformat(answer["expires_at"])
        assert timedelta(0) < expires_at - timezone.now() <= timedelta(seconds=900)
        assert redeem_ticket(answer["ticket"], document.name) == eve
        assert "no-store" in response["Cache-Control"]


def test_a_document_whose_name_looks_like_a_key_is_found_by_it() -> None:
    ada = a_user("ada")
    name = "6f1c1d9e-0000-4000-8000-000000000000"
    a_document(ada, name=name)
    assert ask(signed_in(ada), {"document": name}).json()["url"] == f"/ws/{name}"


def test_whoever_is_not_signed_in_gets_401_for_any_document() -> None:
    document = a_document(a_user("ada"), name="hers")
    answers = [ask(Client(), {"document": each}) for each in (str(document.key), "hers", "missing")]
    assert [refusal(each) for each in answers] == [(401, "not_signed_in")] * 3
    assert len({each.content for each in answers}) == 1


def test_the_unseen_and_the_missing_get_the_same_404() -> None:
    document = a_document(a_user("ada"), name="hers")
    client = signed_in(a_user("stranger"))
    asked_for = [str(document.key), "hers", "missing", "6f1c1d9e-0000-4000-8000-000000000000", "", "a\0b", "\ud800"]
    answers = [ask(client, {"document": each}) for each in asked_for]
    assert {refusal(each) for each in answers} == {(404, "not_found")}
    assert len({each.content for each in answers}) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        "{",
        "[]",
        "null",
        '"minutes"',
        "{}",
        {"document": 7},
        {"document": None},
        {"document": "x" * 5000},
        "[" * 4000,
        "[" * 100_000,
    ],
)
def test_what_is_no_request_gets_400(body: Any) -> None:
    assert refusal(ask(signed_in(a_user("ada")), body)) == (400, "malformed")


def test_other_methods_get_405() -> None:
    response = signed_in(a_user("ada")).get("/api/v1/tickets")
    assert refusal(response) == (405, "method_not_allowed")
    assert response["Allow"] == "POST"


def test_a_session_needs_the_csrf_token() -> None:
    ada = a_user("ada")
    document = a_document(ada, name="minutes")
    client = signed_in(ada, enforce_csrf_checks=True)
    assert refusal(ask(client, {"document": "minutes"})) == (403, "csrf")
    assert refusal(ask(client, {"document": "minutes"}, **{"X-CSRFToken": "a" * 32})) == (403, "csrf")

    client.get(reverse("document-create"))
    token = client.cookies["csrftoken"].value
    response = ask(client, {"document": "minutes"}, **{"X-CSRFToken": token})
    assert response.status_code == 201
    assert redeem_ticket(response.json()["ticket"], document.name) == ada


def test_anonymous_people_get_a_ticket_for_an_open_room_only(open_rooms: None) -> None:
    a_document(a_user("ada"), name="hers")
    client = Client(enforce_csrf_checks=True)
    assert refusal(ask(client, {"document": "hers"})) == (401, "not_signed_in")

    response = ask(client, {"document": "scratch"})
    assert response.status_code == 201
    assert redeem_ticket(response.json()["ticket"], "scratch") == AnonymousUser()
    assert not Document.objects.get(name="scratch").memberships.exists()


def test_no_ticket_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ada = a_user("ada")
    a_document(ada, name="minutes")
    with caplog.at_level(0):
        text = ask(signed_in(ada), {"document": "minutes"}).json()["ticket"]
    assert text not in caplog.text
