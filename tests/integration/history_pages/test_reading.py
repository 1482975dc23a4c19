"""Differences, blame and playback over the API: for those who may see the document, and bounded."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient, Client
from django.urls import reverse
from pytest_django import Settings

from history.heavy_reads import heavy_read
from history.models import Head, Update
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, signed_in

pytestmark = pytest.mark.django_db

DOORS = ("document-changes", "document-blame", "document-playback")


@pytest.fixture
def shared() -> Shared:
    shared = a_shared_document()
    for person, words in ((shared.owner, "one "), (shared.editor, "two "), (shared.owner, "three")):
        shared.type(person, words)
    return shared


@pytest.fixture
def client(shared: Shared) -> Client:
    return signed_in(shared.viewer)


def address(shared: Shared, door: str) -> str:
    return reverse(door, args=[shared.document.key])


def lines_of(response: Any) -> list[Any]:
    return [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]


@pytest.mark.parametrize("door", DOORS)
def test_who_may_not_see_the_document_is_told_as_little_as_everywhere(shared: Shared, door: str) -> None:
    url = address(shared, door)
    assert Client().get(url).status_code == 401
    assert signed_in(a_user("stranger")).get(url).status_code == 404
    assert signed_in(shared.viewer).get(url).status_code == 200
    assert signed_in(shared.owner).post(url).status_code == 405


@pytest.mark.parametrize(
    ("door", "query", "status", "code"),
    [
        ("document-changes", {"from": "2", "to": "1"}, 400, "malformed"),
        ("document-changes", {"from": "x"}, 400, "malformed"),
        ("document-changes", {"to": "4"}, 404, "no_such_seq"),
        ("document-blame", {"seq": "4"}, 404, "no_such_seq"),
        ("document-blame", {"deleted": "yes"}, 400, "malformed"),
        ("document-playback", {"from": "3", "to": "2"}, 400, "malformed"),
        ("document-playback", {"steps": "501"}, 400, "malformed"),
        ("document-playback", {"steps": "0"}, 400, "malformed"),
        ("document-playback", {"to": "9"}, 404, "no_such_seq"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    shared: Shared, client: Client, door: str, query: dict[str, str], status: int, code: str
) -> None:
    answer = client.get(address(shared, door), query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@contextmanager
def _as_much_as_it_may(settings: Settings) -> Iterator[None]:
    """While another thread of this process does the one heavy read that it may do at a time."""
    settings.PALIMPSEST = {"HEAVY_READS_MAX": 1, "PLAYBACKS_MAX": 1, "HEAVY_READS_WAIT_SECONDS": 0.05}
    begun, ended = Event(), Event()

    def read() -> None:
        with heavy_read():
            begun.set()
            ended.wait(30)

    other = Thread(target=read)
    other.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        ended.set()
        other.join()


def test_more_heavy_reads_than_a_process_may_do_at_a_time_are_answered_busy(shared: Shared, settings: Settings) -> None:
    client = signed_in(shared.editor)
    undo = {"user": "owner", "from": 1, "preview": True}
    restore = {"seq": 1, "preview": True}
    key = [shared.document.key]

    def asked() -> list[Any]:
        return [
            client.get(address(shared, "document-changes")),
            client.get(address(shared, "document-blame")),
            client.post(reverse("document-undo", args=key), undo, content_type="application/json"),
            client.post(reverse("document-restore", args=key), restore, content_type="application/json"),
            client.get(reverse("document-history", args=key), {"show": "authors"}),
            client.get(reverse("document-history-undo", args=key), {"user": "owner", "from": "1"}),
            client.get(reverse("document-history-restore", args=key), {"seq": "1"}),
        ]

    with _as_much_as_it_may(settings):
        answers = asked()
    assert [(answer.status_code, answer.get("Retry-After")) for answer in answers] == [(503, "5")] * 7
    assert answers[0].json()["error"]["code"] == "busy"
    assert [answer.status_code for answer in asked()] == [200] * 7


def test_a_playback_keeps_its_place_until_it_is_read_or_dropped(
    shared: Shared, client: Client, settings: Settings
) -> None:
    settings.PALIMPSEST = {"PLAYBACKS_MAX": 1, "HEAVY_READS_MAX": 1, "HEAVY_READS_WAIT_SECONDS": 0.05}
    url = address(shared, "document-playback")
    told: Any = client.get(url)
    lines = iter(told.streaming_content)
    next(lines)
    busy = client.get(url)
    assert (busy.status_code, busy.json()["error"]["code"], busy["Retry-After"]) == (503, "busy", "5")
    assert client.get(address(shared, "document-changes")).status_code == 200, "a slow reader keeps nobody from these"
    assert len(list(lines)) == 2
    del told, lines
    for ask in (client.get, client.head):
        dropped: Any = ask(url)
        assert dropped.status_code == 200
        for close in dropped._resource_closers:
            close()  # as the server does, whatever was read
    assert client.get(url, {"to": 9}).status_code == 404
    assert len(lines_of(client.get(url))) == 3


@pytest.mark.parametrize("door", DOORS)
def test_a_document_that_is_erased_behind_the_gate_is_not_found(shared: Shared, client: Client, door: str) -> None:
    Head.objects.filter(document=shared.document).delete()
    answer = client.get(address(shared, door))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_changes_are_told_by_node_in_words_and_in_numbers(shared: Shared, client: Client) -> None:
    answer = client.get(address(shared, "document-changes"), {"from": 1, "to": 3}).json()
    spans = [{"retain": 4}, {"insert": "two three", "attributes": {}}]
    assert answer == {
        "document": str(shared.document.key),
        "from": 1,
        "to": 3,
        "head_seq": 3,
        "words": "inserted 2 words: “two three”",
        "counts": {
            "inserted_characters": 9,
            "deleted_characters": 0,
            "formatted_characters": 0,
            "inserted_items": 0,
            "deleted_items": 0,
            "set_keys": 0,
            "deleted_keys": 0,
        },
        "changes": {"text": [{"path": [], "type": "text", "spans": spans}]},
    }


def test_without_seqs_it_is_what_the_last_one_changed(shared: Shared, client: Client) -> None:
    answer = client.get(address(shared, "document-changes")).json()
    assert (answer["from"], answer["to"], answer["words"]) == (2, 3, "inserted “three”")


def test_blame_names_accounts_and_no_addresses(shared: Shared, client: Client) -> None:
    answer = client.get(address(shared, "document-blame")).json()
    [node] = answer["content"]["text"]
    told = [(run["insert"], answer["writings"][str(run["by"])]) for run in node["runs"]]
    assert [(text, writing["author"], writing["seq"]) for text, writing in told] == [
        ("one ", "owner", 1),
        ("two ", "editor", 2),
        ("three", "owner", 3),
    ]
    assert set(told[0][1]) == {"author", "via", "kind", "seq", "at"}
    assert "192.0.2.7" not in json.dumps(answer)


@pytest.mark.parametrize("door", ["document-changes", "document-blame"])
def test_an_etag_spares_the_answer_until_the_document_moves_on(shared: Shared, client: Client, door: str) -> None:
    url = address(shared, door)
    first = client.get(url)
    assert client.get(url, headers={"If-None-Match": first["ETag"]}).status_code == 304
    assert client.get(url, {"deleted": 1, "from": 0}, headers={"If-None-Match": first["ETag"]}).status_code == 200
    shared.type(shared.owner, "more")
    assert client.get(url, headers={"If-None-Match": first["ETag"]}).status_code == 200


def test_a_playback_is_a_line_for_each_step(shared: Shared, client: Client) -> None:
    response = client.get(address(shared, "document-playback"), {"steps": 2})
    assert response["Content-Type"] == "application/jsonl"
    first, second = lines_of(response)
    assert (first["from"], first["seq"], first["authors"], first["words"]) == (0, 1, ["owner"], "inserted “one”")
    assert (second["from"], second["seq"], second["authors"]) == (1, 3, ["editor", "owner"])
    assert second["changes"]["text"][0]["spans"][0] == {"retain": 4}


@pytest.mark.django_db(transaction=True)
def test_a_playback_is_sent_line_by_line_under_asgi(shared: Shared) -> None:
    async def lines() -> list[Any]:
        client = AsyncClient()
        await client.aforce_login(shared.viewer)
        response: Any = await client.get(address(shared, "document-playback"), {"steps": 3})
        assert response.is_async
        try:
            return [json.loads(line) async for line in response.streaming_content]
        finally:
            await sync_to_async(connections.close_all)()

    assert [line["words"] for line in asyncio.run(lines())] == ["inserted “one”", "inserted “two”", "inserted “three”"]


def test_what_is_too_large_is_left_out_and_its_words_stay(shared: Shared, client: Client, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "READING_BYTES_MAX": 20}
    answer = client.get(address(shared, "document-changes")).json()
    assert (answer["changes"], answer["words"]) == (None, "inserted “three”")
    assert client.get(address(shared, "document-blame")).json()["content"] is None
    assert [line["changes"] for line in lines_of(client.get(address(shared, "document-playback")))] == [None] * 3


def test_a_damaged_log_is_told_in_words(shared: Shared, client: Client) -> None:
    steps = client.get(address(shared, "document-playback"), {"steps": 3})
    Update.objects.filter(document=shared.document, seq=2)._raw_delete("default")
    assert lines_of(steps)[-1]["error"]["code"] == "log_hole"
    for door in ("document-changes", "document-blame"):
        answer = client.get(address(shared, door))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_hole")
