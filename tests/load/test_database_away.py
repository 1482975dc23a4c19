"""A database that stands still: nobody is shown what is not stored, sockets are told to come again, and all goes on."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycrdt import Doc, Text
from websockets.asyncio.client import connect

from config.stack.services import Postgres
from realtime.protocols.frames import encode_update
from tests.clients.driver import NodeClients
from tests.clients.stack import Stack, a_room, assert_log_holds, until
from tests.conftest import BreakableGround, Ground
from tests.load.conftest import one_worker
from tests.load.peers import open_socket
from tests.load.test_vanished_peers import until_ended

RECOVERY_SECONDS = 10.0


@pytest.fixture
def impatient_stack(breakable_ground: BreakableGround) -> Iterator[Stack]:
    ground = breakable_ground
    with Stack(
        database=ground.database,
        redis_url=ground.valkey.url,
        DEBUG="true",
        OPEN_ROOMS="true",
        APPEND_SECONDS_MAX="1",
        DATABASE_SILENCE_SECONDS="2",
    ) as stack:
        yield stack


@pytest.fixture
def narrow_stack(ground: Ground) -> Iterator[Stack]:
    """It takes next to nothing while the database is slow, and pings often."""
    with one_worker(ground, PING_SECONDS="1", UNSTORED_BYTES_MAX="1000", APPEND_LOCK_TIMEOUT_MS="60000") as stack:
        yield stack


@contextlib.contextmanager
def standing_still(postgres: Postgres) -> Iterator[None]:
    """The server and all its sessions are stopped: they take what is sent to them, and answer nothing (Linux)."""
    children = Path(f"/proc/{postgres.pid}/task/{postgres.pid}/children").read_text().split()
    pids = [postgres.pid, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


async def test_a_database_that_stands_still_ends_sockets_and_loses_nothing(
    impatient_stack: Stack, breakable_ground: BreakableGround, node: NodeClients
) -> None:
    room = a_room("standing still")
    ann = await impatient_stack.join(node, "ann", room, on=0)
    ben = await impatient_stack.join(node, "ben", room, on=0)
    await ann.type("before ")
    await ben.wait_seen("before ")
    with standing_still(breakable_ground.postgres):
        await ann.type("meanwhile")
        # Both are told: what is stored and what is not has to be found out.
        assert (await ann.wait_event("close"))["code"] == 1013
        assert (await ben.wait_event("close"))["code"] == 1013
        assert await ben.seen() == "before "
    await ben.watch("meanwhile", timeout_seconds=RECOVERY_SECONDS)
    await ben.type(" and after")
    await ann.watch("and after", timeout_seconds=RECOVERY_SECONDS)
    await assert_log_holds(impatient_stack, node, room, ann, ben)


async def test_a_writer_that_is_not_read_while_the_database_is_slow_is_not_taken_for_one_that_has_vanished(
    narrow_stack: Stack,
) -> None:
    room = a_room("unread")
    doc: Doc[Text] = Doc()
    text = doc.get("t", type=Text)
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    for _ in range(20):
        text += "x" * 500
    doc.unobserve(subscription)
    async with connect(f"{narrow_stack.url}/{room}", compression=None, ping_interval=None) as writer:
        await writer.send(encode_update(emitted[0]))
        await until("the first edit is stored", lambda: narrow_stack.database.head_seq(room) == 1)
        with narrow_stack.database.connect() as holding:
            holding.execute("BEGIN")
            holding.execute("SELECT * FROM history_head FOR UPDATE")
            for update in emitted[1:]:
                await writer.send(encode_update(update))
            # Two who answer no ping are let go meanwhile, one after the other: the writer's pings are as old.
            for _ in range(2):
                with await asyncio.to_thread(open_socket, narrow_stack.http_url, a_room("silent")) as silent:
                    await asyncio.to_thread(until_ended, silent)
            holding.execute("ROLLBACK")
        await until("all is stored", lambda: sum(narrow_stack.database.clocks(room).values()) == 20 * 500)
        await (await writer.ping())
