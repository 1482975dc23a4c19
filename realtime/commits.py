"""The group commit: one append for all rooms of this process.

While one commit is in flight the next batch gathers: no timer, no added latency at rest. Updates of one session that
are adjacent in a room's order of arrival share a row; nothing else does."""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from channels.db import database_sync_to_async
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from documents.conf import conf
from history.append import append
from history.crdt.joining import joined
from history.crdt.merging import MERGE_UPDATES_MAX, merged
from history.crdt.splits import NO_SPLITS, Splits
from history.errors import HistoryError, OutcomeUnknown
from history.fates import Fate, PendingUpdate, Reason, Refused, Stored
from history.gate import Gate, Taken
from history.models import Kind
from history.sessions import WriteSession
from realtime.databases import cut
from realtime.identities import identity_of
from realtime.protocols.identities import Identity

if TYPE_CHECKING:
    from realtime.connections import Connection
    from realtime.rooms import Room

logger = logging.getLogger(__name__)

BUSY = Refused(Reason.BUSY)


class Receipt(Protocol):
    """Who is to be told of an edit what became of it."""

    def tell_saved(self, *, applied: bool) -> None:
        """Say that it is committed, or never will be."""


Receipts: TypeAlias = Sequence[Receipt]
"""Each is given as often as it stands here."""


@dataclass(slots=True)
class Part:
    """One update that a gate has taken, and who is to be told that it is stored, or refused."""

    taken: Taken
    receipts: list[Receipt] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """One row to be: what one session sent a room in one go. `origin` is the socket it came from, if any; its updates
    are in the intake of `gate`, and in no other's. What has a `request_key` is a row of its own."""

    room: "Room"
    session: WriteSession
    origin: "Connection | None"
    kind: Kind
    gate: Gate
    parts: list[Part]
    size: int
    future: "asyncio.Future[Fate | None] | None" = None
    """Resolved with the fate once the room has taken it over."""
    request_key: str | None = None
    is_settled: bool = False
    """Whether its bytes are counted no more."""

    @property
    def author(self) -> Identity:
        return identity_of(self.session.user) if self.origin is None else self.origin.identity

    def settle(self, fate: Fate) -> None:
        """Tell everyone who waits for it what became of it."""
        self.resolve(fate)
        for part in self.parts:
            for receiver in part.receipts:
                receiver.tell_saved(applied=isinstance(fate, Stored))

    def resolve(self, fate: Fate | None) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(fate)

    def fail(self, error: Exception) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)

    def payload(self) -> bytes:
        return joined(merged([part.taken.update for part in self.parts]))

    @property
    def splits(self) -> Splits:
        return NO_SPLITS.union(*(part.taken.splits for part in self.parts))

    @property
    def clients(self) -> AbstractSet[int]:
        return frozenset[int]().union(*(part.taken.clients for part in self.parts))

    def pending(self) -> PendingUpdate:
        return PendingUpdate(
            session=self.session,
            payload=self.payload(),
            kind=self.kind,
            chain=self.gate,
            clients=self.clients,
            base=self.room.base,
            splits=self.splits,
            request_key=self.request_key,
        )


