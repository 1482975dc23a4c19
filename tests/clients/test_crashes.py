"""Nothing that anyone saw is lost: worker processes and the database die by SIGKILL while people type.

What counts as seen is what a client holds of others' edits. It is compared with the log while every worker is dead or
stands still: a client that syncs again would bring back what the log had lost."""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from config.stack.services import Postgres
from tests.clients.driver import Client, NodeClients
from tests.clients.stack import Stack, a_room, assert_log_holds
from tests.conftest import BreakableGround, Ground

logger = logging.getLogger(__name__)

LETTER_MS = 10
LETTERS_BEFORE_THE_CRASH_MAX = 100
CRASHES_UNTIL_NOTICED_MAX = 10
EDITS_MAX = 100_000
"""More than anybody makes in a round: all type until they are stopped."""


@pytest.fixture
def rng() -> random.Random:
    seed = secrets.randbits(32)
    logger.warning("seed of this run: %d", seed)
    return random.Random(seed)


@pytest.fixture(scope="module")
def breakable_stack(breakable_ground: BreakableGround) -> Iterator[Stack]:
    ground = breakable_ground
    with Stack(database=ground.database, redis_url=ground.valkey.url, DEBUG="true", OPEN_ROOMS="true") as stack:
        yield stack


@pytest.fixture
def postgres(breakable_ground: BreakableGround) -> Iterator[Postgres]:
    """The database server to kill; it runs again for the tests that follow, whatever becomes of this one."""
    yield breakable_ground.postgres
    if not breakable_ground.postgres.running:
        breakable_ground.postgres.start()


async def three(stack: Stack, node: NodeClients, room: str, *, suffix: str = "") -> list[Client]:
    return [await stack.join(node, name + suffix, room, on=on) for name, on in (("ann", 0), ("ben", 1), ("cem", 0))]


@contextlib.asynccontextmanager
async def typing(clients: Sequence[Client], rng: random.Random) -> AsyncIterator[list[int]]:
    """All type for the length of the block, whatever happens; the counts of their edits are there afterwards."""
    ann, ben, cem = clients
    made: list[int] = []
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ann.type("a" * EDITS_MAX, interval_ms=LETTER_MS)),
            group.create_task(ben.type("b" * EDITS_MAX, interval_ms=LETTER_MS)),
            group.create_task(cem.random(seed=rng.randrange(2**31), count=EDITS_MAX, interval_ms=LETTER_MS)),
        ]
        yield made
        for client in clients:
            await client.stop()
    made += [task.result() for task in tasks]


async def in_the_middle(clients: Sequence[Client], rng: random.Random) -> None:
    """Wait until somebody has seen some more letters of one who types: these are one clock each."""
    writer = rng.choice(clients[:2])
    watcher = rng.choice([client for client in clients if client is not writer])
    known = (await watcher.seen_structs()).get(writer.client_id, 0)
    await watcher.wait_structs({writer.client_id: known + rng.randint(5, LETTERS_BEFORE_THE_CRASH_MAX)})


async def seen_of_others(clients: Sequence[Client]) -> dict[int, int]:
    """Client id → the furthest clock of that writer that any other client holds."""
    furthest: dict[int, int] = {}
    for client in clients:
        for writer, clock in (await client.seen_structs()).items():
            if writer != client.client_id:
                furthest[writer] = max(furthest.get(writer, 0), clock)
    return furthest


def assert_nothing_is_lost(stack: Stack, room: str, seen: dict[int, int]) -> None:
    assert seen, "nobody had seen anything: the crash came too early to show anything"
    logged = stack.database.clocks(room)
    lost = {writer: (clock, logged.get(writer, 0)) for writer, clock in seen.items() if clock > logged.get(writer, 0)}
    assert not lost, f"seen by others but not in the log, as writer: (seen, logged): {lost}"


