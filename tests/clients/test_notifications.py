"""Notifications over two worker processes, for real sockets with the cookie of somebody who is signed in."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from documents.models import Document
from history.models import Via
from history.writes import append_update, restore, write_session
from tests.builders import typed
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room

DEADLINE_SECONDS = 15.0

FROM_THE_SHELL = """
from django.db import transaction
from realtime.notifications.sending import send_notification_to_user
for attempt in range(2):
    with transaction.atomic():
        send_notification_to_user({user!r}, {{"text": "from the shell"}}, request_key="once")
"""


class Tab:
    """A tab of somebody's: `said` is what the server sent."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.said: list[dict[str, Any]] = []

    async def until(self, **fields: Any) -> dict[str, Any]:
        """Wait for a message with these fields. Raises: TimeoutError, ConnectionClosed."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                for each in self.said:
                    if fields.items() <= each.items():
                        return each
                self.said.append(json.loads(await self._socket.recv()))

    async def say(self, message: Any) -> None:
        await self._socket.send(json.dumps(message))

    @property
    def shown(self) -> list[Any]:
        return [each["message"] for each in self.said if each["type"] == "notification"]


@asynccontextmanager
async def a_tab(stack: Stack, cast: Cast, name: str, *, on: int) -> AsyncIterator[Tab]:
    """Open a tab on one of the worker processes."""
    with stack.paused(*(index for index in stack.all if index != on)):
        socket = await connect(f"{stack.url}/notifications/", additional_headers=cast.cookies[name], proxy=None)
        tab = Tab(socket)
        await tab.until(type="connection_established")
    async with socket:
        yield tab


def restored_by_ed(document: Document, ed: Any) -> None:
    for update in typed("xy"):
        append_update(write_session(document, actor=ed, via=Via.API), update)
    restore(write_session(document, actor=ed, via=Via.API), 1)


async def test_tabs_on_two_workers_are_shown_the_same_once_and_hear_what_was_read(members_stack: Stack) -> None:
    stack = members_stack
    cast = await stack.database.run(a_cast, a_room("told"))
    code = FROM_THE_SHELL.format(user=cast.user_ids["olga"])
    async with a_tab(stack, cast, "olga", on=0) as one, a_tab(stack, cast, "olga", on=1) as other:
        await asyncio.to_thread(stack.manage, "shell", "-c", code)
        told = [await tab.until(message={"text": "from the shell"}) for tab in (one, other)]
        assert told[0] == told[1]

        # From a process that shares no channel layer with these: the watch finds it.
        ed = await stack.database.run(cast.document.members.get, username__startswith="ed of")
        await stack.database.run(restored_by_ed, cast.document, ed)
        about = {"document": str(cast.document.key), "title": "Minutes", "by": ed.username}
        said = {"kind": "restored", **about, "seq": 3, "source_seq": 1}
        for tab in (one, other):
            await tab.until(message=said)

        await one.say({"type": "read", "up_to": told[0]["id"]})
        for tab in (one, other):
            await tab.until(type="read", ids=[told[0]["id"]])
        assert one.shown == other.shown == [{"text": "from the shell"}, said]
    async with a_tab(stack, cast, "olga", on=1) as later, a_tab(stack, cast, "vic", on=0) as stranger:
        assert later.said[0] == {"type": "connection_established", "unread": 1}
        await later.until(message=said)
        assert later.shown == [said]
        assert [each["kind"] for each in stranger.shown] == []


async def test_a_killed_worker_costs_a_tab_nothing_but_its_connection(mortal_stack: Stack) -> None:
    stack = mortal_stack
    cast = await stack.database.run(a_cast, a_room("told and killed"))
    code = FROM_THE_SHELL.format(user=cast.user_ids["ed"])
    async with a_tab(stack, cast, "ed", on=0):
        stack.workers.kill(0)
        await asyncio.to_thread(stack.manage, "shell", "-c", code)
    async with a_tab(stack, cast, "ed", on=1) as again:
        await again.until(message={"text": "from the shell"})
    stack.revive_workers()
