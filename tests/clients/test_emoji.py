"""Stock editors that cut emoji in two, on two worker processes: one document for all, and the log folds to it."""

import asyncio
import logging
import random
import secrets

import pytest

from history.models import Kind
from tests.clients.driver import NodeClients
from tests.clients.stack import Stack, a_room, assert_log_holds

logger = logging.getLogger(__name__)

EMOJI = {"root": "t", "do": "insert", "index": 0, "text": "a😀b"}
BETWEEN_HALVES = {"root": "t", "do": "insert", "index": 2, "text": "x"}


@pytest.fixture
def rng() -> random.Random:
    seed = secrets.randbits(32)
    logger.warning("seed of this run: %d", seed)
    return random.Random(seed)


async def test_an_emoji_that_one_person_cuts_is_cut_for_everyone_and_for_who_comes_later(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("cut")
    ann, ben, cem = [
        await open_stack.join(node, name, room, on=on) for name, on in (("ann", 0), ("ben", 1), ("cem", 0))
    ]
    await ann.edit(EMOJI)
    await node.converged(ann, ben, cem)

    await ann.edit(BETWEEN_HALVES)
    await cem.wait_seen("a\ufffdx\ufffdb")
    await ben.wait_seen("a\ufffdx\ufffdb")
    await ben.edit({"root": "t", "do": "append", "text": " and on"})

    dan = await open_stack.join(node, "dan", room, on=1)
    await assert_log_holds(open_stack, node, room, ann, ben, cem, dan)
    assert await dan.seen() == "a\ufffdx\ufffdb and on"
    events = [event["kind"] for client in (ann, ben, cem) for event in await client.events()]
    assert not {"close", "closed", "error"} & set(events), "nobody was cut off"


async def test_editors_that_cut_emoji_without_end_stay_one_document(
    open_stack: Stack, node: NodeClients, rng: random.Random
) -> None:
    room = a_room("emoji")
    people = [await open_stack.join(node, name, room, on=on) for name, on in (("ann", 0), ("ben", 1), ("cem", 0))]

    async def edit(count: int) -> None:
        seeds = [rng.randrange(2**31) for _ in people]
        await asyncio.gather(
            *(one.random_emoji(seed=seed, count=count, interval_ms=2) for one, seed in zip(people, seeds, strict=True))
        )

    await edit(60)
    await people[1].disconnect()
    await edit(30)
    await people[1].connect()
    await edit(10)
    await assert_log_holds(open_stack, node, room, *people)
    await node.converged(*people, await open_stack.join(node, "late", room, on=1))
    assert any(row.kind is Kind.SPLIT for row in open_stack.database.rows(room))
