"""A document's audit for programs: owners alone, in pages or as a file that is written as it is read."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import reverse

from documents.opening import rename_document
from history.audit import export as trail_export
from history.audit.entries import AuditVerdict, verify_audit
from history.models import Action, AuditEntry, Via
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def shared() -> Shared:
    shared = a_shared_document()
    shared.type(shared.editor, "x")
    rename_document(shared.document, title="Notes")
    return shared


def url_of(shared: Shared) -> str:
    return reverse("document-audit", args=[shared.document.key])


def test_owners_alone_read_it(shared: Shared) -> None:
    answers = {
        who: signed_in(who).get(url_of(shared)).status_code
        for who in (shared.owner, shared.editor, shared.viewer, a_user("stranger"))
    }
    assert list(answers.values()) == [200, 403, 403, 404]
    assert Client().get(url_of(shared)).status_code == 401
    assert signed_in(shared.owner).post(url_of(shared)).status_code == 405


def test_it_says_who_did_what_when_from_where_and_through_which_door(shared: Shared) -> None:
    lines = signed_in(shared.owner).get(url_of(shared), {"what": "edited"}).json()["lines"]
    assert [(line["who"], line["door"], line["ip"], line["first_seq"], line["last_seq"]) for line in lines] == [
        ("editor", "websocket", "192.0.2.7", 1, 1)
    ]
    (renamed,) = signed_in(shared.owner).get(url_of(shared), {"what": "renamed"}).json()["lines"]
    assert (renamed["detail"], renamed["title"]) == ({"title": "Notes", "was": "Minutes"}, "Notes")
    assert set(renamed) == set(trail_export.COLUMNS)


def test_pages_hold_every_line_once(shared: Shared) -> None:
    client = signed_in(shared.owner)
    whole = client.get(url_of(shared), {"limit": 500}).json()
    assert whole["next_before"] is None
    before, paged = None, []
    for _ in range(50):
        answer = client.get(url_of(shared), {"limit": 2, **({"before": before} if before else {})}).json()
        paged += answer["lines"]
        before = answer["next_before"]
        if before is None:
            break
    assert paged == whole["lines"]
    assert len(paged) >= 6


@pytest.mark.parametrize(
    "query",
    [
        {"what": "nonsense"},
        {"via": "9"},
        {"since": "soon"},
        {"before": "1"},
        {"before": "999999999999999999.0"},
        {"limit": "501"},
        {"format": "xlsx"},
    ],
)
def test_what_cannot_be_read_is_answered_in_words(shared: Shared, query: dict[str, str]) -> None:
    response = signed_in(shared.owner).get(url_of(shared), query)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed")


def test_a_time_may_have_any_offset_that_iso_8601_has(shared: Shared) -> None:
    times = {"since": "2001-01-01T00:00:00-23:59", "until": "8999-12-31T23:59:59-23:59"}
    answer = signed_in(shared.owner).get(url_of(shared), times)
    assert (answer.status_code, answer.json()["lines"] != []) == (200, True)


def test_reading_it_is_an_opening_and_taking_it_away_an_act(shared: Shared) -> None:
    client = signed_in(shared.owner)
    file = client.get(url_of(shared), {"format": "jsonl"})
    records = [json.loads(line) for line in b"".join(cast(Any, file).streaming_content).splitlines()]
    assert records[0]["what"] == "exported"
    entries = AuditEntry.objects.filter(document_id=shared.document.pk, action=Action.EXPORTED)
    assert [(each.user_id, each.via, each.ip, each.detail) for each in entries] == [
        (shared.owner.pk, Via.API.value, "127.0.0.1", {"of": "audit", "format": "jsonl"})
    ]
    assert isinstance(verify_audit(shared.document.pk), AuditVerdict)


@pytest.mark.django_db(transaction=True)
def test_whoever_opens_a_document_by_a_page_or_the_api_is_in_the_audit(shared: Shared) -> None:
    client = signed_in(shared.viewer)
    for _ in range(2):
        for name in ("document-page", "document-history", "document-content"):
            assert client.get(reverse(name, args=[shared.document.key])).status_code == 200
    assert signed_in(a_user("stranger")).get(reverse("document-content", args=[shared.document.key])).status_code == 404
    opened = AuditEntry.objects.filter(document_id=shared.document.pk, action=Action.OPENED).order_by("n")
    assert [(each.user_id, each.via) for each in opened] == [
        (shared.viewer.pk, Via.PAGE.value),
        (shared.viewer.pk, Via.API.value),
    ]


@pytest.mark.django_db(transaction=True)
async def test_under_asgi_too_a_file_is_written_as_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail_export, "LINES_PER_CHUNK", 2)
    shared = await sync_to_async(a_shared_document)()
    client = AsyncClient()
    await client.aforce_login(shared.owner)
    made = 0
    records_of = trail_export.record_of

    def counted(line: Any) -> dict[str, Any]:
        nonlocal made
        made += 1
        return records_of(line)

    monkeypatch.setattr(trail_export, "record_of", counted)
    file = await client.get(url_of(shared), {"format": "jsonl"})
    assert isinstance(file, StreamingHttpResponse)
    chunks = cast(AsyncIterator[bytes], aiter(cast(Any, file)))
    assert (await anext(chunks)).count(b"\n") == 2
    assert made == 2
    rest = b"".join([chunk async for chunk in chunks])
    assert rest.count(b"\n") == made - 2 >= 3
    await sync_to_async(connections.close_all)()  # of the thread that Django made for it
