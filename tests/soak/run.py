"""A soak: scenes played beside each other on a real stack for as long as asked, between two rests."""

import asyncio
import contextlib
import os
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from config.stack.web import WebWorkers
from tests.clients.driver import NodeClients
from tests.soak.counted import FOLDER_VARIABLE
from tests.soak.counts import DRIFT_PERCENT_MAX, Counts, Sample, Window, drift_percent, grown, least
from tests.soak.scenes import (
    HEAD_CHECK_SECONDS,
    PAUSE_SECONDS,
    ROOM_IDLE_SECONDS,
    SCENE_SECONDS_MAX,
    look_at_a_page,
    scene,
    scene_of_yjs,
)

WORKERS = 2
REST_SECONDS_MAX = 90.0
REST_SAMPLES = 8
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`rested` are the counts at rest before and after, `thread_names` and `key_names` are of the latter;
    `samples` were taken in between, under load."""

    edits: int
    scenes: int
    rested: tuple[Counts, Counts]
    samples: list[Sample]
    thread_names: tuple[str, ...] = ()
    key_names: tuple[str, ...] = ()

    @property
    def grown(self) -> dict[str, tuple[int, int]]:
        return grown(*self.rested)

    @property
    def drift_percent(self) -> list[float]:
        return drift_percent(self.samples)

    @property
    def passes(self) -> bool:
        return not self.grown and max(self.drift_percent) < DRIFT_PERCENT_MAX


@contextlib.contextmanager
def soaked_workers(
    env: Mapping[str, str], *, application: str = "tests.soak.counted:application"
) -> Iterator[tuple[WebWorkers, Window]]:
    """Workers that close rooms soon, and a window into them."""
    with tempfile.TemporaryDirectory() as folder:
        workers = WebWorkers(
            {
                **env,
                "LOG_LEVEL": "WARNING",
                "OPEN_ROOMS": "true",
                "OPEN_ROOMS_IN_PRODUCTION": "true",
                "ROOM_IDLE_SECONDS": str(ROOM_IDLE_SECONDS),
                "HEAD_CHECK_SECONDS": str(HEAD_CHECK_SECONDS),
                FOLDER_VARIABLE: folder,
            },
            WORKERS,
            application=application,
        )
        with workers, contextlib.closing(Window(workers, Path(folder))) as window:
            yield workers, window


class Soak:
    """One run. `stages` is how many scenes are played at the same time; `seed` decides what happens in them."""

    def __init__(
        self, workers: WebWorkers, window: Window, *, stages: int, seed: int, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._url = f"{workers.url.replace('http', 'ws', 1)}/ws"
        self._http_url = workers.url
        self._window = window
        self._stages = stages
        self._pause_seconds = pause_seconds
        self._rng = random.Random(seed)
        self._edits = self._scenes = 0

    async def run(self, *, warm_up_seconds: float, seconds: float, look_every_seconds: float) -> Outcome:
        """Warm up, rest, play and look, rest. Each stage plays at least one whole scene in either part."""
        async with NodeClients() as node:
            async with self._playing(node, warm_up_seconds):
                pass
            before = await self._rest(None)
            samples: list[Sample] = []
            async with self._playing(node, seconds) as is_playing:
                while is_playing():
                    await asyncio.sleep(look_every_seconds)
                    samples.append(await asyncio.to_thread(self._window.look))
            after = await self._rest(before)
        return Outcome(
            edits=self._edits,
            scenes=self._scenes,
            rested=(before, after),
            samples=samples,
            thread_names=self._window.thread_names(),
            key_names=self._window.key_names(),
        )

    @contextlib.asynccontextmanager
    async def _playing(self, node: NodeClients, seconds: float) -> AsyncIterator[Callable[[], bool]]:
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self._stages):
                group.create_task(self._play(until, self._scene))
            group.create_task(self._play(until, lambda room: self._scene_of_yjs(node, room)))
            yield lambda: time.monotonic() < until

    async def _scene(self, room: str) -> int:
        return await scene(self._url, room, self._rng, pause_seconds=self._pause_seconds)

    async def _scene_of_yjs(self, node: NodeClients, room: str) -> int:
        return await scene_of_yjs(node, self._url, room, pause_seconds=self._pause_seconds)

    async def _play(self, until: float, play: Callable[[str], Awaitable[int]]) -> None:
        while True:
            async with asyncio.timeout(SCENE_SECONDS_MAX):
                await look_at_a_page(self._http_url)
                made = await play(f"soak-{secrets.token_hex(6)}")
            self._edits += made
            self._scenes += 1
            if time.monotonic() >= until:
                return

    async def _rest(self, before: Counts | None) -> Counts:
        """Wait until everyone has left, and everything is as `before`, if it ever is; return what is there then."""
        deadline = time.monotonic() + REST_SECONDS_MAX
        last: list[Sample] = []
        while time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            last = [*last[1 - REST_SAMPLES :], await asyncio.to_thread(self._window.look)]
            is_empty = all(each.counts.rooms == each.counts.sockets == 0 for each in last)
            if is_empty and len(last) == REST_SAMPLES and (before is None or not grown(before, least(last))):
                break
        return least(last)


def soak(
    env: Mapping[str, str] | None = None,
    *,
    stages: int,
    warm_up_seconds: float,
    seconds: float,
    look_every_seconds: float,
    seed: int,
    pause_seconds: float = PAUSE_SECONDS,
    application: str = "tests.soak.counted:application",
) -> Outcome:
    """Run one soak on the services that `env` (else this process's environment) names, whose database is migrated."""
    with soaked_workers(os.environ if env is None else env, application=application) as (workers, window):
        run = Soak(workers, window, stages=stages, seed=seed, pause_seconds=pause_seconds).run(
            warm_up_seconds=warm_up_seconds, seconds=seconds, look_every_seconds=look_every_seconds
        )
        return asyncio.run(run)
