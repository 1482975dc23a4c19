"""One document of a Hocuspocus socket: what its provider is told beside y-sync, above all which of its edits are saved.

A provider counts 1 for each Update that it sends, begins anew with 1 at each SyncStep1, and counts down at each
SyncStatus(1), whatever that was for. So that nothing left means that all is committed, exactly as many are sent as it
has counted. Source: HocuspocusProvider.ts of 2.15.3, 3.4.4 and 4.8.0, `unsyncedChanges`."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from documents.conf import conf
from history.crdt.lib0 import Malformed, Reader
from history.crdt.state_vectors import decode_state_vector
from realtime.commits import Receipt, Receipts
from realtime.connections import Connection
from realtime.frames import SharedMessage
from realtime.hocuspocus.stateless import Heard, inbox_of
from realtime.members import Member
from realtime.protocols.hocuspocus import ClientMessage, decode_message_of, holds_one_update
from realtime.protocols.messages import (
    Admitted,
    Awareness,
    QueryAwareness,
    Stateless,
    SyncStep1,
    SyncStep2,
    Update,
)
from realtime.rooms import Room

OWED_MAX = 10_000
"""Receipts that wait for one answer; of more edits a provider that does not answer is told nothing."""


class _OfCount:
    """A receipt for an edit that the provider counted in one of its counts."""

    __slots__ = ("_connection", "_count")

    def __init__(self, connection: "HocuspocusConnection", count: int) -> None:
        self._connection = connection
        self._count = count

    def tell_saved(self, *, applied: bool) -> None:
        self._connection.tell_saved_of(self._count, applied=applied)


class _Handshake:
    """What a provider had as it said SyncStep1, until it has answered the server's own: of 160,000 clients, as many as
    a frame may name, 2 MB. A dict of them has 15, for each of a hundred documents of one socket."""

    __slots__ = ("_clients", "_clocks")

    def __init__(self, state_vector: bytes) -> None:
        known = decode_state_vector(state_vector)
        self._clients = array("Q", sorted(known))
        self._clocks = array("I", (known[client] for client in self._clients))

    def counts(self, update: bytes, *, may_be_from_queue: bool) -> bool:
        """Whether the provider counts an Update that it sends now. What it could not send while its socket was not open
        it sends behind its SyncStep1, with which it has begun to count anew: its state vector told of that already. Of
        what deletes and no more it tells nothing."""
        reader = Reader(update)
        try:
            if not reader.var_uint():
                return not may_be_from_queue
            reader.var_uint()
            client, clock = reader.var_uint(), reader.var_uint()
        except Malformed:
            return True  # the gate says so too
        place = bisect_left(self._clients, client)
        has_it = place < len(self._clients) and self._clients[place] == client
        return clock >= (self._clocks[place] if has_it else 0)


class HocuspocusConnection(Connection):
    """One document of one socket, under one session."""

    def __init__(self, room: Room, **how: Any) -> None:
        super().__init__(room, **how)
        self._count = 0
        """Which of its counts the provider is at: it has begun so often."""
        self._handshake: _Handshake | None = None
        self._owed: list[Receipt] = []
        self._may_be_from_queue = False

    # What its provider is told

    def greet(self) -> None:
        """Join the room, and tell what the provider may do and who is there; it asks for the content by itself.

        Raises: Closing."""
        Member.greet(self)
        self.tell_admitted()

    def tell_admitted(self) -> None:
        self.outbox.offer(SharedMessage(Admitted(self.may_write)))
        for message in self.room.presence():
            self.outbox.offer(message)

    def role_changed(self) -> None:
        self.outbox.offer(SharedMessage(Admitted(self.may_write)))

    def say_stateless(self, payload: str) -> None:
        if not self.is_gone:
            self.deliver(SharedMessage(Stateless(payload)), seq=self.outbox.seq)

    # What is saved

    def receipts_for(self, message: SyncStep2 | Update) -> Receipts:
        """An answer to whatever question holds all that was not taken before it. The first one after the provider has
        begun to count is counted; those to questions about what is missing are not."""
        if isinstance(message, Update):
            return [_OfCount(self, self._count)] if self._is_counted(message.update) else []
        receipts, self._owed = self._owed, []
        if self._handshake is not None:
            self._handshake = None
            receipts.append(_OfCount(self, self._count))
        return receipts

    def owe(self, receipts: Receipts) -> None:
        if len(self._owed) < OWED_MAX:
            self._owed.extend(receipts)

    def tell_saved_of(self, count: int, *, applied: bool) -> None:
        """As `tell_saved`, unless the provider has begun to count anew since."""
        if count == self._count:
            self.tell_saved(applied=applied)

    def _is_counted(self, update: bytes) -> bool:
        return self._handshake is None or self._handshake.counts(update, may_be_from_queue=self._may_be_from_queue)

    async def _begin_count(self, state_vector: bytes) -> None:
        self._count += 1
        self._owed.clear()
        is_large = len(state_vector) > conf().off_loop_bytes
        compute = self.room.hub.compute
        self._handshake = await compute(_Handshake, state_vector) if is_large else _Handshake(state_vector)

    # What its provider says

    async def take(self, frame: bytes, *, may_be_from_queue: bool = False) -> None:
        """Do what one frame says; `may_be_from_queue` where its provider may have written it before its socket was
        open. Raises: as `receive`."""
        self._may_be_from_queue = may_be_from_queue
        await self.receive(frame)

    def holds_one_update(self, frame: bytes) -> bool:
        return holds_one_update(frame)

    def decode(self, frame: bytes) -> Sequence[ClientMessage]:
        return [decode_message_of(frame)]

    async def _do(self, message: ClientMessage) -> None:
        match message:
            case SyncStep1(state_vector):
                await self.outbox.room_for_answers()
                await self._begin_count(state_vector)
                self.ask(self.room.sync_step1())
                await super()._do(message)
            case Stateless(payload):
                await inbox_of(self.room.hub).offer(Heard(self, payload))
            case SyncStep2() | Update() | Awareness() | QueryAwareness():
                await super()._do(message)