async def crash_once(
    stack: Stack, clients: Sequence[Client], room: str, rng: random.Random, crash: Callable[[], None]
) -> tuple[int, int]:
    """Type, crash, compare and start again; return how many edits were made and how many seen units compared."""
    async with typing(clients, rng) as made:
        await in_the_middle(clients, rng)
        crash()
        with stack.paused(*stack.all):
            seen = await seen_of_others(clients)
            assert_nothing_is_lost(stack, room, seen)
        stack.revive_workers()
    return sum(made), sum(seen.values())


async def crash_rounds(
    stack: Stack, node: NodeClients, rng: random.Random, crashes: Sequence[Callable[[], None]], what: str
) -> None:
    """Crash and converge, once for each crash, all in one document."""
    room = a_room(what)
    clients = await three(stack, node, room)
    edits = seen_units = 0
    for crash in crashes:
        made, seen = await crash_once(stack, clients, room, rng, crash)
        edits += made
        seen_units += seen
        await node.converged(*clients)
    await assert_log_holds(stack, node, room, *clients)
    logger.warning("%s: %d edits, %d crashes, %d seen units compared, 0 lost", what, edits, len(crashes), seen_units)


async def test_sigkill_of_a_worker_while_typing_loses_nothing_that_another_client_saw(
    mortal_stack: Stack, node: NodeClients, rng: random.Random
) -> None:
    crashes = [lambda: mortal_stack.workers.kill(rng.randrange(2))] * 4
    await crash_rounds(mortal_stack, node, rng, crashes, "one worker killed")


async def test_sigkill_of_all_workers_while_typing_loses_nothing_that_another_client_saw(
    mortal_stack: Stack, node: NodeClients, rng: random.Random
) -> None:
    await crash_rounds(mortal_stack, node, rng, [mortal_stack.kill_workers] * 4, "all workers killed")


async def test_showing_edits_before_their_commit_would_be_noticed(
    ground: Ground, node: NodeClients, rng: random.Random
) -> None:
    unguarded = Stack(
        database=ground.database,
        redis_url=ground.redis_url,
        application="tests.clients.showing_before_commit:application",
        DEBUG="true",
        OPEN_ROOMS="true",
    )
    with unguarded as stack, pytest.raises(ExceptionGroup) as raised:
        for number in range(CRASHES_UNTIL_NOTICED_MAX):
            # A document for each: what is shown and then lost may keep these clients apart for good.
            room = a_room("shown before COMMIT")
            clients = await three(stack, node, room, suffix=f" {number}")
            await crash_once(stack, clients, room, rng, stack.kill_workers)
    assert raised.group_contains(AssertionError, match="seen by others but not in the log")


def end_at_once(postgres: Postgres) -> None:
    """PostgreSQL's immediate shutdown: no checkpoint, its sessions cut."""
    os.kill(postgres.pid, signal.SIGQUIT)
    postgres.kill()


@pytest.mark.parametrize("end", [Postgres.kill, end_at_once], ids=["killed", "immediate shutdown"])
async def test_a_database_that_restarts_while_people_type_loses_nothing_that_another_client_saw(
    postgres: Postgres,
    breakable_stack: Stack,
    node: NodeClients,
    rng: random.Random,
    end: Callable[[Postgres], None],
) -> None:
    room = a_room("database restarts")
    clients = await three(breakable_stack, node, room)
    edits = 0
    for _ in range(2):
        async with typing(clients, rng) as made:
            await in_the_middle(clients, rng)
            marks = [len(await client.events()) for client in clients]
            end(postgres)
            # The workers find it out by themselves, close with "try again", and refuse whoever comes back.
            for client, mark in zip(clients, marks, strict=True):
                assert (await client.wait_event("close", after=mark))["code"] == 1013
            with breakable_stack.paused(*breakable_stack.all):
                seen = await seen_of_others(clients)
                postgres.start()
                assert_nothing_is_lost(breakable_stack, room, seen)
        edits += sum(made)
        await node.converged(*clients)
    await assert_log_holds(breakable_stack, node, room, *clients)
    logger.warning("database restarts: %d edits, 2 restarts, 0 lost", edits)
