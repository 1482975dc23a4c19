"""How soon the server reacts, with the settings in force: to an edit that nobody is told of, to the loss of a right, to
peers that are not there, and to a database that was away. On two workers; `make bench` says what was measured."""

import asyncio
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from asgiref.sync import sync_to_async

from benchmarks.editing_trace import environment
from benchmarks.losses import TOLD, UNTOLD, Loss, lose, somebody
from benchmarks.openings_at_once import HEADER
from benchmarks.replicas import Replica
from config.stack.configuration import PROJECT
from config.stack.services import Postgres, scratch_services
from config.stack.web import WebWorkers
from documents.conf import conf

QUIET = {"LOG_LEVEL": "ERROR"}
"""What is broken here on purpose is no news."""
NO_LAYER = {"REDIS_URL": "unix:///nowhere/valkey.sock?db=0"}
REPLICAS_PER_WORKER = 4
REACTION_SECONDS_MAX = 120.0
"""What takes longer has failed."""

Row = tuple[str, Sequence[float]]


def run(*, edits: int, rounds: int, peers: int, away_seconds: float) -> None:
    rows: list[Row] = []
    with WebWorkers({**environment(), **QUIET, **NO_LAYER}, count=2) as workers:
        rows += asyncio.run(_convergence(workers, edits=edits))
        rows += asyncio.run(_losses(workers, {**TOLD, **UNTOLD}, rounds=rounds, how="layer dead"))
    with WebWorkers({**environment(), **QUIET}, count=2) as workers:
        rows += asyncio.run(_losses(workers, TOLD, rounds=rounds, how="told"))
        rows += asyncio.run(_losses(workers, UNTOLD, rounds=rounds, how="untold"))
        rows += asyncio.run(_absent_peers(workers, count=peers))
    with _own_ground() as (postgres, workers):
        rows += asyncio.run(_database_away(postgres, workers, seconds=away_seconds))
    _print(rows)


def _print(rows: Sequence[Row]) -> None:
    width = max(len(what) for what, _ in rows)
    print(f"{'seconds until':{width}}  times    p50    max")
    for what, seconds in rows:
        print(f"{what:{width}}  {len(seconds):5d} {statistics.median(seconds):6.2f} {max(seconds):6.2f}")


def _url(workers: WebWorkers, name: str) -> str:
    return f"ws://127.0.0.1:{workers.port}/ws/{name}"


@contextlib.contextmanager
def _standing_still(workers: WebWorkers, *, but: int) -> Iterator[None]:
    """All workers but one take no connection meanwhile."""
    pids = [pid for index, pid in enumerate(workers.pids) if index != but and pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _replicas(workers: WebWorkers) -> AsyncIterator[list[Replica]]:
    """Replicas of one new document, as many on each worker, all synced."""
    url = _url(workers, f"reactions-{uuid.uuid4().hex}")
    async with contextlib.AsyncExitStack() as stack:
        replicas: list[Replica] = []
        for index in range(workers.count):
            with _standing_still(workers, but=index):
                coming = [await stack.enter_async_context(Replica(url)) for _ in range(REPLICAS_PER_WORKER)]
                async with asyncio.timeout(REACTION_SECONDS_MAX):
                    await asyncio.gather(*(each.synced.wait() for each in coming))
            replicas += coming
        yield replicas


async def _convergence(workers: WebWorkers, *, edits: int) -> list[Row]:
    """Edits at any moment between two looks of the watch; nobody is told of one by anything else."""
    seconds: list[float] = []
    async with _replicas(workers) as replicas:
        for number in range(edits):
            await asyncio.sleep(random.uniform(0, conf().head_check_seconds))
            token = f"<{number}>"
            began = time.monotonic()
            await replicas[number % len(replicas)].type(token)
            async with asyncio.timeout(REACTION_SECONDS_MAX):
                seconds.append(max(await asyncio.gather(*(each.shows(token) for each in replicas))) - began)
    return [("all replicas show an edit, layer dead", seconds)]


async def _losses(workers: WebWorkers, losses: Mapping[str, Loss], *, rounds: int, how: str) -> list[Row]:
    """One of each kind at a time, each of somebody else in a document of their own."""
    found = [await asyncio.gather(*(_end_after(workers, loss) for loss in losses.values())) for _ in range(rounds)]
    return [(f"{what}, {how}", seconds) for what, seconds in zip(losses, zip(*found, strict=True), strict=True)]


async def _end_after(workers: WebWorkers, loss: Loss) -> float:
    """From just before the commit until the socket is closed, or told that it may write no more."""
    person = await sync_to_async(somebody)()
    url = _url(workers, person.document.name)
    async with asyncio.timeout(REACTION_SECONDS_MAX), Replica(url, cookie=person.cookie, comes_back=False) as replica:
        await replica.synced.wait()
        await asyncio.sleep(random.uniform(0, conf().head_check_seconds))
        began = await sync_to_async(lose)(loss, person)
        return await replica.ended() - began


async def _absent_peers(workers: WebWorkers, *, count: int) -> list[Row]:
    """A third says nothing, a third half a request, a third has a socket in a room and answers nothing."""
    request = HEADER.format(name=f"reactions-{uuid.uuid4().hex}").encode()
    says = [b"", request[:60], request]
    return [
        (
            "each of the peers that are not there is gone",
            await asyncio.gather(*(_gone_after(workers, says[number % len(says)]) for number in range(count))),
        )
    ]


async def _gone_after(workers: WebWorkers, says: bytes) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", workers.port)
    began = time.monotonic()
    writer.write(says)
    async with asyncio.timeout(REACTION_SECONDS_MAX):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                pass
    writer.close()
    return time.monotonic() - began


@contextlib.contextmanager
def _own_ground() -> Iterator[tuple[Postgres, WebWorkers]]:
    """Workers on a database that is nobody else's."""
    with scratch_services(redis_url=os.environ["REDIS_URL"]) as services:
        assert services.postgres is not None
        env = {**environment(), **QUIET, **services.environment}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=PROJECT, env=env, check=True)
        with WebWorkers(env, count=2) as workers:
            yield services.postgres, workers


async def _database_away(postgres: Postgres, workers: WebWorkers, *, seconds: float) -> list[Row]:
    """Everyone types while it is gone. Over once an edit of each that came after its return is shown by all."""
    async with _replicas(workers) as replicas:
        postgres.kill()
        for number, each in enumerate(replicas):
            await each.type(f"<meanwhile {number}>")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(postgres.start)
        began = time.monotonic()
        for number, each in enumerate(replicas):
            await each.type(f"<after {number}>")
        tokens = [f"<{when} {number}>" for number in range(len(replicas)) for when in ("meanwhile", "after")]
        async with asyncio.timeout(REACTION_SECONDS_MAX):
            shown = [max(await asyncio.gather(*(each.shows(token) for token in tokens))) - began for each in replicas]
    return [(f"each replica shows what all typed, database killed for {seconds:.0f} s", shown)]
