"""What is undone and restored from the admin's pages reaches stock editors that have the document open, live."""

import asyncio
import urllib.request
from collections import Counter
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.models import User

from history.models import Kind, Via
from tests.clients.driver import Client, NodeClients
from tests.clients.people import Cast, a_cast, cookie_of
from tests.clients.stack import HTTP_SECONDS, LoggedRow, Stack, a_room, assert_log_holds, until
from tests.integration.history_pages.builders import hidden_in

CSRF_TOKEN = "c" * 32


def a_superuser(name: str) -> dict[str, str]:
    """Request headers of somebody new who may do everything in the admin."""
    cookie = cookie_of(User.objects.create_superuser(name))["Cookie"]
    return {"Cookie": f"{cookie}; {settings.CSRF_COOKIE_NAME}={CSRF_TOKEN}"}


async def act(stack: Stack, cast: Cast, page: str, root: dict[str, str], **asked: str | int) -> LoggedRow:
    """Open a page of the admin, look at its preview, and press its button; return the row that came of it."""
    path = f"/admin/history/documenthistory/{cast.document.pk}/{page}/"
    preview = await stack.get(f"{path}?{urlencode(asked)}", **root)
    body = urlencode({**hidden_in(preview), "csrfmiddlewaretoken": CSRF_TOKEN}).encode()
    request = urllib.request.Request(stack.http_url + path, data=body, headers=root)

    def press() -> str:
        with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as response:
            return str(response.url)

    landed_on = await asyncio.to_thread(press)
    _, _, seq = landed_on.rpartition("?seq=")
    (row,) = (row for row in stack.database.rows(cast.room) if row.seq == int(seq))
    return row


async def two_editors(stack: Stack, node: NodeClients, cast: Cast) -> tuple[Client, Client]:
    olga = await stack.join(node, f"olga in {cast.room}", cast.room, on=0, headers=cast.cookies["olga"])
    ed = await stack.join(node, f"ed in {cast.room}", cast.room, on=1, headers=cast.cookies["ed"])
    return olga, ed


async def test_an_undo_from_the_admin_reaches_open_editors_and_leaves_what_they_type_meanwhile(
    members_stack: Stack, node: NodeClients
) -> None:
    cast = await members_stack.database.run(a_cast, a_room("undone in the admin"))
    root = await members_stack.database.run(a_superuser, f"root of {cast.room}")
    olga, ed = await two_editors(members_stack, node, cast)
    await olga.type("HELLO ")
    await ed.watch("HELLO ")
    await ed.type("BAD WORDS ")
    await olga.watch("BAD WORDS ")
    head = members_stack.database.head_seq(cast.room)

    typing = [
        asyncio.ensure_future(client.type(letter * 2_000, interval_ms=2)) for client, letter in ((olga, "o"), (ed, "e"))
    ]
    await until("both are typing", lambda: members_stack.database.head_seq(cast.room) > head + 20)
    row = await act(members_stack, cast, "undo", root, user=f"ed of {cast.room}", to=head)
    await until("both have typed on", lambda: members_stack.database.head_seq(cast.room) > row.seq + 20)
    await olga.stop()
    await ed.stop()
    typed = Counter(o=await typing[0], e=await typing[1])

    assert (row.kind, row.via) == (Kind.UNDO, Via.ADMIN)
    await assert_log_holds(members_stack, node, cast.room, olga, ed)
    text = (await olga.content()).text()
    assert "BAD" not in text
    assert Counter(text) == Counter("HELLO ") + typed


async def test_a_restore_from_the_admin_reaches_open_editors_and_leaves_what_they_type_from_then_on(
    members_stack: Stack, node: NodeClients
) -> None:
    cast = await members_stack.database.run(a_cast, a_room("restored in the admin"))
    root = await members_stack.database.run(a_superuser, f"root of {cast.room}")
    olga, ed = await two_editors(members_stack, node, cast)
    await olga.type("KEEP ME ")
    await ed.watch("KEEP ME ")
    moment = members_stack.database.head_seq(cast.room)
    await ed.edit({"root": "t", "do": "delete", "index": 0, "length": len("KEEP ME ")})
    await olga.wait_seen("")

    typing = [asyncio.ensure_future(client.type("x" * 2_000, interval_ms=2)) for client in (olga, ed)]
    await until("both are typing", lambda: members_stack.database.head_seq(cast.room) > moment + 20)
    row = await act(members_stack, cast, "restore", root, seq=moment)
    await asyncio.gather(olga.watch("KEEP ME "), ed.watch("KEEP ME "))
    await until("both have typed on", lambda: members_stack.database.head_seq(cast.room) > row.seq + 20)
    await olga.stop()
    await ed.stop()
    await asyncio.gather(*typing)

    assert (row.kind, row.via) == (Kind.RESTORE, Via.ADMIN)
    await assert_log_holds(members_stack, node, cast.room, olga, ed)
    text = Counter((await olga.content()).text())
    assert text - Counter(x=text["x"]) == Counter("KEEP ME ")
    # It took back what the log held when it was planned, which is more than the first typing and less than all of it.
    rows = members_stack.database.rows(cast.room)
    planned = range(moment + 20, row.seq)
    assert text["x"] in {sum(map(characters, rows[head:])) for head in planned}


def characters(row: LoggedRow) -> int:
    return 0 if row.kind is Kind.RESTORE else sum(struct.length for struct in row.update.structs)