class GroupCommit:
    """Gathers entries and appends them, one transaction at a time, on a thread and connection of its own."""

    def __init__(self) -> None:
        self._queue: deque[Entry] = deque()
        self._parked: dict[Room, list[Entry]] = {}
        self._parked_since: dict[Room, float] = {}
        self._last_of_room: dict[int, Entry] = {}
        self._in_flight: list[Entry] = []
        self._unstored_bytes = 0
        self._wake = asyncio.Event()
        self._room_for_more = asyncio.Event()
        self._room_for_more.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="append")
        self._append = database_sync_to_async(self._append_and_keep, thread_sensitive=False, executor=self._thread)
        self._database: BaseDatabaseWrapper | None = None
        self._task = asyncio.create_task(self._run())

    def submit(
        self,
        room: "Room",
        session: WriteSession,
        part: Part,
        gate: Gate,
        *,
        origin: "Connection | None",
        kind: Kind = Kind.SYNC,
        future: "asyncio.Future[Fate | None] | None" = None,
        request_key: str | None = None,
    ) -> None:
        """Line up one update that the room's gate has taken. The room hears of its fate by `Room.settle`."""
        size = len(part.taken.update)
        last = self._last_of_room.get(room.document_id)
        if (
            last is not None
            and last.session is session
            and last.kind == kind
            and last.gate is gate
            and len(last.parts) < MERGE_UPDATES_MAX
            and last.size + size <= conf().off_loop_bytes  # what shares a row is read here, to join it
            and last.future is None
            and future is None
        ):
            last.parts.append(part)
            last.size += size
        else:
            entry = Entry(room, session, origin, kind, gate, [part], size, future, request_key)
            self._parked.get(room, self._queue).append(entry)
            self._last_of_room[room.document_id] = entry
        self._unstored_bytes += size
        if self._unstored_bytes > conf().unstored_bytes_max:
            self._room_for_more.clear()
        self._idle.clear()
        self._wake.set()

    def last_of(self, room: "Room") -> Entry | None:
        """The last row of the room that has not met its fate yet."""
        in_line = (*self._in_flight, *self._queue, *self._parked.get(room, ()))
        return next((entry for entry in reversed(in_line) if entry.room is room), None)

    def withdraw(self, room: "Room") -> list[Entry]:
        """Take a room's entries out of the line, in their order."""
        withdrawn = self._parked.pop(room, []) + self._take_out(room)
        self._settled(withdrawn)
        return withdrawn

    def has_more_for(self, room: "Room") -> bool:
        """Whether rows of the room have not met their fate yet."""
        return self.last_of(room) is not None

    async def room_for_more(self) -> None:
        """Wait while too many bytes are unstored: whoever reads a socket asks before it reads on."""
        while not self._room_for_more.is_set():  # again after each wait: all are woken, and the first may fill it up
            await self._room_for_more.wait()

    async def flushed(self) -> None:
        """Wait until all that was submitted has met its fate."""
        await self._idle.wait()

    async def warm_up(self) -> None:
        """Connect to the database before the first edit needs it. Raises: DatabaseError while it is away."""
        connect = database_sync_to_async(_connect_and_keep, thread_sensitive=False, executor=self._thread)
        await connect()

    async def close(self, *, seconds_max: float) -> None:
        """Append what is in line, then end the thread and its connection. A database that has not answered after
        `seconds_max` is cut off: what is in line was told to nobody, and its editors have it."""
        try:
            async with asyncio.timeout(seconds_max):
                await self.flushed()
        except TimeoutError:
            cut(self._database)
        self._task.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, lambda: connection.close())
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._in_flight = self._next_batch()
                try:
                    await self._commit(self._in_flight)
                except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
                    raise
                # pyo3's PanicException is no Exception, and without this task nothing is ever stored again.
                except BaseException:
                    logger.exception("a batch of %d rows failed in a way that nothing foresaw", len(self._in_flight))
                    self._settled(self._in_flight)
                    self._give_up(self._in_flight)
                self._in_flight = []  # and no name here for the batch, which would keep its rooms until the next one
            if not self._parked:
                self._idle.set()

    def _next_batch(self) -> list[Entry]:
        count = min(len(self._queue), conf().append_rows_max)
        batch = [self._queue.popleft() for _ in range(count)]
        for entry in batch:
            if self._last_of_room.get(entry.room.document_id) is entry:
                del self._last_of_room[entry.room.document_id]
        return batch

    async def _commit(self, batch: Sequence[Entry]) -> None:
        try:
            pending = [entry.pending() for entry in batch]
            fates = await self._answered(self._append(pending))
        except HistoryError as error:
            # Stored or not is not known, or cannot be now: clients hold their edits and sync them again.
            logger.warning("a batch of %d rows was given up: %s", len(batch), error)
            self._settled(batch)
            self._give_up(batch)
            return
        rooms: dict[Room, list[tuple[Entry, bytes, Fate]]] = {}
        for entry, row, fate in zip(batch, pending, fates, strict=True):
            rooms.setdefault(entry.room, []).append((entry, row.payload, fate))
        for room, settled in rooms.items():
            entries = [entry for entry, _, _ in settled]
            if settled[0][2] == BUSY:
                self._park(room, entries)
            else:
                self._settled(entries)
                self._parked_since.pop(room, None)
                room.settle(settled)

    async def _answered(self, appending: "Coroutine[Any, Any, list[Fate]]") -> list[Fate]:
        """What the append returns or raises. A database that is there and says nothing would hold all rooms for ever:
        after APPEND_SECONDS_MAX its connection is cut, and `append` tells what that means for the batch."""
        task = asyncio.ensure_future(appending)
        while not (await asyncio.wait([task], timeout=conf().append_seconds_max or None))[0]:
            logger.warning("the database does not answer: its connection is cut")
            cut(self._database)
        return task.result()

    def _append_and_keep(self, batch: Sequence[PendingUpdate]) -> list[Fate]:
        """Append, on a connection that lives on: Channels closes old ones after a call, whatever CONN_MAX_AGE says."""
        self._database = connections[DEFAULT_DB_ALIAS]  # this thread's own
        try:
            return append(batch, lock_timeout_ms=conf().head_wait_ms)
        finally:
            connection.close_at = None

    def _park(self, room: "Room", entries: list[Entry]) -> None:
        """Another transaction holds this document's head: its entries step aside, those that come after them too, and
        all other rooms go on. After APPEND_LOCK_TIMEOUT_MS the room is given up."""
        loop = asyncio.get_running_loop()
        since = self._parked_since.setdefault(room, loop.time())
        if room.closed or (loop.time() - since) * 1000 > conf().append_lock_timeout_ms:
            self._settled(entries)
            self._give_up(entries)
            return
        entries += self._take_out(room)
        self._parked[room] = entries
        self._last_of_room[room.document_id] = entries[-1]
        loop.call_later(conf().parked_ms / 1000, self._unpark, room)

    def _unpark(self, room: "Room") -> None:
        self._queue.extendleft(reversed(self._parked.pop(room, [])))
        self._wake.set()

    def _take_out(self, room: "Room") -> list[Entry]:
        taken = [entry for entry in self._queue if entry.room is room]
        self._queue = deque(entry for entry in self._queue if entry.room is not room)
        self._last_of_room.pop(room.document_id, None)
        return taken

    def _give_up(self, batch: Sequence[Entry]) -> None:
        for room in {entry.room for entry in batch}:
            self._parked_since.pop(room, None)
            for entry in (*batch, *self.withdraw(room)):
                if entry.room is room:
                    entry.fail(OutcomeUnknown("the room was dropped"))
            room.drop("its log could not be written")

    def _settled(self, batch: Sequence[Entry]) -> None:
        """Count their bytes no more; those of entries that were settled before are not."""
        for entry in batch:
            if not entry.is_settled:
                entry.is_settled = True
                self._unstored_bytes -= entry.size
        if self._unstored_bytes <= conf().unstored_bytes_max // 2:
            self._room_for_more.set()


def _connect_and_keep() -> None:
    connection.ensure_connection()
    connection.close_at = None
