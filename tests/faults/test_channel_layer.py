"""Whatever the channel layer does to hints, all replicas converge: by the log, which is looked at every two seconds."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.clients.driver import Client, NodeClients
from tests.clients.stack import Stack, a_room, assert_log_holds
from tests.conftest import BreakableGround

CONVERGE_SECONDS = 10.0
"""3 s are promised, on a machine that has nothing else to do."""
LETTERS = 40
LETTER_MS = 25

BAD_LAYERS = {
    "drops everything": {"FAULTS_DROP": "1"},
    "repeats": {"FAULTS_REPEAT": "1"},
    "reorders": {"FAULTS_DELAY": "0.7"},
    "drops, repeats and reorders": {"FAULTS_DROP": "0.3", "FAULTS_REPEAT": "0.5", "FAULTS_DELAY": "0.5"},
    "forgets its groups and messages": {"FAULTS_GROUP_EXPIRY_SECONDS": "1", "FAULTS_MESSAGE_EXPIRY_SECONDS": "1"},
}


@contextmanager
def stack_on(ground: BreakableGround, **environment: str) -> Iterator[Stack]:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.faults.settings", "DEBUG": "true", "OPEN_ROOMS": "true"}
    settings |= {"LOG_LEVEL": "CRITICAL", **environment}
    with Stack(**{"database": ground.database, "redis_url": ground.valkey.url, **settings}) as stack:  # type: ignore[arg-type]
        yield stack


async def people(stack: Stack, node: NodeClients, room: str) -> list[Client]:
    """Two on each process."""
    return [await stack.join(node, f"{name} in {room}", room, on=place % 2) for place, name in enumerate("abcd")]


async def type_all_at_once(clients: list[Client]) -> None:
    await asyncio.gather(
        *(client.random(seed=seed, count=LETTERS, interval_ms=LETTER_MS) for seed, client in enumerate(clients))
    )


async def assert_converged(stack: Stack, node: NodeClients, room: str, clients: list[Client]) -> None:
    await node.converged(*clients, timeout_seconds=CONVERGE_SECONDS)
    await assert_log_holds(stack, node, room, *clients)


@pytest.mark.parametrize("environment", BAD_LAYERS.values(), ids=BAD_LAYERS.keys())
async def test_replicas_converge_over_a_layer_that(
    breakable_ground: BreakableGround, node: NodeClients, environment: dict[str, str]
) -> None:
    with stack_on(breakable_ground, **environment) as stack:
        room = a_room("bad layer")
        clients = await people(stack, node, room)
        for _ in range(2):
            await type_all_at_once(clients)
            await node.converged(*clients, timeout_seconds=CONVERGE_SECONDS)
        await assert_converged(stack, node, room, clients)


@pytest.fixture(scope="module")
def stack(breakable_ground: BreakableGround) -> Iterator[Stack]:
    with stack_on(breakable_ground) as running:
        yield running


@pytest.mark.parametrize("restarts", [True, False], ids=["restarts", "is dead"])
async def test_replicas_converge_when_the_layer(
    breakable_ground: BreakableGround, stack: Stack, node: NodeClients, restarts: bool
) -> None:
    valkey = breakable_ground.valkey
    room = a_room("gone layer")
    clients = await people(stack, node, room)
    await type_all_at_once(clients)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(type_all_at_once(clients))
            valkey.kill()
            if restarts:
                valkey.start()
        await assert_converged(stack, node, room, clients)
    finally:
        if not valkey.running:
            valkey.start()
