"""A room's judge: what of each update may go into the log, in the order in which they came.

It owns the write gate, builds it from the log when somebody first writes, and keeps it beside the committed rows. What
takes long is judged on a thread; then whatever comes meanwhile waits its turn, and nobody else touches the gate."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from documents.conf import conf
from history.crdt.lib0 import Malformed
from history.crdt.updates import MissingDependency
from history.gate import Gate, GateBroken, NotTaken, Taken, TakesLong, owners_of
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing
from realtime.tails import Committed

if TYPE_CHECKING:
    from realtime.rooms import Room


R = TypeVar("R")


class Judge:
    """The judge of one room. All methods run on the event loop."""

    def __init__(self, room: "Room") -> None:
        self._room_there = ref(room)  # the room has the judge; held both ways, it would outlast its end
        self._hub = room.hub
        self._gate: Gate | None = None
        self._turn = asyncio.Lock()
        self._in_line = 0
        self._is_off_loop = False
        self._unfollowed: list[Committed] = []
        self._owners: dict[int, str] = {}

    @property
    def _room(self) -> "Room":
        room = self._room_there()
        if room is None:
            raise Closing(CloseCode.TRY_AGAIN, "the room was closed")
        return room

    @property
    def is_busy(self) -> bool:
        """Whether updates are judged or wait for it."""
        return self._in_line > 0

    @property
    def has_gate(self) -> bool:
        return self._gate is not None

    @property
    def known(self) -> Mapping[int, int] | None:
        """By client how far the intake reaches, which may be ahead of the log; None without a gate."""
        return None if self._gate is None else self._gate.guard.known

    async def learn_owners(self) -> None:
        """Before anybody writes here: so that nobody is shown under a client id that is somebody else's."""
        self._owners = await self._hub.load(owners_of, self._room.document_id)

    def owner_of(self, client_id: int) -> str | None:
        """The user, as text, who has written under a client id; None where that is not known here."""
        owners = self._owners if self._gate is None else self._gate.owners
        return owners.get(client_id) or None

    async def take(self, session: WriteSession, update: bytes) -> tuple[Taken, Gate] | None:
        """Put one update through the gate, in the order of these calls; return what it made of it, and which gate, or
        None if it says nothing new. Nothing is awaited between a gate's answer and the caller's next step: what a gate
        took is lined up for the log before the gate takes anything else.

        Raises: Malformed, MissingDependency, NotTaken, GateBroken, Closing."""
        is_large = len(update) > conf().off_loop_bytes
        if not (is_large or self._in_line or self._gate is None or self._room.closed):
            with suppress(TakesLong):
                return self._taken_here(self._gate, session, update)
            is_large = True
        self._in_line += 1
        try:
            async with self._turn:
                while True:
                    gate = await self._ready_gate()
                    if not is_large:
                        with suppress(TakesLong):
                            return self._taken_here(gate, session, update)
                    taken = await self._off_loop(gate, partial(gate.take, update, session))
                    if gate is self._gate and not self._room.closed:  # else what it took is gone with it
                        return None if taken is None else (taken, gate)
        finally:
            self._in_line -= 1

    async def part_of(self, session: WriteSession, update: bytes) -> bytes | None:
        """What may be taken of an update that is not taken whole; None for nothing. Raises: Malformed, Closing."""
        self._in_line += 1
        try:
            async with self._turn:
                gate = await self._ready_gate()
                if len(update) <= conf().off_loop_bytes:
                    return gate.part_of(update, session)
                return await self._off_loop(gate, partial(gate.part_of, update, session))
        finally:
            self._in_line -= 1

    def follow(self, row: Committed) -> None:
        """Take over a committed row, which the room shows now."""
        if self._is_off_loop:
            self._unfollowed.append(row)
        elif self._gate is not None and row.gate is not self._gate and len(row.update) > conf().off_loop_bytes:
            self.start_anew()  # on a thread
        elif self._gate is not None:
            try:
                self._gate.follow(
                    row.last_seq,
                    row.update,
                    known=row.gate is self._gate,
                    splits=row.splits,
                    reads_bytes_max=conf().off_loop_bytes,
                )
            except (GateBroken, MissingDependency, TakesLong):
                self.start_anew()

    def start_anew(self) -> None:
        """Throw the gate away: what it took is not all in the log, or it cannot go on. The next write builds one."""
        if self._gate is not None:
            self._owners, self._gate = self._gate.owners, None

    def _taken_here(self, gate: Gate, session: WriteSession, update: bytes) -> tuple[Taken, Gate] | None:
        try:
            taken = gate.take(update, session, reads_bytes_max=conf().off_loop_bytes)
        except GateBroken:
            self.start_anew()
            raise
        return None if taken is None else (taken, gate)

    async def _off_loop(self, gate: Gate, work: Callable[[], R]) -> R:
        """Let a thread do something with the gate. While it has it, committed rows wait to be followed."""
        self._is_off_loop = True
        try:
            return await self._hub.compute(work)
        except (MissingDependency, NotTaken, Malformed):
            raise  # the gate is as it was
        except BaseException:
            # Broken; or this task was cancelled, and the thread still has the gate: nobody else may.
            if self._gate is gate:
                self.start_anew()
            raise
        finally:
            self._is_off_loop = False
            unfollowed, self._unfollowed = self._unfollowed, []
            for row in unfollowed:
                self.follow(row)

    async def _ready_gate(self) -> Gate:
        # Looked at again after each wait: meanwhile the room may have ended, or the gate been thrown away.
        while not self._room.closed:
            if self._gate is not None:
                return self._gate
            await self._load()
        raise Closing(CloseCode.TRY_AGAIN, "the room was closed")

    async def _load(self) -> None:
        room = self._room
        gate = await self._hub.load(Gate.load, room.document_id)
        if gate.epoch != room.epoch:
            room.load_again()
        while gate.seq < room.seq:
            await self._hub.compute(_follow_all, gate, (await room.tail_after(gate.seq)).rows)
        gate.is_anothers = room.is_anothers
        if not room.closed:
            self._gate = gate


def _follow_all(gate: Gate, rows: Sequence[Committed]) -> None:
    for row in rows:
        gate.follow(row.last_seq, row.update, known=False, splits=row.splits)
