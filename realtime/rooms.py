"""A room: one process's live copy of one document, and everyone who has it open here.

The served document is fed with committed rows alone, in the order of their seqs, by `advance` and nothing else; what
a crash could take back is never in it. The intake document behind the gate runs ahead of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

from pycrdt import Doc, Subscription

from documents.conf import conf
from history.append import raise_epoch
from history.crdt.idsets import IdSet, delete_set_in, encoded_snapshot, id_set, subtract
from history.crdt.lib0 import Malformed
from history.crdt.merging import MERGE_UPDATES_MAX, merged
from history.crdt.state_vectors import EMPTY_STATE_VECTOR, decode_state_vector
from history.crdt.updates import MissingDependency, decode_update
from history.errors import OutcomeUnknown
from history.fates import Base, Fate, Reason, Refused, Stored
from history.folds import Folded
from history.gate import Gate, GateBroken, NotTaken, Taken
from history.models import Kind
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing, closing_for
from realtime.commits import Entry, Part, Receipts
from realtime.frames import SharedMessage
from realtime.identities import identity_of
from realtime.judging import Judge
from realtime.protocols.awareness import AwarenessEntry, Claim
from realtime.protocols.messages import Awareness, Opaque, SyncStep1, SyncStep2, Update, awareness_messages
from realtime.protocols.presence import AwarenessStates
from realtime.public_groups import PublicGroup
from realtime.served import ServedDoc
from realtime.tails import Committed, Tail, read_tail

if TYPE_CHECKING:
    from realtime.connections import Connection
    from realtime.hub import Hub
    from realtime.members import Member

logger = logging.getLogger(__name__)

MakeDoc: TypeAlias = "Callable[[], Awaitable[Doc[Any]]] | None"
"""Makes the document that a room begins with, with whatever observers it is to have; None for an empty one."""

_LOADED_AGAIN = "the document has to be loaded again"
_EDITED = "its document was edited past the log"
_THE_LAYER = "the channel layer"
_LOG_IS_NOT_THERE = (Reason.UNAVAILABLE, Reason.GONE, Reason.ROLLED_BACK)
_JUDGED_AGAIN = (Reason.BEHIND, Reason.NOT_YOURS)
"""The gate that is built next knows more: whose the client ids are, and what was not stored."""


class Room:
    """One document, open in this process. All methods run on the event loop."""

    def __init__(
        self, hub: "Hub", *, document_id: int, served: ServedDoc, folded: Folded, make_doc: MakeDoc, public: PublicGroup
    ) -> None:
        self.hub = hub
        self.document_id = document_id
        self.public = public
        self.seq = folded.seq
        self.epoch = folded.epoch
        self.base = Base(folded.epoch, folded.seq, folded.hash)
        """Where the log was last seen by its hash: a room goes on from there or ends."""
        self.snapshot_seq = folded.snapshot_seq
        self.stored_bytes = folded.snapshot_bytes + folded.tail_bytes
        """How large the document is at most: what it was when last encoded whole, and the rows since."""
        self._make_doc = make_doc
        self._is_lent = make_doc is not None
        self._serve(served)
        self.members: set[Member] = set()
        self.judge = Judge(self)
        self.awareness = AwarenessStates(
            states_max=conf().awareness_states_max,
            clock_ahead_max=conf().awareness_clock_ahead_max,
            opened_at=hub.now(),
            bound_user=self.judge.owner_of,
        )
        self.closed = False
        self.idle_since = hub.now()
        self._whole: tuple[int, SharedMessage] | None = None
        self._deleted: tuple[int, IdSet] = (0, {})
        """What was deleted at some seq."""
        self._known: tuple[int, Mapping[int, int]] = (0, {})
        """How far each client reached at some seq."""
        self.opened_at = hub.now()
        self.rights_told_at = 0.0
        self._catch_up_lock = asyncio.Lock()
        self._catch_up_due = False
        self._catch_ups_asked = 0
        self._catch_ups_done = 0
        self._not_shown: list[tuple[Entry, Stored]] = []
        self._held_off: set[Member] = set()
        """Those of whom something was refused because another connection uses their client id."""

    # Who is here

    def join(self, member: "Member") -> None:
        self.members.add(member)
        member.outbox.seq = self.seq

    def leave(self, member: "Member") -> None:
        self.members.discard(member)
        self.idle_since = self.hub.now()
        self._held_off.discard(member)
        gone = self.awareness.remove_owner(member)
        if not self.closed:
            self.show(gone, as_user=member.identity.user)
            if not member.session.actor:
                self._ask_who_was_held_off()

    def is_anothers(self, client_id: int, session: WriteSession) -> bool:
        """Whether a client id that no account has written under is of somebody else who is here with it.

        An account's stays its own while it is remembered; nobody's is its connection's, until that ends. Of people
        without an account the address alone tells whether it may be one of them whose old socket hangs; how it is in
        another process is not known here."""
        if user := self.awareness.user_of(client_id):
            return user != session.actor
        owner = cast("Connection | str | None", self.awareness.owner_of(client_id))
        if owner is None:
            return False
        if isinstance(owner, str):
            return bool(session.actor)
        return owner.session is not session and (bool(session.actor) or owner.session.ip != session.ip)

    def _is_nobodys_who_is_here(self, client_id: int) -> bool:
        has_account = self.judge.owner_of(client_id) or self.awareness.user_of(client_id)
        return not has_account and self.awareness.owner_of(client_id) is not None

    def _ask_who_was_held_off(self) -> None:
        """A connection of nobody's has ended, and its client ids are free: as where somebody has reconnected from
        elsewhere, and only now the old socket is known to be dead."""
        asked, self._held_off = self._held_off, set()
        for member in asked:
            member.ask(self.sync_step1())

    @property
    def is_idle(self) -> bool:
        """Whether nobody is in the room and nothing of it is on its way to the log."""
        return not (self.members or self.judge.is_busy or self.hub.commits.has_more_for(self))

    def drop(self, reason: str, *, code: CloseCode = CloseCode.TRY_AGAIN) -> None:
        """End this copy: close its sockets; the next who comes loads the document from the log."""
        if self.closed:
            return
        self.closed = True
        logger.info(
            "room dropped: document=%s seq=%s sockets=%s: %s", self.document_id, self.seq, len(self.members), reason
        )
        self.hub.forget(self)
        self._tell_who_waits()
        for member in list(self.members):
            member.close(Closing(code, reason))
        self.judge.start_anew()  # without its gate nothing holds the room in a circle: its documents are free at once
        self.served.release()

    # The document

    @property
    def doc(self) -> "Doc[Any]":
        return self.served.doc

    def _serve(self, served: ServedDoc) -> None:
        self.served = served
        if self._is_lent:
            served.watch(self._was_edited)

    def lend(self, take: Callable[[bytes], None], observers: "list[Subscription]") -> "Doc[Any]":
        """The document for code of one's own, which may read and observe it; the updates that it applies are for
        `take`, its `observers` for `ServedDoc.end`. Whoever edits it in another way has the room end, and nobody is
        shown the edit."""
        if not self._is_lent:
            self._is_lent = True
            self.served.watch(self._was_edited)
        return self.served.lend(take, observers)

    async def begin_with(self, make_doc: MakeDoc) -> None:
        """Have a consumer's own document, and its observers, where the room was opened by a door that has none.

        Raises: Closing, and what `make_doc` raises."""
        if make_doc is None or self._begins_with_own:
            return
        async with self._catch_up_lock:
            if self._begins_with_own:
                return  # somebody else has come with theirs meanwhile
            served, folded = await self.hub.fold(self.document_id, make_doc)
            try:
                seq = folded.seq
                while True:  # this room may go on while it is read
                    tail = await self.tail_after(min(seq, self.seq))
                    for row in (row for row in tail.rows if row.last_seq > seq):
                        if row.splits:
                            self.load_again()
                        served.feed(row.update)
                        seq = row.last_seq
                    if seq >= self.seq:
                        break
                self._make_doc, self._is_lent = make_doc, True
                self._replace_doc(served, replace(folded, seq=seq), tail)
            finally:
                if self.served is not served:
                    served.release()

    @property
    def _begins_with_own(self) -> bool:
        return self._make_doc is not None

    def _was_edited(self) -> None:
        logger.error("document=%s: %s; apply_update and group_send_message log an edit", self.document_id, _EDITED)
        asyncio.get_running_loop().call_soon(self.drop, _EDITED)  # its transaction has not ended yet

    # Reading

    def sync_step1(self) -> SyncStep1:
        """What is asked of whoever may have more than this room."""
        return SyncStep1(self.doc.get_state())

    def presence_here(self) -> Sequence[Claim]:
        """Of those whose sockets are in this process: each process speaks for its own."""
        return self.awareness.claims(of=lambda owner: not isinstance(owner, str))

    def presence(self) -> Iterable[SharedMessage]:
        return self._awareness_messages(self.awareness.entries())

    def sync_step2(self, state_vector: bytes) -> SharedMessage:
        """What a client with that state vector lacks. The whole document is encoded once for all who come to it."""
        if state_vector != EMPTY_STATE_VECTOR:
            return SharedMessage(SyncStep2(self.doc.get_update(state_vector)))
        if self._whole is None or self._whole[0] != self.seq:
            whole = self.doc.get_update()
            self.stored_bytes = len(whole)
            self._whole = self.seq, SharedMessage(SyncStep2(whole))
        return self._whole[1]

    async def missed_since(self, seq: int) -> tuple[SharedMessage | None, int]:
        """One message with all rows after `seq`, for a socket that was too slow, and the seq it then has."""
        upto = self.seq
        if upto == seq:
            return None, seq
        if upto - seq <= min(MERGE_UPDATES_MAX, conf().catch_up_rows_max):
            rows = (await self.hub.load(read_tail, self.document_id, seq, self.base)).rows
            if rows and rows[-1].last_seq >= upto:  # else it is too much: the whole document is less
                return SharedMessage(Update(merged([row.update for row in rows]))), rows[-1].last_seq
        return SharedMessage(Update(self.doc.get_update())), self.seq

    def known(self) -> Mapping[int, int]:
        """By client how far the document reaches, or will with what is on its way to the log. Read once for each seq:
        decoding 20,000 clients takes 40 ms, and anybody may have it asked for with a few bytes."""
        if self.judge.known is not None:
            return self.judge.known
        if self._known[0] != self.seq:
            self._known = self.seq, decode_state_vector(self.doc.get_state())
        return self._known[1]

    async def would_change(self, update: bytes) -> bool:
        """Whether an update says anything that the document does not have. Raises: Malformed."""
        is_large = len(update) > conf().off_loop_bytes
        said = await self.hub.compute(_said_by, update) if is_large else _said_by(update)
        known = self.known()
        if any(stop > known.get(client, 0) for client, stop in said.reaches.items()):
            return True
        # What is deleted only grows: who deletes nothing that was not deleted some time ago says nothing new.
        if not subtract(said.deletes, self._deleted[1]):
            return False
        if self._deleted[0] != self.seq:
            seq, snapshot = self.seq, encoded_snapshot(self.doc)  # here: the document belongs to the event loop
            is_large = len(snapshot) > conf().off_loop_bytes
            deleted = await self.hub.compute(delete_set_in, snapshot) if is_large else delete_set_in(snapshot)
            self._deleted = seq, deleted
        return bool(subtract(said.deletes, self._deleted[1]))

    # Writing

    async def write(self, connection: "Connection", update: bytes, *, may_ask: bool, receipts: Receipts = ()) -> None:
        """Take an update of a client: through the gate, then in line for the log. What builds on edits that are not
        here is asked for, if it may be; what then is missing, or is under another's client id, is refused, and the rest
        taken. Returns before COMMIT; `receipts` are given after it, or where it is refused.

        Raises: Malformed, Closing; the socket is to be closed then."""
        if len(update) > conf().update_bytes_max:
            raise Closing(CloseCode.TOO_LARGE, "the update is too large")
        await self.hub.commits.room_for_more()
        accepted = await self._take_for(connection, connection.session, update, may_ask=may_ask, receipts=receipts)
        if accepted is not None:
            part, gate = accepted
            if not connection.session.actor and connection in self.members:
                self.awareness.wrote(part.taken.clients, owner=connection)
            self.hub.commits.submit(self, connection.session, part, gate, origin=connection)
            connection.charge_time(part.taken.cpu_seconds)
            if part.taken.splits:  # every process reads the document anew for it
                connection.charge(self.stored_bytes)

    async def _take_for(
        self,
        connection: "Connection | None",
        session: WriteSession,
        update: bytes,
        *,
        may_ask: bool,
        receipts: Receipts,
    ) -> tuple[Part, Gate] | None:
        """As `_take`; what cannot be taken is asked for or refused, and its sender told."""
        try:
            taken = await self._take(session, update, sender=connection)
        except (NotTaken, MissingDependency) as error:
            if connection is None:
                raise
            if not connection.may_write:  # any more: of what was in line, this built on what was refused
                connection.refuse(update, Reason.NOT_ALLOWED, receipts=receipts)
                return None
            if isinstance(error, NotTaken):
                connection.refuse(update, error.reason, clients=error.clients, receipts=receipts)
                if connection in self.members and any(map(self._is_nobodys_who_is_here, error.clients)):
                    self._held_off.add(connection)
            elif may_ask and connection.ask_for_missing(error, self.sync_step1()):
                connection.owe(receipts)
                return None
            else:
                if not may_ask:
                    connection.has_not(error)
                connection.refuse(update, Reason.MISSING, receipts=receipts)
        else:
            if taken is None:
                self.nothing_new(receipts)
                return None
            return Part(taken[0], [*receipts]), taken[1]
        part = await self.judge.part_of(session, update)
        taken = None if part is None else await self._take(session, part)
        return None if taken is None else (Part(taken[0]), taken[1])

    def nothing_new(self, receipts: Receipts) -> None:
        """Give receipts for what says nothing new: with those of the last edit that stands in line, which may be what
        it says; at once where none does."""
        last = self.hub.commits.last_of(self) if receipts else None
        if last is not None:
            last.parts[-1].receipts.extend(receipts)
        else:
            for each in receipts:
                each.tell_saved(applied=True)

    async def write_and_wait(
        self, session: WriteSession, update: bytes, *, kind: Kind, request_key: str | None = None
    ) -> Fate | None:
        """Take an update that no socket sent; return its fate once others may see it, or None if it says nothing new.
        The same `request_key` of the same author is stored once.

        Raises: Malformed, MissingDependency, Closing."""
        await self.hub.commits.room_for_more()
        try:
            taken = await self._take(session, update)
        except NotTaken as error:
            return Refused(error.reason)
        if taken is None:
            return None
        future: asyncio.Future[Fate | None] = asyncio.get_running_loop().create_future()
        self.hub.commits.submit(
            self, session, Part(taken[0]), taken[1], origin=None, kind=kind, future=future, request_key=request_key
        )
        return await future

    async def _take(
        self, session: WriteSession, update: bytes, *, sender: "Connection | None" = None
    ) -> tuple[Taken, Gate] | None:
        """What the gate makes of an update, and which gate; None if it says nothing new. One whose dependencies are not
        here is tried again after a look at the log, where its sender has not made that look pointless: whoever sends
        thousands of these has the log read a few times. Raises: Malformed, MissingDependency, NotTaken, Closing."""
        for attempt in ("first", "last"):
            try:
                return await self.judge.take(session, update)
            except MissingDependency as error:
                if attempt == "last" or (sender is not None and not sender.is_worth_a_look(error)):
                    raise
                await self.catch_up()
            except GateBroken as error:
                logger.warning("gate broken: document=%s: %s", self.document_id, error)
                raise Closing(CloseCode.MALFORMED, "malformed update") from error
        raise AssertionError("unreachable")

    # What became of it

    def settle(self, settled: Sequence[tuple[Entry, bytes, Fate]]) -> None:
        """Take over the fates of this room's rows of one batch: show what is stored, turn back what was refused."""
        rows: list[Committed] = []
        repeated = [each for each in settled if isinstance(each[2], Stored) and each[2].repeated]
        for entry, _, fate in repeated:
            entry.settle(fate)
        settled = [each for each in settled if each not in repeated]
        for entry, payload, fate in settled:
            if isinstance(fate, Stored):
                self._has_seen(Base(fate.epoch, fate.seq, fate.hash))
                entry.gate.claim(entry.clients, entry.session)
                rows.append(
                    Committed(
                        first_seq=fate.first_seq,
                        last_seq=fate.seq,
                        update=payload,
                        splits=entry.splits,
                        gate=entry.gate,
                        origin=entry.origin,
                        authors=(entry.author,),
                    )
                )
                self._not_shown.append((entry, fate))
            elif not (isinstance(fate, Refused) and fate.reason in _JUDGED_AGAIN):
                entry.settle(fate)
        if rows:
            if not self.closed:
                self.advance(rows)
            self._tell_who_waits()
            self.hub.publish_rows(self, rows, settled)  # stored is stored, though this copy of the room has ended
        refused = [(entry, fate.reason) for entry, _, fate in settled if isinstance(fate, Refused)]
        if refused or repeated:
            self._turn_back(refused)

    def _tell_who_waits(self) -> None:
        """Resolve what is shown by now; nothing more will be once the room has ended, and stored is stored."""
        waiting, self._not_shown = self._not_shown, []
        for entry, fate in waiting:
            if fate.seq <= self.seq or self.closed:
                entry.settle(fate)
            else:
                self._not_shown.append((entry, fate))

    def _turn_back(self, refused: Sequence[tuple[Entry, Reason]]) -> None:
        """What was refused, or was in the log before, is in the intake: a new one is built, and what stands in line
        behind it is judged again, so that no other session's edits fail with it and nothing is logged that builds on
        what is not there."""
        if any(reason in _LOG_IS_NOT_THERE for _, reason in refused):
            # What stands in line builds on what is not in the log: clients hold it and sync it again.
            for entry in (*(entry for entry, _ in refused), *self.hub.commits.withdraw(self)):
                entry.fail(OutcomeUnknown("the room was dropped"))
            self.drop("its log could not be written")
            return
        self.judge.start_anew()
        again = [entry for entry, reason in refused if reason in _JUDGED_AGAIN]
        for entry, reason in refused:
            if reason not in _JUDGED_AGAIN and entry.origin is not None:
                entry.origin.refuse(entry.payload(), reason)
        waiting = [*again, *self.hub.commits.withdraw(self)]
        self.hub.rechecks.look_at_room_soon(self)
        if waiting:
            self.hub.spawn(self._judge_again(waiting))

    async def _judge_again(self, entries: Sequence[Entry]) -> None:
        try:
            await self._take_again(entries)
        except Exception as error:  # noqa: BLE001  (the log cannot be read: clients hold their edits and sync again)
            logger.warning("not judged again: document=%s: %s", self.document_id, type(error).__name__)
            for entry in entries:
                entry.fail(OutcomeUnknown("the room was dropped"))
            self.drop("its log could not be read")

    async def _take_again(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            for part in entry.parts:
                update = part.taken.update
                try:
                    accepted = await self._take_for(
                        entry.origin, entry.session, update, may_ask=True, receipts=part.receipts
                    )
                except NotTaken as error:
                    entry.settle(Refused(error.reason))
                    continue
                except (MissingDependency, Closing, Malformed) as error:
                    entry.fail(error)
                    if entry.origin is not None:
                        entry.origin.close(closing_for(error))
                    continue
                if accepted is None:
                    entry.resolve(None)
                    continue
                self.hub.commits.submit(
                    self,
                    entry.session,
                    *accepted,
                    origin=entry.origin,
                    kind=entry.kind,
                    future=entry.future,
                    request_key=entry.request_key,
                )

    def advance(self, rows: Sequence[Committed]) -> None:
        """Take over committed rows, whoever told of them, and show them; rows that are known are passed over. Before a
        gap, and before a row that splits a character, it stops: `catch_up` goes on from there."""
        applied: list[Committed] = []
        for row in rows:
            if row.last_seq <= self.seq:
                continue
            if row.first_seq > self.seq + 1 or row.splits:
                self.catch_up_soon()
                break
            try:
                self._apply(row)
                self.judge.follow(row)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
                logger.error(
                    "document=%s seq=%s does not apply: %s", self.document_id, row.last_seq, type(error).__name__
                )
                self.drop(_LOADED_AGAIN)
                return
            self.seq = row.last_seq
            applied.append(row)
        if applied:
            self._broadcast(applied)
            self._tell_who_waits()

    def advance_by_hint(self, rows: Committed, *, behind: bytes, hash_: bytes) -> None:
        """Take over rows that another process told of in one update; `behind` is the hash of the row before them."""
        told = {rows.first_seq - 1: behind, rows.last_seq: hash_}
        if self.base.hash and told.get(self.base.seq, self.base.hash) != self.base.hash:
            self.catch_up_soon()  # which finds that this room's is not the log any more
        elif rows.last_seq > self.seq:
            self.advance([rows])
            if self.seq == rows.last_seq:
                self._has_seen(Base(self.epoch, rows.last_seq, hash_))

    def _apply(self, row: Committed) -> None:
        self.stored_bytes += len(row.update)
        self.served.feed(row.update)

    def _broadcast(self, rows: Sequence[Committed]) -> None:
        message = SharedMessage(Update(merged([row.update for row in rows])))
        origin = rows[0].origin if all(row.origin is rows[0].origin for row in rows) else None
        for member in self.members:
            if member is not origin:
                member.show(rows, message, seq=self.seq)
            else:
                member.outbox.skip(self.seq)

    def catch_up_soon(self) -> None:
        """Have the log looked at in the background; many reasons at once are one. A reason that comes while somebody
        looks needs a further look: that one may have begun before the row was committed."""
        if not self._catch_up_due and not self.closed:
            self._catch_up_due = True
            self.hub.spawn(self.catch_up())

    async def catch_up(self) -> None:
        """Read what the log has and this room has not, and show it. Callers at the same moment share one look.

        Raises: Closing when the room had to be dropped."""
        self._catch_ups_asked += 1
        mine = self._catch_ups_asked
        async with self._catch_up_lock:
            if self._catch_ups_done >= mine:
                return
            covers = self._catch_ups_asked
            self._catch_up_due = False
            after = self.seq  # own commits and hints may move the room on before the look comes back
            tail = await self.tail_after(after)
            if any(row.splits and row.last_seq > self.seq for row in tail.rows):
                # An edit cut a character in two: no document that has it whole can take that edit.
                served, folded = await self.hub.fold(self.document_id, self._make_doc)
                try:
                    tail = await self.tail_after(after)
                    self._replace_doc(served, folded, tail)
                finally:
                    if self.served is not served:
                        served.release()
            self._catch_ups_done = covers
            self.advance(tail.rows)
            self._has_seen(tail.head)

    def _has_seen(self, place: Base) -> None:
        """The log of this room's epoch goes on from what this room has, and is there now."""
        if place.seq >= self.base.seq:
            self.base = place

    async def tail_after(self, after: int) -> Tail:
        """All rows of the log after a seq that this room has shown.

        Raises: Closing, the room dropped, where the log does not hold what the room shows now, or goes on too far."""
        shown = self.seq
        tail = await self.hub.load(read_tail, self.document_id, after, self.base)
        if not tail.has_base:
            await self.hub.load(raise_epoch, self.document_id, epoch=self.epoch)
        if self.closed or not tail.has_base or not shown <= tail.head.seq <= after + len(tail.rows):
            self.load_again()
        return tail

    def load_again(self) -> NoReturn:
        """Drop the room, whose log is not what it was. Raises: Closing, always."""
        self.drop(_LOADED_AGAIN)
        raise Closing(CloseCode.TRY_AGAIN, _LOADED_AGAIN)

    def _replace_doc(self, served: ServedDoc, folded: Folded, tail: Tail) -> None:
        """Serve another fold of the same log, at `folded.seq`, and show what it has and the last one had not: clients
        split their own copies as they apply it. `tail` are the rows after some seq that both have."""
        if folded.epoch != self.epoch or not self.seq <= folded.seq <= tail.head.seq:
            self.load_again()
        rows = [row for row in tail.rows if self.seq < row.last_seq <= folded.seq]
        for row in rows:
            self.judge.follow(row)
        self.served.release()
        self._serve(served)
        self._whole = None
        self.seq, self.snapshot_seq = folded.seq, folded.snapshot_seq
        self.stored_bytes = folded.snapshot_bytes + folded.tail_bytes
        if rows:
            self._broadcast(rows)
        self._tell_who_waits()

    # Presence

    def hear(self, connection: "Connection", entries: Sequence[AwarenessEntry]) -> None:
        """Take the awareness entries that a client sent; its echo goes to it too, which keeps it connected. Where a
        state of its own may have been passed over, an empty message does."""
        changes = self.awareness.hear(
            entries,
            owner=connection,
            identity=connection.identity,
            now=self.hub.now(),
            owned_max=conf().awareness_states_per_socket_max,
        )
        for message in self._awareness_messages(changes.outdated):
            connection.outbox.offer(message)
        if changes.unheard and not changes.broadcast:
            connection.outbox.offer(SharedMessage(Awareness(())))
        self.show(changes.broadcast, as_user=connection.identity.user)

    def hear_from(self, process: str, claims: Sequence[Claim]) -> None:
        """Take what another process heard."""
        self.show(self.awareness.hear_claims(claims, owner=process, now=self.hub.now()).broadcast)

    def show(self, entries: Sequence[AwarenessEntry], *, as_user: str | None = None) -> None:
        """Show entries to everyone here, and to the other processes where they are of a user whose socket is here."""
        for message in self._awareness_messages(entries):
            self.say(message)
        if entries and as_user is not None:
            self.hub.publish_awareness(self, [Claim(as_user, entry) for entry in entries])

    def hear_from_nobody(self, entries: Sequence[AwarenessEntry]) -> None:
        """Take what code of one's own shows, which every process hears by itself. Whoever is shown so has no account;
        nobody else's client is touched."""
        heard = self.awareness.hear(entries, owner=_THE_LAYER, identity=identity_of(None), now=self.hub.now())
        self.show(heard.broadcast)

    # What code of one's own says

    def pass_on(self, payload: bytes) -> None:
        """Send everyone here who speaks y-websocket one message as it is."""
        self.say(SharedMessage(Opaque(payload)))

    def say(self, message: SharedMessage) -> None:
        """Send everyone here what is of this moment alone: a reader who is too slow goes without."""
        for member in self.members:
            member.deliver(message, seq=self.seq)

    def _awareness_messages(self, entries: Sequence[AwarenessEntry]) -> Iterable[SharedMessage]:
        # A sixth of what a client may send: stock clients relay what they receive, numbers written longer.
        for message in awareness_messages(entries, bytes_max=conf().frame_bytes_max // 6):
            yield SharedMessage(message)


@dataclass(frozen=True, slots=True)
class _Said:
    """What an update speaks of: by client how far its structs reach, and what it deletes."""

    reaches: dict[int, int]
    deletes: IdSet


def _said_by(update: bytes) -> _Said:
    decoded = decode_update(update, parts_max=conf().update_structs_max)
    reaches: dict[int, int] = {}
    for struct in decoded.structs:
        reaches[struct.client] = max(reaches.get(struct.client, 0), struct.clock + struct.length)
    return _Said(reaches, id_set(decoded.deletes))
