"""A database put back to an older dump under running workers: rooms are dropped, and nothing is mixed.

What clients hold beyond the dump comes back as their own edits; what nobody holds any more is gone, as restored."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.stack.services import Postgres
from tests.clients.driver import Client, NodeClients
from tests.clients.stack import Database, Stack, a_room, assert_log_holds
from tests.conftest import BreakableGround

CONVERGE_SECONDS = 30.0


@pytest.fixture(scope="module")
def stack(breakable_ground: BreakableGround) -> Iterator[Stack]:
    ground = breakable_ground
    with Stack(database=ground.database, redis_url=ground.valkey.url, DEBUG="true", OPEN_ROOMS="true") as running:
        yield running


class Backup:
    """What `pg_dump` says of a database now; `restore` puts it back while others are connected."""

    def __init__(self, postgres: Postgres, database: Database, folder: Path) -> None:
        self._postgres = postgres
        self._database = database
        self._path = folder / "dump.sql"
        self._path.write_text(self._run("pg_dump", "--data-only", "--disable-triggers"))

    def restore(self) -> None:
        """Empty all tables and load the dump, in one transaction as `psql --single-transaction` does."""
        with self._database.connect() as connection:
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        tables = ", ".join(f'"{name}"' for (name,) in names)
        emptied = self._path.with_name("restore.sql")
        emptied.write_text(f"TRUNCATE {tables};\n{self._path.read_text()}")
        self._run("psql", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--file", str(emptied))

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._postgres._binary(program)), *arguments, "--dbname", self._database.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


async def three(stack: Stack, node: NodeClients, room: str) -> list[Client]:
    return [
        await stack.join(node, f"{name} in {room}", room, on=on) for name, on in (("ann", 0), ("ben", 1), ("cem", 0))
    ]


@pytest.mark.parametrize("edits_after_the_restore", [0, 30], ids=["nobody types", "people type on"])
@pytest.mark.parametrize("rows_more", [1, 40], ids=["one edit lost", "many edits lost"])
async def test_a_restored_backup_drops_rooms_and_mixes_nothing(
    breakable_ground: BreakableGround,
    stack: Stack,
    node: NodeClients,
    tmp_path: Path,
    rows_more: int,
    edits_after_the_restore: int,
) -> None:
    room = a_room("restored")
    clients = ann, ben, cem = await three(stack, node, room)
    await ann.type("in the dump ")
    await node.converged(*clients)
    backup = Backup(breakable_ground.postgres, stack.database, tmp_path)
    await ben.random(seed=rows_more, count=rows_more)
    await cem.type("after it ")
    await node.converged(*clients)
    held = await ann.seen_structs()
    marks = [len(await client.events()) for client in clients]

    backup.restore()
    for seed, client in enumerate(clients):
        await client.random(seed=seed, count=edits_after_the_restore, interval_ms=20)

    for client, mark in zip(clients, marks, strict=True):
        assert (await client.wait_event("close", after=mark))["code"] == 1013
    await node.converged(*clients, timeout_seconds=CONVERGE_SECONDS)
    await assert_log_holds(stack, node, room, *clients)
    clocks = stack.database.clocks(room)
    assert all(clocks[client_id] >= clock for client_id, clock in held.items())
