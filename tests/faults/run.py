"""One run: a crowd edits while a plan of faults is carried out; afterwards everything is compared with everything.

Documents are finished and replaced by new ones all along, so that the log is long and each document stays short."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.db import OperationalError

from documents.models import Membership, Role
from documents.opening import create_document
from history.proof.verify import Verdict
from tests.clients.crowd import Crowd, Person
from tests.clients.driver import NodeError
from tests.clients.people import cookie_of
from tests.faults.ground import FaultyGround
from tests.faults.injections import Injector
from tests.faults.ledger import Ledger
from tests.faults.plan import Fault, Planned
from tests.faults.pushes import Pushes

PUSHED_SECONDS = 240.0
"""Above twice LOST_SECONDS of pushes.py."""
PUSHES_WAITING_MAX = 10
"""What a busy Celery worker has not come to is not lost: it is asked for less."""
KEEP_UP_SECONDS = 7.0
LOOK_SECONDS = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a run is. Each of the `rooms` that are open at a time is finished at `room_edits_max` seen edits; each
    person edits about once in `interval_ms`. The crowd goes on until `seen_min` edits were seen by others."""

    rooms: int = 12
    people_per_room: int = 4
    accounts: int = 12
    room_edits_max: int = 800
    interval_ms: float = 150
    seen_min: int = 0
    pushes: bool = True
    """Whether Celery puts in edits of the server's own, at most two a second."""
    agree_seconds: float = 240.0
    """A finished room agrees within 3 s of peace. There is little of it: on a busy machine a killed worker takes longer
    to come back than the next fault to come."""
    seconds_max: float = 2100.0


