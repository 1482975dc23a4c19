"""How each fault is done and undone. Kills are followed by a comparison while nothing can hide a loss."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tests.faults.ground import FaultyGround
from tests.faults.line import EVERYBODY, Break, Line
from tests.faults.plan import Fault, Planned

CLOCK_SECONDS = 3600
CLOCK_FELT_SECONDS = 2.5
"""Until every backend has felt a step: libfaketime looks once a second. A `pg_sleep` of ours that began before a step
back would last an hour."""

Compare = Callable[[], Awaitable[None]]
"""Everything that others have seen so far must be in the log. The database answers, and no worker moves."""


class Injector:
    """Injects one planned fault at a time. `done` counts them by kind; `left_out` are those that cannot be had here."""

    def __init__(self, ground: FaultyGround, compare: Compare) -> None:
        self._ground = ground
        self._compare = compare
        self.done: dict[Fault, int] = {}
        self.holds_celery = False
        """Whether the Celery worker is dead and shall be."""
        self.left_out: dict[Fault, str] = {}

    async def inject(self, planned: Planned) -> None:
        """Do it, and return when it is over; killed workers are back a little later."""
        if planned.fault is Fault.FULL_DISK and not self._ground.disk.is_mounted:
            self.left_out[planned.fault] = "a small filesystem cannot be mounted"
            return
        if planned.fault is Fault.CLOCK and not self._ground.postgres.can_step:
            self.left_out[planned.fault] = "libfaketime is not installed"
            return
        await INJECTIONS[planned.fault](self, planned)
        self.done[planned.fault] = self.done.get(planned.fault, 0) + 1

    async def kill_worker(self, planned: Planned) -> None:
        living = [index for index, pid in enumerate(self._ground.stack.workers.pids) if pid is not None]
        await self._kill_workers([living[int(planned.choice * len(living))]])

    async def kill_all_workers(self, planned: Planned) -> None:
        await self._kill_workers(list(self._ground.stack.all))

    async def _kill_workers(self, indexes: list[int]) -> None:
        stack = self._ground.stack
        for index in indexes:
            stack.workers.kill(index)
        with stack.paused(*stack.all):
            await self._compare()
        self._ground.replace_dead_workers()

    async def kill_postgres(self, planned: Planned) -> None:
        self._ground.postgres.kill_all()
        await asyncio.sleep(planned.hold_seconds)
        with self._ground.stack.paused(*self._ground.stack.all):
            self._ground.postgres.start()
            await self._compare()

    async def kill_valkey(self, planned: Planned) -> None:
        self._ground.valkey.kill()
        await asyncio.sleep(planned.hold_seconds)
        self._ground.valkey.start()

    async def kill_celery(self, planned: Planned) -> None:
        self.holds_celery = True
        self._ground.celery.kill()
        await asyncio.sleep(planned.hold_seconds)
        self._ground.start_celery()
        self.holds_celery = False

    async def break_line(self, line: Line, how: Break, planned: Planned) -> None:
        """To one worker or to all; half the black holes end with a hang-up, the others with a late answer."""
        pids = [pid for pid in self._ground.stack.workers.pids if pid is not None]
        line.break_for([EVERYBODY, *pids][int(planned.choice * (1 + len(pids)))], how)
        await asyncio.sleep(planned.hold_seconds)
        if planned.hold_seconds % 1 < 0.5:
            line.hang_up()
        line.mend()

    async def slow_commits(self, planned: Planned) -> None:
        await asyncio.to_thread(self._ground.slow_commits, slow=True)
        await asyncio.sleep(planned.hold_seconds)
        await asyncio.to_thread(self._ground.slow_commits, slow=False)

    async def fill_disk(self, planned: Planned) -> None:
        try:
            await asyncio.to_thread(self._ground.fill_disk)
            await asyncio.sleep(planned.hold_seconds)
        finally:
            self._ground.disk.free()

    async def step_clock(self, planned: Planned) -> None:
        """There and back: one of the two steps is backwards."""
        off = CLOCK_SECONDS if planned.choice < 0.5 else -CLOCK_SECONDS
        await asyncio.to_thread(self._ground.step_clock, off)
        await asyncio.sleep(planned.hold_seconds)
        await asyncio.to_thread(self._ground.step_clock, 0)
        await asyncio.sleep(CLOCK_FELT_SECONDS)


INJECTIONS: Mapping[Fault, Callable[[Injector, Planned], Awaitable[None]]] = {
    Fault.WORKER: Injector.kill_worker,
    Fault.ALL_WORKERS: Injector.kill_all_workers,
    Fault.POSTGRES: Injector.kill_postgres,
    Fault.VALKEY: Injector.kill_valkey,
    Fault.CELERY: Injector.kill_celery,
    Fault.POSTGRES_CUT: lambda self, planned: self.break_line(self._ground.to_postgres, Break.CUT, planned),
    Fault.POSTGRES_BLACK_HOLE: lambda self, planned: self.break_line(
        self._ground.to_postgres, Break.BLACK_HOLE, planned
    ),
    Fault.VALKEY_CUT: lambda self, planned: self.break_line(self._ground.to_valkey, Break.CUT, planned),
    Fault.VALKEY_BLACK_HOLE: lambda self, planned: self.break_line(self._ground.to_valkey, Break.BLACK_HOLE, planned),
    Fault.SLOW_COMMITS: Injector.slow_commits,
    Fault.FULL_DISK: Injector.fill_disk,
    Fault.CLOCK: Injector.step_clock,
}
