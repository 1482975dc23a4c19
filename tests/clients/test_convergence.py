"""Stock editors on two worker processes end up with one document, and the log folds to exactly that document."""

import asyncio
import logging
import random
import secrets

import pytest

from history.crdt.updates import Kind
from tests.clients.driver import Client, NodeClients
from tests.clients.stack import Database, Stack, a_room, assert_log_holds

logger = logging.getLogger(__name__)

PARAGRAPH = {"root": "x", "do": "push", "nodes": [{"name": "paragraph", "children": [{"text": "first words"}]}]}
PARAGRAPH_GONE = {"root": "x", "do": "delete", "index": 0}
LATE_WORDS = {"root": "x", "path": [0, 0], "do": "append", "text": " and LATE WORDS"}


@pytest.fixture
def rng() -> random.Random:
    seed = secrets.randbits(32)
    logger.warning("seed of this run: %d", seed)
    return random.Random(seed)


async def three(stack: Stack, node: NodeClients, room: str) -> list[Client]:
    """Ann and Cem on the first worker process, Ben on the second."""
    return [await stack.join(node, name, room, on=on) for name, on in (("ann", 0), ("ben", 1), ("cem", 0))]


def strings_in_log(database: Database, room: str) -> list[str]:
    """Every piece of text that any row of the log brought."""
    rows = [row.update for row in database.rows(room)]
    return [str(struct.content) for row in rows for struct in row.structs if struct.kind is Kind.STRING]


async def test_three_clients_on_two_processes_converge_on_random_concurrent_edits_of_every_root(
    open_stack: Stack, node: NodeClients, rng: random.Random
) -> None:
    room = a_room("every root/of ü")
    clients = await three(open_stack, node, room)

    await asyncio.gather(*(one.random(seed=rng.randrange(2**31), count=200, interval_ms=1) for one in clients))
    await assert_log_holds(open_stack, node, room, *clients)

    roots = (await clients[0].content()).roots
    assert all(roots[name]["delta" if name == "t" else "tree"] for name in "tamx")


async def test_the_author_of_a_row_is_the_session_that_sent_it(open_stack: Stack, node: NodeClients) -> None:
    room = a_room("authors")
    clients = await three(open_stack, node, room)

    await asyncio.gather(*(one.type("words of mine", interval_ms=1) for one in clients))
    await assert_log_holds(open_stack, node, room, *clients)

    with open_stack.database.connect() as connection:
        query = "SELECT id FROM history_session WHERE document_id = (SELECT id FROM documents_document WHERE name = %s)"
        assert len(connection.execute(query, [room]).fetchall()) == 3
    writers = [{struct.client for struct in row.update.structs} for row in open_stack.database.rows(room)]
    assert all(len(ids) == 1 for ids in writers)


async def test_offline_edits_of_both_sides_merge_on_reconnection(
    open_stack: Stack, node: NodeClients, rng: random.Random
) -> None:
    room = a_room("offline")
    clients = await three(open_stack, node, room)
    await asyncio.gather(*(one.random(seed=rng.randrange(2**31), count=40) for one in clients))
    await node.converged(*clients)
    ann, ben, cem = clients

    await asyncio.gather(ann.disconnect(), ben.disconnect())
    await asyncio.gather(*(one.random(seed=rng.randrange(2**31), count=60) for one in clients))
    await ann.edit({"root": "m", "do": "set", "key": "ann was", "value": "offline"})
    assert "ann was" not in (await cem.content()).roots["m"]["json"]
    await asyncio.gather(ann.connect(), ben.connect())

    await assert_log_holds(open_stack, node, room, *clients)
    assert (await cem.content()).roots["m"]["json"]["ann was"] == "offline"


async def test_text_typed_into_a_paragraph_that_is_deleted_at_the_same_time_is_in_the_log(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("deleted paragraph")
    ann, ben, cem = await three(open_stack, node, room)
    await ann.edit(PARAGRAPH)
    await node.converged(ann, ben, cem)

    with open_stack.paused(1):  # Ben types before anything of the deletion can reach him
        await ann.edit(PARAGRAPH_GONE)
        await cem.wait_seen("", root="x")
        await ben.edit(LATE_WORDS)

    await assert_log_holds(open_stack, node, room, ann, ben, cem)
    assert await ann.seen("x") == ""
    assert " and LATE WORDS" in strings_in_log(open_stack.database, room)


async def test_text_typed_offline_into_a_paragraph_deleted_before_a_restart_is_in_the_log(
    mortal_stack: Stack, node: NodeClients
) -> None:
    # After the restart no process has ever held the paragraph's text but by reading the log.
    room = a_room("deleted before the restart")
    ann, ben, _ = clients = await three(mortal_stack, node, room)
    await ann.edit(PARAGRAPH)
    await node.converged(*clients)
    await ben.disconnect()
    await ann.edit(PARAGRAPH_GONE)
    await clients[2].wait_seen("", root="x")

    mortal_stack.kill_workers()
    await ben.edit(LATE_WORDS)
    mortal_stack.revive_workers()
    await ben.connect()

    await assert_log_holds(mortal_stack, node, room, *clients)
    assert await ben.seen("x") == ""
    assert " and LATE WORDS" in strings_in_log(mortal_stack.database, room)
