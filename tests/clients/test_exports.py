"""The whole history of a document, downloaded from a deployment: it is proven elsewhere, and a reader who goes away
holds nothing open."""

import asyncio
import contextlib
import http.client
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from pycrdt import Doc, Text

from documents.models import Document
from history.models import Via
from history.proof import offline_verify
from history.writes import append_update, write_session
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room, until

LARGE_ROWS = 24
LARGE_BYTES = 900_000
"""Of one row: with base64, LARGE_ROWS of them are more than the buffers between a server and its reader hold."""


def a_large_log(document: Document, owner_id: int) -> None:
    owner = User.objects.get(pk=owner_id)
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    session = write_session(document, actor=owner, via=Via.API)
    for _ in range(LARGE_ROWS):
        before = doc.get_state()
        text.insert(0, secrets.token_hex(LARGE_BYTES // 2))
        append_update(session, doc.get_update(before))


@contextlib.asynccontextmanager
async def exporting(stack: Stack, cast: Cast) -> AsyncIterator[http.client.HTTPResponse]:
    """The answer to Olga's form, of which nothing but the headers has been read; she goes away at the end."""
    token = "b" * 32
    headers = {
        "Cookie": f"{cast.cookies['olga']['Cookie']}; {settings.CSRF_COOKIE_NAME}={token}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    body = urlencode({"csrfmiddlewaretoken": token})
    connection = http.client.HTTPConnection(urlsplit(stack.http_url).netloc, timeout=20)

    def ask() -> http.client.HTTPResponse:
        connection.request("POST", f"/d/{cast.document.key}/history/export/", body, headers)
        return connection.getresponse()

    with contextlib.closing(connection), await asyncio.to_thread(ask) as answer:
        yield answer


def open_snapshots(stack: Stack) -> int:
    """Transactions of the workers that wait for their reader."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state = 'idle in transaction'"
    with stack.database.connect() as connection:
        row = connection.execute(query, [stack.database.name]).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_downloaded_history_is_proven_without_this_server(
    members_stack: Stack, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cast = await members_stack.database.run(a_cast, a_room("exported"))
    await members_stack.database.run(a_large_log, cast.document, cast.user_ids["olga"])
    file = tmp_path / "export.jsonl"
    async with exporting(members_stack, cast) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/jsonl")
        file.write_bytes(await asyncio.to_thread(answer.read))
    lines = file.read_text().splitlines()
    assert json.loads(lines[-1])["line"] == "end"
    assert len(lines) > LARGE_ROWS
    assert offline_verify.main([str(file)]) == 0, capsys.readouterr()
    assert open_snapshots(members_stack) == 0


async def test_a_reader_who_goes_away_in_the_middle_leaves_no_snapshot_of_the_database_open(
    members_stack: Stack,
) -> None:
    cast = await members_stack.database.run(a_cast, a_room("half exported"))
    await members_stack.database.run(a_large_log, cast.document, cast.user_ids["olga"])
    async with contextlib.AsyncExitStack() as readers:
        answers = [await readers.enter_async_context(exporting(members_stack, cast)) for _ in range(3)]
        for answer in answers:
            assert await asyncio.to_thread(answer.read, 100_000)
        await until("the exports wait for their readers", lambda: open_snapshots(members_stack) == len(answers))
    await until("their snapshots are let go", lambda: open_snapshots(members_stack) == 0)
    assert await members_stack.get(f"/d/{cast.document.key}/history/", **cast.cookies["olga"])