@dataclass(slots=True)
class Result:
    """What a run found; `wrong` is empty where all that must hold held."""

    seed: int
    seen: int = 0
    rows: int = 0
    copied_structs: int = 0
    pushed: int = 0
    resent: int = 0
    documents: int = 0
    comparisons: int = 0
    seconds: float = 0.0
    faults: dict[Fault, int] = field(default_factory=dict)
    left_out: dict[Fault, str] = field(default_factory=dict)
    closes: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The summary for a person to read."""
        yield f"seed {self.seed}: {self.seconds:.0f} s, {self.documents} documents, {self.rows} rows in the log"
        yield f"{self.seen} edits seen by others ({self.seen / max(self.seconds, 1):.0f}/s), {self.pushed} by Celery"
        yield f"tasks that the broker lost, sent again under their own id: {self.resent}"
        for fault in Fault:
            reason = self.left_out.get(fault)
            yield f"  {self.faults.get(fault, 0):4d} × {fault.value}{f' (left out: {reason})' if reason else ''}"
        yield f"compared while nobody could hide a loss: {self.comparisons} times"
        yield f"structs that came a second time and changed nothing: {self.copied_structs}"
        yield "sockets closed: " + ", ".join(f"{count} × {code}" for code, count in sorted(self.closes.items()))
        yield "nothing lost, nothing wrong" if not self.wrong else f"WRONG, in {len(self.wrong)} ways:"
        yield from self.wrong


class FaultRun:
    """A crowd on a faulty ground. `go` may be called once."""

    def __init__(
        self, ground: FaultyGround, crowd: Crowd, *, seed: int, size: Size, say: Say = lambda line: None
    ) -> None:
        self.ground = ground
        self.crowd = crowd
        self.size = size
        self.ledger = Ledger(ground.database)
        self.injector = Injector(ground, self.compare)
        self.result = Result(seed)
        self.pushes = Pushes(ground.valkey.url, announce=self._note_pushed)
        self._say = say
        self._is_over = False
        self._rng = random.Random(seed)
        self._numbers = itertools.count(1)
        self._open: list[str] = []
        self._finishing: set[asyncio.Task[None]] = set()
        self._hashes: dict[str, str] = {}
        self._people: list[Person] = []

    async def go(self, plan: Sequence[Planned]) -> Result:
        """Carry out the plan, then let everything come to rest and compare it."""
        begun = time.monotonic()
        self._people = await self.ground.database.run(self._make_people)
        for _ in range(self.size.rooms):
            await self._open_room()
        pushing = asyncio.create_task(self._push())
        async with _in_background(self._look_for_ever(), self._keep_up_for_ever(), self._tend_celery()):
            for place, planned in enumerate(plan, 1):
                await asyncio.sleep(planned.pause_seconds)
                self._say(f"{time.monotonic() - begun:6.1f} s  {place}/{len(plan)}  {planned.fault.value}")
                await self.injector.inject(planned)
                if self.ledger.wrong:
                    break
            while self.ledger.seen_count < self.size.seen_min and not self.ledger.wrong:
                if time.monotonic() - begun > self.size.seconds_max:
                    self.ledger.wrong.append(f"only {self.ledger.seen_count} edits were seen in time")
                await asyncio.sleep(LOOK_SECONDS)
        self._is_over = True
        await pushing
        self.result.seconds = time.monotonic() - begun
        await self._come_to_rest()
        self.result.closes = await self.crowd.closes()
        await self._compare_everything()
        self.ledger.wrong += self.ground.failed_pushes()
        self.pushes.close()
        return self._summary()

    async def compare(self) -> None:
        """What others have seen so far must be in the log now."""
        await self._look(replace=False)
        await self.ledger.compare(self._live_rooms())
        self.result.comparisons += 1

    # Rooms

    def _make_people(self) -> list[Person]:
        people = []
        for number in range(self.size.accounts):
            user = User.objects.create(username=f"person {number}")
            people.append(Person(user.pk, cookie_of(user)))
        return people

    async def _open_room(self) -> None:
        room = f"faults-{next(self._numbers)}"
        people = self._rng.sample(self._people, self.size.people_per_room)
        self.ledger.add(room, await self.ground.database.run(_make_document, room, people))
        self._open.append(room)
        await self.crowd.open_room(
            room,
            people,
            url=self.ground.stack.url,
            seed=self._rng.randrange(2**31),
            interval_ms=self.size.interval_ms,
        )

    def _live_rooms(self) -> list[str]:
        """Those that are open, and those that are being finished."""
        return [room for room in self.ledger.logs if room not in self._hashes]

    async def _finish(self, room: str) -> None:
        """Nobody edits there any more; all who are there must come to hold the same, Celery's edits among it."""
        await self.crowd.stop_rooms([room])
        try:
            await self._until_pushed(room)
            agreed = await self._agreed_with_log(room)
        except (NodeError, TimeoutError) as error:
            self.ledger.wrong.append(f"{room}: {error}")
            return
        await self._look(replace=False)
        self._hashes[room] = agreed
        await self.crowd.close_room(room)

    async def _agreed_with_log(self, room: str) -> str:
        """What all in a room hold, once the log holds the same: what the socket of somebody who left still had in line
        is stored, and shown, a little later. Raises: NodeError, TimeoutError."""
        deadline = time.monotonic() + self.size.agree_seconds
        while time.monotonic() < deadline:
            agreed = await self.crowd.agreed(room, timeout_seconds=self.size.agree_seconds)
            with contextlib.suppress(OperationalError):
                fold = (await self.ground.database.folded(room)).get_update()
                if await self.crowd.content_hash(fold) == agreed:
                    return agreed
            await asyncio.sleep(LOOK_SECONDS)
        raise TimeoutError("its clients hold something else than its log")

    async def _until_pushed(self, room: str) -> None:
        """Each edit that Celery was asked for in a room is seen there. Raises: TimeoutError."""
        deadline = time.monotonic() + PUSHED_SECONDS
        while missing := self.pushes.missing(room, self.ledger.seen[room]):
            if time.monotonic() > deadline:
                tokens = [push.token for push in missing]
                raise TimeoutError(f"edits that Celery was asked for were never seen: {tokens}")
            await self.pushes.send_lost_again(missing)
            await asyncio.sleep(LOOK_SECONDS)
            await self._look(replace=False)

    # What goes on all along

    def _note_pushed(self, room: str, client: int) -> None:
        self.ledger.note(room, tokens=(), users={client: None})

    async def _look(self, *, replace: bool) -> None:
        for room, news in (await self.crowd.news()).items():
            self.ledger.note(room, tokens=news.tokens, users=news.users)
            if replace and room in self._open and len(self.ledger.seen[room]) >= self.size.room_edits_max:
                self._open.remove(room)
                task = asyncio.create_task(self._finish(room))
                self._finishing.add(task)
                task.add_done_callback(self._finishing.discard)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look(replace=True)
            with contextlib.suppress(OperationalError):  # PostgreSQL was killed just now: the next look opens it
                while len(self._open) < self.size.rooms and self.ground.postgres.running:
                    await self._open_room()

    async def _push(self) -> None:
        while self.size.pushes and not self._is_over:
            waiting = [push for room, seen in self.ledger.seen.items() for push in self.pushes.missing(room, seen)]
            await self.pushes.send_lost_again(waiting)
            if len(waiting) < PUSHES_WAITING_MAX and self._open:  # all may be finished while the database is away
                await self.pushes.push(self._rng.choice(self._open))
            await asyncio.sleep(LOOK_SECONDS)

    async def _tend_celery(self) -> None:
        """The supervisor's part: a worker whose broker dies under it may end with an error of its own."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self.ground.celery.running and not self.injector.holds_celery:
                self.ground.start_celery()

    async def _keep_up_for_ever(self) -> None:
        while True:
            await asyncio.sleep(KEEP_UP_SECONDS)
            await self.pushes.keep_up()

    # The end

    async def _come_to_rest(self) -> None:
        self.ground.replace_dead_workers()
        looking = asyncio.create_task(self._tend_celery())
        await asyncio.gather(*self._finishing, *(self._finish(room) for room in self._open))
        looking.cancel()

    async def _compare_everything(self) -> None:
        await self.ledger.compare(list(self.ledger.logs))
        for room, agreed in self._hashes.items():
            verdict = await self.ground.database.verdict(room)
            if not isinstance(verdict, Verdict):
                self.ledger.wrong.append(f"{room}: the log cannot be proven: {verdict}")
            whole = await self.ground.database.folded(room, full=True)
            folds = {
                "the log folds": (await self.ground.database.folded(room, full=False)).get_update(),
                "with all that was deleted, it folds": whole.get_update(),
                "without its copies, it folds": await self.ledger.without_copies(room),
            }
            for said, fold in folds.items():
                if difference := await self._difference(fold, agreed):
                    self.ledger.wrong.append(f"{room}: {said} to {difference}")

    async def _difference(self, fold: bytes, agreed: str) -> str:
        """What Yjs finds wrong with a fold; empty for nothing."""
        try:
            is_agreed = await self.crowd.content_hash(fold) == agreed
        except NodeError as error:  # such as for what leaves something pending
            return f"what Yjs cannot read: {error}"
        return "" if is_agreed else "something else than its clients hold"

    def _summary(self) -> Result:
        logs = self.ledger.logs.values()
        self.result.seen = self.ledger.seen_count
        self.result.rows = sum(log.rows for log in logs)
        self.result.copied_structs = sum(log.copied_structs for log in logs)
        self.result.pushed, self.result.resent = self.pushes.count, self.pushes.resent
        self.result.documents = len(self.ledger.logs)
        self.result.faults = self.injector.done
        self.result.left_out = self.injector.left_out
        self.result.wrong = self.ledger.wrong
        return self.result


def _make_document(room: str, people: Sequence[Person]) -> int:
    users = [User.objects.get(pk=person.user) for person in people]
    document = create_document(users[0], title=room, name=room)
    for user in users[1:]:
        Membership.objects.create(document=document, user=user, role=Role.EDITOR)
    return document.pk


@contextlib.asynccontextmanager
async def _in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do these for the length of the block; one that fails ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()
