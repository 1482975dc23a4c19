"""What docs/clients.md shows besides editors: the snippets run as they stand, against a running server."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from documents.tickets import issue_ticket, redeem_ticket
from tests.clients.driver import NodeClients
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room, until
from tests.documented import shown

SCRIPT_SECONDS = 30.0


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    return await members_stack.database.run(a_cast, a_room("clients"))


@pytest.fixture
async def ticket(members_stack: Stack, cast: Cast) -> str:
    """One of the owner's."""
    given = await members_stack.database.run(lambda: issue_ticket(cast.document.created_by, cast.document))
    return given.text


async def run_script(*command: str, source: str, environment: Mapping[str, str], folder: Path | None = None) -> str:
    """Hand a program its script, in this folder; return what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        input=source,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


async def test_pycrdts_own_provider_writes_together_with_a_stock_client(
    members_stack: Stack, node: NodeClients, cast: Cast, ticket: str
) -> None:
    ed = await members_stack.join(node, "ed", cast.room, headers=cast.cookies["ed"], types={"content": "text"})
    await ed.edit({"root": "content", "do": "append", "text": "From Node. "})
    await until("the log has it", lambda: members_stack.database.head_seq(cast.room))
    source = shown("Python", "python", http_url=members_stack.http_url, room=cast.room)
    printed = await run_script(sys.executable, "-", source=source, environment={"TICKET": ticket})
    assert printed == "From Node. From Python. \n"
    await ed.wait_seen("From Node. From Python. ", root="content")
    writers = [row.user_id for row in members_stack.database.rows(cast.room)]
    assert writers == [cast.user_ids["ed"], cast.user_ids["olga"]]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
async def test_curl_signs_in_reads_names_a_version_and_fetches_a_ticket(
    members_stack: Stack, node: NodeClients, cast: Cast, tmp_path: Path
) -> None:
    def with_password() -> str:
        olga = cast.document.created_by
        assert olga is not None
        olga.set_password("a password of hers")
        olga.save()
        return olga.get_username()

    given = {"NAME": await members_stack.database.run(with_password), "PASSWORD": "a password of hers"}
    ed = await members_stack.join(node, "ed", cast.room, headers=cast.cookies["ed"], types={"content": "text"})
    await ed.edit({"root": "content", "do": "append", "text": "Words"})
    await until("the log has it", lambda: members_stack.database.head_seq(cast.room))
    source = shown("curl", "sh", http_url=members_stack.http_url, room=cast.room)
    environment = {**given, "KEY": str(cast.document.key)}
    printed = await run_script(
        "sh", "-eu", source=f'{source}\necho "\\"$TICKET\\""', environment=environment, folder=tmp_path
    )
    content, version, ticket = values_in(printed)
    assert content["content"]["content"]["text"] == "Words"
    assert (version["name"], version["seq"]) == ("First draft", content["seq"])
    assert await members_stack.database.run(redeem_ticket, ticket, cast.room) == cast.document.created_by


def values_in(text: str) -> list[Any]:
    """JSON values that stand one after the other."""
    values, at = [], 0
    while at < len(text.rstrip()):
        value, at = json.JSONDecoder().raw_decode(text, at)
        values.append(value)
    return values
