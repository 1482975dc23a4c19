"""A document that is erased, with its log and all, when the gate is passed and before the page has read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.urls import reverse

from documents.acts import acting
from history.api import doors
from history.pages import frame
from history.pages.table import PAGES
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, page_url, signed_in

pytestmark = pytest.mark.django_db

READING = [name for name in PAGES if name not in ("history", "export")]
"""Pages that read the document before they answer; an export is broken off instead."""
VALUES = {"seq": 1, "version": 1, "title": "Copy", "name": "One", "user": "owner", "to": 1, "locked": 1}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Shared:
    shared = a_shared_document()
    shared.type(shared.owner, "one ")
    shared.type(shared.owner, "two ")

    @contextmanager
    def erased(*who: Any) -> Iterator[None]:
        with acting(*who):
            shared.document.delete()
            yield

    monkeypatch.setattr(frame, "acting", erased)
    return shared


@pytest.mark.parametrize("door", ["page", "admin"])
def test_a_page_of_what_was_erased_behind_its_gate_is_a_404(shared: Shared, door: str) -> None:
    client = signed_in(a_user("root", is_staff=True, is_superuser=True))
    assert client.get(shared.urls()[door]).status_code == 404


@pytest.mark.parametrize("door", ["page", "admin"])
@pytest.mark.parametrize(
    ("page", "method"),
    [(page, method) for page in READING for method in ("get", "post") if method.upper() in PAGES[page].methods],
)
def test_an_act_on_what_was_erased_behind_its_gate_is_a_404(shared: Shared, page: str, method: str, door: str) -> None:
    client = signed_in(a_user("root", is_staff=True, is_superuser=True))
    answer = getattr(client, method)(page_url(shared, page, door), VALUES)
    assert answer.status_code == 404


@pytest.mark.parametrize("name", ["content", "runs", "changes", "blame"])
def test_the_api_says_the_same_in_json(shared: Shared, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def erased(*asked: Any) -> Any:
        document = found(*asked)
        shared.document.delete()
        return document

    found = doors._document
    monkeypatch.setattr(doors, "_document", erased)
    answer = signed_in(shared.viewer).get(reverse(f"document-{name}", args=[shared.document.key]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
