"""A copy of a document in a deployment: stock editors open it, see what the source says, and write on in it alone."""

import pytest
from django.contrib.auth.models import User

from documents.models import Document
from history.copies import copy_history, copy_moment
from history.models import Via
from tests.clients.driver import NodeClients
from tests.clients.people import a_cast
from tests.clients.stack import Stack, a_room, assert_log_holds


def a_copy(source: Document, owner_id: int, room: str, *, with_history: bool) -> None:
    owner = User.objects.get(pk=owner_id)
    if with_history:
        copy_history(source, name=room, actor=owner)
    else:
        copy_moment(source, name=room, actor=owner, via=Via.API)


@pytest.mark.parametrize("with_history", [False, True], ids=["without history", "with history"])
async def test_a_copy_is_opened_and_written_on_apart_from_its_source(
    members_stack: Stack, node: NodeClients, with_history: bool
) -> None:
    cast = await members_stack.database.run(a_cast, a_room("source"))
    ed = await members_stack.join(node, "ed", cast.room, on=0, headers=cast.cookies["ed"])
    await ed.random(seed=7, count=80)
    await ed.type("kept 😀 words")
    vic = await members_stack.join(node, "vic", cast.room, on=1, headers=cast.cookies["vic"])
    before = await node.converged(ed, vic)

    room = a_room("copy")
    run = members_stack.database.run
    await run(a_copy, cast.document, cast.user_ids["olga"], room, with_history=with_history)
    olga = await members_stack.join(node, "olga", room, on=1, headers=cast.cookies["olga"])
    again = await members_stack.join(node, "olga again", room, on=0, headers=cast.cookies["olga"])
    assert await node.converged(olga, again) == before

    await olga.type(" of Olga's")
    await again.watch(" of Olga's")
    await olga.random(seed=8, count=40)
    await assert_log_holds(members_stack, node, room, olga, again)
    await assert_log_holds(members_stack, node, cast.room, ed, vic)
    assert await node.converged(ed, vic) == before
