"""The hub of one process: its open rooms, its group commit, its line to the other processes, and the watch.

One hub per event loop, made when the first socket comes. The watch compares all open rooms with the database every
HEAD_CHECK_SECONDS, so that a dead channel layer costs seconds, not edits."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pycrdt import Doc

from documents.conf import conf
from documents.models import Document
from documents.opening import NoSuchDocument
from history.append import append
from history.audit.entries import record_once
from history.crdt.folding import emitted_by
from history.crdt.state_vectors import EMPTY_STATE_VECTOR
from history.errors import LogUnavailable
from history.fates import Fate, PendingUpdate, Reason, Refused, Stored
from history.folds import Folded, compact, make_ydoc
from history.log import read_heads
from history.models import Kind, Via
from history.refusals import keep_refused
from history.signals import document_changed, tell_of_change
from history.writes import write_session
from realtime.bus import Bus
from realtime.closing import CloseCode, Closing
from realtime.commits import Entry, GroupCommit
from realtime.databases import cut
from realtime.groups import group_name
from realtime.guests import Guest, Guests
from realtime.limits import SocketCounts
from realtime.listening import Groups
from realtime.openings import OpeningRecorder
from realtime.protocols.awareness import Claim
from realtime.public_groups import PublicGroup
from realtime.rechecks import Place, Rechecks
from realtime.refusals import RefusalKeeper
from realtime.rooms import MakeDoc, Room
from realtime.served import ServedDoc, maker_of, own_making
from realtime.tails import Committed

if TYPE_CHECKING:
    from realtime.members import Member

logger = logging.getLogger(__name__)

CLOSED_AT_ONCE = 50
"""Sockets that a drain closes without a pause."""

SPREAD_SHARE = 0.8
"""Of DRAIN_SECONDS: the rest is for readers that are behind, also for those whose turn is last."""

LAST_SECONDS_MAX = 1.0
"""For each of the last things that a drain waits for once its sockets are closed."""

START_SECONDS_MAX = 10.0
"""For the threads that compute to be there."""

P = ParamSpec("P")
R = TypeVar("R")

_hubs: "WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = WeakKeyDictionary()


def current_hub() -> "Hub":
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]


def running_hub() -> "Hub | None":
    """As `current_hub`, where there is one yet."""
    return _hubs.get(asyncio.get_running_loop())


async def warm_up() -> None:
    """Before a worker says that it is ready: connect to the database and the channel layer, so that the first person
    to come does not wait for it. A service that is away is no reason not to start."""
    hub = current_hub()
    try:
        await hub.warm_up()
    except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
        logger.warning("not warm yet: %s: %s", type(error).__name__, error)


async def drain() -> None:
    """Before the server closes its sockets: take no new rooms, store what is in line, write what waits, and close
    the sockets with 1012, all within DRAIN_SECONDS."""
    hub = running_hub()  # and stays: who comes now is told that the server is restarting
    if hub is not None and not hub.draining:
        await hub.stop()


class Hub:
    """Everything of this process that outlives a socket."""

    def __init__(self) -> None:
        self.rooms: dict[int, Room] = {}
        self.commits = GroupCommit()
        self.guests = Guests(self)
        self.rechecks = Rechecks(self)
        self.bus = Bus(self)
        self.groups = Groups()
        self.sockets = SocketCounts()
        self.refusals = RefusalKeeper(lambda refused: self.load(keep_refused, refused))
        self.openings = OpeningRecorder(lambda openings: self.load(record_once, openings))
        self.draining = False
        self._changed: dict[int, tuple[int, Any]] = {}
        self._telling = False
        self._entering: Counter[int] = Counter()
        self._opening: dict[int, asyncio.Task[Room]] = {}
        # Threads one by one, not a pool: each can then be told to close its own database connection.
        # Appends have a thread of their own: a slow load holds up no commit.
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="load") for _ in range(max(conf().load_threads, 1))]
        self._idle_threads: asyncio.LifoQueue[ThreadPoolExecutor] = asyncio.LifoQueue()
        for thread in self._threads:
            self._idle_threads.put_nowait(thread)
        self._databases: dict[ThreadPoolExecutor, BaseDatabaseWrapper] = {}
        self._loads: dict[asyncio.Task[Any], ThreadPoolExecutor] = {}
        self._compute_threads = ThreadPoolExecutor(max(conf().compute_threads, 1), thread_name_prefix="compute")
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch = asyncio.create_task(self._watch_for_ever())

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def load(self, read: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run code that uses the database off the event loop, and off the one thread that Django shares."""
        thread = await self._idle_threads.get()

        def read_here() -> R:
            self._databases[thread] = connections[DEFAULT_DB_ALIAS]  # this thread's own
            return read(*args, **kwargs)

        run = database_sync_to_async(read_here, thread_sensitive=False, executor=thread)
        running: asyncio.Task[R] = asyncio.ensure_future(run())
        # Who waits may give up; the thread waits on for its database, and serves nobody else meanwhile.
        self._loads[running] = thread
        running.add_done_callback(self._loaded)
        if conf().load_seconds_max:
            # Cancelled at its end: a timer that still ran would hold what was read until it is due.
            timer = asyncio.get_running_loop().call_later(conf().load_seconds_max, self._cut_if_it_hangs, thread)
            running.add_done_callback(lambda _: timer.cancel())
        return await asyncio.shield(running)

    def _loaded(self, task: "asyncio.Task[Any]") -> None:
        self._idle_threads.put_nowait(self._loads.pop(task))
        if not task.cancelled():
            task.exception()  # it is of whoever waits; where nobody does, nothing is left to be told

    def _cut_if_it_hangs(self, thread: ThreadPoolExecutor) -> None:
        """A database that is there and says nothing would hold a thread, in the end all of them, for ever."""
        logger.warning("the database does not answer a read: its connection is cut")
        cut(self._databases.get(thread))

    async def compute(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run pure work that takes long off the event loop, on threads that never wait for the database."""
        run = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._compute_threads, run)

    async def warm_up(self) -> None:
        """Start each thread, connect those that read and write to the database, and the bus to the channel layer.
        Raises what these raise."""
        loads = [self.load(_connect) for _ in self._threads]  # at the same moment: one on each thread
        count = max(conf().compute_threads, 1)
        all_there = Barrier(count)
        computes = [self.compute(all_there.wait, START_SECONDS_MAX) for _ in range(count)]
        await asyncio.gather(self.commits.warm_up(), self.bus.ready(), *loads, *computes)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work of a room in the background; it ends with the hub."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Closing):
            logger.warning("background work of a room failed: %s: %s", type(error).__name__, error)

    def places(self) -> "list[Place]":
        """All that sockets of this process are in."""
        return [*self.rooms.values(), *self.guests]

    # Rooms

    async def open(self, document_id: int, make_doc: "MakeDoc") -> Room:
        """The room of a document, loaded once however many come at the same moment, and caught up with the log.

        Raises: Closing, HistoryError."""
        if self.draining:
            raise Closing(CloseCode.RESTARTING, "the server is restarting")
        make_doc = own_making(make_doc)
        self._entering[document_id] += 1  # whoever is on the way in keeps the room from being evicted
        try:
            room = self.rooms.get(document_id)
            if room is not None:
                room.idle_since = self.now()
                await room.catch_up()
            else:
                if document_id not in self._opening:
                    self._make_place()
                    task = asyncio.create_task(self._open(document_id, make_doc))
                    self._opening[document_id] = task
                    task.add_done_callback(lambda _: self._opening.pop(document_id, None))
                room = await asyncio.shield(self._opening[document_id])
            await room.begin_with(make_doc)
            return room
        finally:
            self._entering[document_id] -= 1
            if not self._entering[document_id]:
                del self._entering[document_id]

    def _make_place(self) -> None:
        """End the room that nobody is in for longest where there are ROOMS_MAX. Raises: Closing if there is none."""
        if len(self.rooms) + len(self._opening) < conf().rooms_max:
            return
        for room in self._empty_rooms():
            if room.is_idle:
                self._evict(room)
                return
        raise Closing(CloseCode.TRY_AGAIN, "too many documents are open: ROOMS_MAX")

    async def _open(self, document_id: int, make_doc: "MakeDoc") -> Room:
        # Subscribed first: what is committed from here on is heard of, and what is heard of before the room stands is
        # found by the look at the log below.
        async with contextlib.AsyncExitStack() as failing:
            failing.push_async_callback(self.bus.unsubscribe, document_id)
            _, group = await asyncio.gather(self.bus.subscribe(document_id), self.load(_public_group_of, document_id))
            public = PublicGroup(self, document_id, group)
            failing.push_async_callback(self.groups.leave, group, public.hear)
            joining = asyncio.create_task(self.groups.join(group, public.hear))
            failing.callback(joining.cancel)
            served, folded = await self.fold(document_id, make_doc)
            await joining
            failing.pop_all()
        room = Room(self, document_id=document_id, served=served, folded=folded, make_doc=make_doc, public=public)
        self.rooms[document_id] = room
        room.catch_up_soon()
        self.spawn(room.judge.learn_owners())
        self.bus.ask_for_presence(document_id)
        return room

    async def fold(self, document_id: int, make_doc: "MakeDoc") -> tuple[ServedDoc, Folded]:
        """What a room serves: the log, folded, in the document that a consumer made where it has all that is in that.

        Raises: HistoryError, DatabaseError, and what `make_doc` raises."""
        if make_doc is None:
            folded = await self.load(make_ydoc, document_id)
            return ServedDoc(folded.doc, spawn=self.spawn), folded
        made, maker = await make_doc(), maker_of(make_doc)
        if not isinstance(made, Doc):  # of code of one's own, whatever it says of its types
            raise TypeError("make_ydoc returns a Doc")  # the line is what the log shows
        served = ServedDoc(made, spawn=self.spawn, made=made, maker=maker)
        try:
            content = b"" if made.get_state() == EMPTY_STATE_VECTOR else made.get_update()
            if content:
                await self.load(_seed, document_id, content)
            folded = await self.load(make_ydoc, document_id)
            state, is_held = await self.compute(_compared, folded.doc, content)
            if not is_held:
                doc: Doc[Any] = Doc()
                doc.apply_update(state)
                served = ServedDoc(doc, spawn=self.spawn, made=made, maker=maker)
            served.begin(state)  # here: observers are code of one's own, which belongs to the event loop
        except BaseException:
            served.release()
            raise
        return served, folded

    def forget(self, room: Room) -> None:
        """A room has ended."""
        if self.rooms.get(room.document_id) is room:
            del self.rooms[room.document_id]
            self.spawn(self.bus.unsubscribe(room.document_id))
            self.spawn(self.groups.leave(room.public.group, room.public.hear))

    # What the other processes and this project's users are told

    def publish_rows(self, room: Room, rows: Sequence[Committed], settled: Sequence[tuple[Entry, bytes, Fate]]) -> None:
        """Tell of committed rows: a hint to the other processes, and the public signal, both after the fact."""
        stored = [fate for _, _, fate in settled if isinstance(fate, Stored)]
        self.bus.publish_rows(room, rows, behind=stored[0].behind, hash_=stored[-1].hash)
        if document_changed.has_listeners(Document):
            users = [entry.session.user for entry, _, fate in settled if isinstance(fate, Stored)]
            self._changed[room.document_id] = rows[-1].last_seq, users[-1]
            if not self._telling:
                self._telling = True
                self.spawn(self._tell_of_changes())

    async def _tell_of_changes(self) -> None:
        """Send the public signal, one document at a time: a receiver that is slow gets fewer, not more at once."""
        try:
            while self._changed:
                document_id = next(iter(self._changed))
                # Taken out first: what is stored while a receiver is at it is told of afterwards.
                seq, actor = self._changed.pop(document_id)
                try:
                    await self.load(tell_of_change, document_id, seq=seq, actor=actor)
                except DatabaseError as error:
                    logger.warning("nobody was told of document=%s seq=%s: %s", document_id, seq, type(error).__name__)
        finally:
            self._telling = False

    def publish_awareness(self, room: Room, claims: Sequence[Claim]) -> None:
        self.bus.publish_awareness(room.document_id, claims)

    # The watch

    async def _watch_for_ever(self) -> None:
        while True:
            await asyncio.sleep(conf().head_check_seconds)
            # What needs no database first, and each by itself: others take a process that is silent for a dead one.
            for look in (
                self.bus.check,
                self._tidy,
                self._check_heads,
                self.guests.check,
                self.rechecks.check_accounts,
            ):
                try:
                    await look()
                except Exception as error:  # noqa: BLE001  (whatever a layer or a database raises)
                    logger.warning("the watch could not look: %s: %s", type(error).__name__, error)

    async def _tidy(self) -> None:
        self._expire_presence()
        self._evict_idle()

    async def _check_heads(self) -> None:
        rooms = list(self.rooms.values())
        if not rooms:
            return
        seen = {room: room.seq for room in rooms}
        found = await self.load(read_heads, {room.document_id: room.base for room in rooms})
        for room in rooms:
            head = found.get(room.document_id)
            if head is None:
                room.drop("there is no such document", code=CloseCode.NO_SUCH_DOCUMENT)
                continue
            if head.seq > room.seq or head.seq < seen[room] or not head.has_base:  # or a backup was restored
                room.catch_up_soon()
            admissions = (member.session.admission for member in room.members)
            if any(each.access_version != head.access_version or each.role is None for each in admissions):
                self.rechecks.look_at_room_soon(room)

    def _expire_presence(self) -> None:
        for room in self.rooms.values():
            silent = room.awareness.expire(self.now(), conf().awareness_timeout_seconds)
            room.show(silent)

    def _evict_idle(self) -> None:
        empty = self._empty_rooms()
        warm_bytes = sum(room.stored_bytes for room in empty)
        for room in empty:
            if self.now() - room.idle_since < conf().room_idle_seconds and warm_bytes <= conf().warm_bytes_max:
                return
            if room.is_idle:
                warm_bytes -= room.stored_bytes
                self._evict(room)

    def _empty_rooms(self) -> list[Room]:
        """Those that nobody is in or on the way into, empty for longest first."""
        empty = (room for room in self.rooms.values() if not room.members and not self._entering[room.document_id])
        return sorted(empty, key=lambda room: room.idle_since)

    def _evict(self, room: Room) -> None:
        room.drop("idle")
        if room.seq - room.snapshot_seq >= conf().eviction_snapshot_rows:
            self.spawn(self._compact(room.document_id))

    async def _compact(self, document_id: int) -> None:
        await self.load(compact, document_id)

    # The end

    async def stop(self) -> None:
        """Let everyone go within DRAIN_SECONDS, and end all that this hub started; a database that does not answer by
        then is not waited for much longer."""
        self.draining = True
        self._watch.cancel()
        deadline = self.now() + conf().drain_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self.commits.flushed()
        except TimeoutError:
            logger.error("not all edits were stored in time: their editors keep them and sync again")
        await self._let_go(deadline)
        try:
            async with asyncio.timeout(LAST_SECONDS_MAX):
                await self.refusals.flushed()
        except TimeoutError:
            logger.error("not all that was refused was kept in time: its editors still have it")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS_MAX):
                await self.openings.flushed()
        self.openings.stop()
        for task in list(self._tasks):
            task.cancel()
        await self.guests.stop(seconds_max=LAST_SECONDS_MAX)
        await self.groups.stop()
        await self.bus.stop()
        await self.commits.close(seconds_max=LAST_SECONDS_MAX)
        await self._end_threads()

    async def _end_threads(self) -> None:
        self._compute_threads.shutdown(wait=False)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._loads:
            await asyncio.wait(list(self._loads), timeout=LAST_SECONDS_MAX)
        for thread in self._loads.values():
            cut(self._databases.get(thread))
        if self._loads:
            await asyncio.wait(list(self._loads), timeout=LAST_SECONDS_MAX)
        for thread in self._threads:
            if thread not in self._loads.values():
                await asyncio.get_running_loop().run_in_executor(thread, connections.close_all)
            thread.shutdown(wait=False)

    async def _let_go(self, deadline: float) -> None:
        """Close every socket with 1012 once all that waits for it is written, and at the deadline whatever waits.

        A few at a time: those who come again at once meet processes that have others to serve."""
        sockets: list[Member | Guest] = [member for room in self.places() for member in room.members]
        pause = (deadline - self.now()) * SPREAD_SHARE * CLOSED_AT_ONCE / max(len(sockets), 1)
        async with asyncio.TaskGroup() as closing:
            for place, member in enumerate(sockets):
                closing.create_task(self._close_when_read(member, deadline))
                if place % CLOSED_AT_ONCE == CLOSED_AT_ONCE - 1:
                    await asyncio.sleep(pause)

    async def _close_when_read(self, member: "Member | Guest", deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await member.written()
        member.close(Closing(CloseCode.RESTARTING, "the server is restarting"))


def _public_group_of(document_id: int) -> str:
    name = Document.objects.filter(pk=document_id).values_list("name", flat=True).first()
    if name is None:
        raise NoSuchDocument
    return group_name(name)


def _compared(doc: "Doc[Any]", content: bytes) -> tuple[bytes, bool]:
    """All that a document holds, and whether it holds this content, which else is in it now."""
    return doc.get_update(), not content or emitted_by(doc, content) is None


def _connect() -> None:
    connections[DEFAULT_DB_ALIAS].ensure_connection()


def _seed(document_id: int, content: bytes) -> None:
    """Store what a document begins with, if its log is empty.

    Raises: LogUnavailable where that cannot be said: the document must not be opened without it."""
    document = Document.objects.get(pk=document_id)
    session = write_session(document, actor=None, via=Via.WEBSOCKET)
    (fate,) = append([PendingUpdate(session=session, payload=content, kind=Kind.SEED, expected_seq=0)])
    if isinstance(fate, Refused) and fate.reason is not Reason.MOVED_ON:
        raise LogUnavailable(f"document {document_id}: {fate.reason.value}")
