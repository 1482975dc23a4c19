"""What docs/clients.md shows besides editors: the snippets run as they stand, against a running server."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from documents.tickets import issue_ticket, redeem_ticket
from realtime.notifications.sending import send_notification_to_user
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
        "sh", "-eu", source=f'{source}\necho "\\"$TICKET\\" \\"$SESSION\\""', environment=environment, folder=tmp_path
    )
    content, version, ticket, session = values_in(printed)
    assert content["content"]["content"]["text"] == "Words"
    assert (version["name"], version["seq"]) == ("First draft", content["seq"])
    assert await members_stack.database.run(redeem_ticket, ticket, cast.room) == cast.document.created_by
    page = await members_stack.get(f"/d/{cast.document.key}/", Cookie=f"{settings.SESSION_COOKIE_NAME}={session}")
    assert given["NAME"] in page


def values_in(text: str) -> list[Any]:
    """JSON values that stand one after the other."""
    values = []
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


class Shell:
    """A command of the page that goes on running: lines in, lines of JSON out."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def hear(self, *names: str) -> dict[str, Any]:
        """The next message that has all these names, whatever comes before it."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SCRIPT_SECONDS):
            while line := await self._process.stdout.readline():
                message: dict[str, Any] = json.loads(line)
                if message.keys() >= set(names):
                    return message
        raise AssertionError(f"it ended before it said {names}")


@contextlib.asynccontextmanager
async def running(command: str, folder: Path, **environment: str) -> AsyncIterator[Shell]:
    """Run a command with `websocat`, the real one or ours."""
    if shutil.which("websocat") is None:
        ours = folder / "websocat"
        ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("websocat.py")}" "$@"\n')
        ours.chmod(0o755)
    process = await asyncio.create_subprocess_shell(
        f"exec {command}",
        env={**os.environ, "PATH": f"{os.environ['PATH']}{os.pathsep}{folder}", **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Shell(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def lines_of(heading: str, stack: Stack, cast: Cast) -> tuple[str, list[str]]:
    """The command of a section, and the messages that it shows."""
    command, messages = (
        shown(heading, language, http_url=stack.http_url, room=cast.room) for language in ("sh", "json")
    )
    return command.strip(), messages.splitlines()


async def test_a_shell_and_a_yjs_client_write_in_one_text(
    members_stack: Stack, node: NodeClients, cast: Cast, ticket: str, tmp_path: Path
) -> None:
    ed = await members_stack.join(node, "ed", cast.room, headers=cast.cookies["ed"], types={"content": "text"})
    await ed.edit({"root": "content", "do": "append", "text": "Words"})
    await until("the log has it", lambda: members_stack.database.head_seq(cast.room) == 1)
    command, (edit, cursor, heartbeat) = lines_of("JSON rooms", members_stack, cast)
    async with running(command, tmp_path, TICKET=ticket) as shell, running(command, tmp_path, TICKET=ticket) as other:
        first = await shell.hear("content", "seq")
        assert (first["content"], first["seq"]) == ("Words", json.loads(edit)["base"])
        await other.hear("content", "seq")
        await shell.say(edit)
        assert await shell.hear("type", "id", "seq") == {"type": "edit_ack", "id": "one", "seq": 2}
        await shell.say(heartbeat)
        await shell.say(cursor)
        assert (await other.hear("cursor"))["cursor"]["position"] == json.loads(cursor)["position"]
    await ed.wait_seen("Words from a shell", root="content")
    assert [row.user_id for row in members_stack.database.rows(cast.room)] == [
        cast.user_ids["ed"],
        cast.user_ids["olga"],
    ]


async def test_a_shell_says_something_in_the_chat_and_reads_what_was_said(
    members_stack: Stack, cast: Cast, ticket: str, tmp_path: Path
) -> None:
    command, (hello, history) = lines_of("Chat", members_stack, cast)
    async with running(command, tmp_path, TICKET=ticket) as shell:
        await shell.say(hello)
        said = await shell.hear("message", "author", "at", "id")
        assert (said["message"], said["author"]["username"]) == ("Hello", f"olga of {cast.room}")
        await shell.say(history)
        assert (await shell.hear("messages"))["messages"] == [said]


async def test_a_shell_is_told_what_concerns_somebody_and_says_that_it_was_read(
    members_stack: Stack, cast: Cast, tmp_path: Path
) -> None:
    await members_stack.database.run(send_notification_to_user, cast.user_ids["ed"], {"text": "It is in print."})
    command, (read,) = lines_of("Notifications", members_stack, cast)
    session = cast.cookies["ed"]["Cookie"].partition("=")[2]
    async with running(command, tmp_path, SESSION=session) as shell:
        assert (await shell.hear("unread"))["unread"] == 2
        assert (await shell.hear("message", "id"))["message"]["kind"] == "shared"
        told = await shell.hear("message", "id")
        assert told["message"] == {"text": "It is in print."}
        await shell.say(json.dumps({**json.loads(read), "ids": [told["id"]]}))
        assert await shell.hear("ids") == {"type": "read", "ids": [told["id"]]}
