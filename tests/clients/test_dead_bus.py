"""The channel layer carries hints and nothing else: with it dead, processes still converge by reading the log."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.clients.chats import in_chat
from tests.clients.driver import Client, NodeClients, NodeError
from tests.clients.people import a_cast
from tests.clients.stack import Stack, a_room, assert_log_holds
from tests.conftest import BreakableGround

REPAIR_SECONDS = 5.0
"""HEAD_CHECK_SECONDS is 2."""
REJOIN_SECONDS = 20.0
"""A process notices within 6 s (`silence_seconds`) that the layer has forgotten it."""


@pytest.fixture(scope="module")
def guarded(breakable_ground: BreakableGround) -> Iterator[Stack]:
    ground = breakable_ground
    with Stack(database=ground.database, redis_url=ground.valkey.url, DEBUG="true", OPEN_ROOMS="true") as stack:
        yield stack


@pytest.fixture
def by_hints_alone(breakable_ground: BreakableGround) -> Iterator[Stack]:
    ground = breakable_ground
    with Stack(
        database=ground.database,
        redis_url=ground.valkey.url,
        application="tests.clients.without_gap_repair:application",
        DEBUG="true",
        OPEN_ROOMS="true",
    ) as stack:
        yield stack


@pytest.fixture
def bus(breakable_ground: BreakableGround) -> Iterator["Bus"]:
    yield (bus := Bus(breakable_ground))
    bus.start()


class Bus:
    """The Valkey server, which a test may kill and start again."""

    def __init__(self, ground: BreakableGround) -> None:
        self._valkey = ground.valkey

    def kill(self) -> None:
        self._valkey.kill()

    def start(self) -> None:
        if not self._valkey.running:
            self._valkey.start()


async def one_on_each(stack: Stack, node: NodeClients, room: str) -> tuple[Client, Client]:
    """Two who see each other's edits."""
    ann = await stack.join(node, f"ann in {room}", room, on=0)
    ben = await stack.join(node, f"ben in {room}", room, on=1)
    await ann.type("ann ")
    await ben.watch("ann ")
    await ben.type("ben ")
    await ann.watch("ben ")
    return ann, ben


async def assert_an_edit_crosses(writer: Client, reader: Client, words: str, *, timeout_seconds: float) -> None:
    await writer.edit({"root": "t", "do": "append", "text": words})
    try:
        await reader.watch(words, timeout_seconds=timeout_seconds)
    except NodeError as error:
        raise AssertionError(f"{words!r} did not reach the other process: {error}") from error


async def until_the_bus_is_back(*clients: Client) -> None:
    """Show presence, which travels by the channel layer alone, until all see all."""
    async with asyncio.timeout(REJOIN_SECONDS):
        for number in range(1_000_000):
            state = {"tries": number}
            for client in clients:
                await client.set_awareness(state)
            try:
                for seer in clients:
                    for seen in clients:
                        await seer.wait_awareness(seen.client_id, state=state, timeout_seconds=0.3)
            except NodeError:
                continue
            return


async def test_with_the_channel_layer_dead_edits_reach_the_other_process_by_the_log(
    guarded: Stack, bus: Bus, node: NodeClients
) -> None:
    room = a_room("dead bus")
    ann, ben = await one_on_each(guarded, node, room)

    bus.kill()
    await assert_an_edit_crosses(ann, ben, "from Ann without a bus", timeout_seconds=REPAIR_SECONDS)
    await assert_an_edit_crosses(ben, ann, "from Ben without a bus", timeout_seconds=REPAIR_SECONDS)
    late = await guarded.join(node, "late", room, on=1)
    assert "from Ben without a bus" in await late.seen()

    bus.start()
    await until_the_bus_is_back(ann, ben)
    await assert_an_edit_crosses(ann, ben, "with the bus again", timeout_seconds=REPAIR_SECONDS)
    await assert_log_holds(guarded, node, room, ann, ben, late)


async def test_without_gap_repair_a_dead_channel_layer_would_be_noticed_and_hints_flow_when_it_is_back(
    by_hints_alone: Stack, bus: Bus, node: NodeClients
) -> None:
    ann, ben = await one_on_each(by_hints_alone, node, a_room("never repaired"))
    quiet_ann, quiet_ben = await one_on_each(by_hints_alone, node, a_room("quiet meanwhile"))

    bus.kill()
    with pytest.raises(AssertionError, match="did not reach the other process"):
        await assert_an_edit_crosses(ann, ben, "lost on the way", timeout_seconds=REPAIR_SECONDS)

    bus.start()
    await until_the_bus_is_back(quiet_ann, quiet_ben)
    await assert_an_edit_crosses(quiet_ann, quiet_ben, "by a hint", timeout_seconds=REPAIR_SECONDS)


async def test_what_is_said_in_a_chat_crosses_by_the_database(guarded: Stack, bus: "Bus") -> None:
    cast = await guarded.database.run(a_cast, a_room("chat"))
    async with in_chat(guarded, cast, "olga", on=0) as olga, in_chat(guarded, cast, "ed", on=1) as ed:
        await olga.say("before")
        await asyncio.gather(olga.until_said("before"), ed.until_said("before"))
        bus.kill()
        for number in range(5):
            await olga.say(f"olga {number}")
        said = ["before", *(f"olga {number}" for number in range(5))]
        await asyncio.gather(olga.until_said(*said), ed.until_said(*said))
        await ed.say("ed")
        await asyncio.gather(olga.until_said(*said, "ed"), ed.until_said(*said, "ed"))
        bus.start()
        await olga.say("after")
        await asyncio.gather(olga.until_said(*said, "ed", "after"), ed.until_said(*said, "ed", "after"))
