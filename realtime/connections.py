"""A socket whose client speaks y-sync and awareness: what its messages do."""

import asyncio
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from documents.conf import conf
from history.crdt.updates import Id, MissingDependency
from history.fates import Reason
from history.refusals import ROW_COST
from realtime.closing import CloseCode, Closing
from realtime.commits import Receipts
from realtime.frames import SharedMessage
from realtime.members import Member
from realtime.protocols.frames import decode_frame, holds_one_update
from realtime.protocols.messages import Awareness, Message, QueryAwareness, Saved, SyncStep1, SyncStep2, Update
from realtime.rooms import Room

ASK_AGAIN_SECONDS = 5.0
"""A question that a client has not answered for so long is asked again when it sends what builds on the missing."""


class Connection(Member):
    """One socket in one room, under one session, whose client speaks y-sync."""

    def __init__(self, room: Room, **how: Any) -> None:
        super().__init__(room, **how)
        self._late_bytes_left = conf().sync_frame_bytes_max
        self._refused = 0
        self._asked: Id | None = None
        self._asked_at = 0.0
        self._answered: set[Id] = set()
        self._asked_before: set[type[Message]] = set()

    def greet(self) -> None:
        """Join the room, and send its state vector and who is there. Raises: Closing."""
        super().greet()
        self.ask(self.room.sync_step1())
        for message in self.room.presence():
            self.outbox.offer(message)

    def ask(self, question: SyncStep1) -> None:
        self.outbox.offer(SharedMessage(question))

    # What its client is told of its edits. A wire that does not say it keeps no receipts.

    def receipts_for(self, message: SyncStep2 | Update) -> Receipts:
        """For whom it is to be said what becomes of this message, as often as they stand here."""
        return ()

    def owe(self, receipts: Receipts) -> None:
        """These are due with the answer to the question that the client is asked: it holds what they are of."""

    def tell_saved(self, *, applied: bool) -> None:
        """Say of one of the client's edits that it is committed, or never will be."""
        if not self.is_gone:
            self.outbox.offer(SharedMessage(Saved(applied)))

    # What its client says

    def holds_one_update(self, frame: bytes) -> bool:
        """Whether a frame is an update and nothing else; costs the same however long it is."""
        return holds_one_update(frame)

    def decode(self, frame: bytes) -> Sequence[Any]:
        """What a frame says; also on a thread. Raises: Malformed."""
        return decode_frame(frame, messages_max=conf().messages_per_frame_max)

    async def receive(self, frame: bytes) -> None:
        """Do what one frame says; return when the next one may be read: later than at once for who sends too fast.

        Raises: Malformed, Closing; the socket is to be closed then."""
        messages = await self._decoded(frame)
        # Of questions that a frame asks more than once the last is answered: each answer may be the whole document.
        last_asked = {type(message): place for place, message in enumerate(messages)}
        for place, message in enumerate(messages):
            if place:
                await asyncio.sleep(0)  # many small things in one frame are no reason to let everybody else wait
            if self.is_gone:
                return await self._keep(messages[place:])
            if not isinstance(message, SyncStep1 | QueryAwareness) or last_asked[type(message)] == place:
                await self._do(message)
        if pause := self.pause(size=len(frame), messages=len(messages)):
            await asyncio.sleep(pause)

    async def receive_late(self, frame: bytes) -> None:
        """Keep what one frame edits that was under way when the socket was closed because a right had ended: its client
        stays away for good, and brings it no more. As much as one frame may hold, each update counted with what a row
        of its own would cost; what is not an update is nothing.

        Raises: Malformed, Closing; there is nothing left to close."""
        self._late_bytes_left -= len(frame)
        if self.has_lost_right and self._late_bytes_left >= 0:
            await self._keep(await self._decoded(frame))

    async def _decoded(self, frame: bytes) -> Sequence[Any]:
        limits = conf()
        size = len(frame)
        if size > limits.frame_bytes_max and (size > limits.sync_frame_bytes_max or not self.holds_one_update(frame)):
            raise Closing(CloseCode.TOO_LARGE, "the frame is too large")
        return self.decode(frame) if size <= limits.off_loop_bytes else await self.room.hub.compute(self.decode, frame)

    async def _keep(self, messages: Sequence[Message]) -> None:
        """Refuse what these say that is new, where it is because a right has ended that nothing else is done."""
        if self.has_lost_right:
            for message in messages:
                if not isinstance(message, SyncStep2 | Update):
                    continue
                self._late_bytes_left -= ROW_COST
                if self._late_bytes_left < 0:
                    return
                if await self.room.would_change(message.update):
                    self.refuse(message.update, Reason.NOT_ALLOWED)
                    await self.room.hub.refusals.room_for_more()

    async def _do(self, message: Message) -> None:
        match message:
            case SyncStep1(state_vector):
                await self.outbox.room_for_answers()
                self._answer([self.room.sync_step2(state_vector)], to=SyncStep1)
            case SyncStep2(update):
                self._has_answered()
                await self._write(update, may_ask=False, receipts=self.receipts_for(message))
            case Update(update):
                await self._write(update, may_ask=True, receipts=self.receipts_for(message))
            case Awareness(entries):
                self.room.hear(self, entries)
            case QueryAwareness():
                await self.outbox.room_for_answers()
                self._answer(self.room.presence(), to=QueryAwareness)

    async def _write(self, update: bytes, *, may_ask: bool, receipts: Receipts) -> None:
        refused_before = self._refused
        if self.may_write and (may_ask or self.room.judge.has_gate):
            await self.room.write(self, update, may_ask=may_ask, receipts=receipts)
        elif not await self.room.would_change(update):  # what comes with everybody who opens a document builds no gate
            self.room.nothing_new(receipts)
        elif self.may_write:
            await self.room.write(self, update, may_ask=may_ask, receipts=receipts)
        else:
            self.refuse(update, Reason.NOT_ALLOWED, receipts=receipts)
        if self._refused != refused_before:
            await self.room.hub.refusals.room_for_more()

    def _answer(self, messages: Iterable[SharedMessage], *, to: type[Message]) -> None:
        """Answer a question. Each but the first of its kind, which everybody asks who comes, costs what its answer has:
        encoding a document of 8 MB takes 60 ms, in which nobody else is served, and asking for it takes six bytes."""
        for message in messages:
            size = self.outbox.offer(message)
            if to in self._asked_before:
                self.charge(size)
        self._asked_before.add(to)

    def refuse(
        self,
        update: bytes,
        reason: Reason,
        *,
        clients: AbstractSet[int] = frozenset(),
        receipts: Receipts = (),
    ) -> None:
        self._refused += 1
        super().refuse(update, reason, clients=clients)
        for each in receipts:
            each.tell_saved(applied=False)

    def ask_for_missing(self, missing: MissingDependency, question: SyncStep1) -> bool:
        """Ask the client for what its last update builds on. Whether that, and all that it sends meanwhile, is in the
        answer to come; False when it has answered that question before and did not have it."""
        if self._is_asked():
            return True
        if self._lacks(missing):
            return False
        self._asked, self._asked_at = (missing.client, missing.clock), self.room.hub.now()
        self.ask(question)
        return True

    def is_worth_a_look(self, missing: MissingDependency) -> bool:
        """Whether the log may have what the client's update builds on: the first look finds all that anybody was shown,
        so not again while the client is to bring it, nor once it has answered without it."""
        return not self._is_asked() and not self._lacks(missing)

    def has_not(self, missing: MissingDependency) -> None:
        """The client has said all that it has beyond this document, and this was not in it."""
        if len(self._answered) < conf().asks_max:
            self._answered.add((missing.client, missing.clock))

    def _is_asked(self) -> bool:
        return self._asked is not None and self.room.hub.now() - self._asked_at < ASK_AGAIN_SECONDS

    def _lacks(self, missing: MissingDependency) -> bool:
        if self._answered:
            known = self.room.known()
            self._answered = {each for each in self._answered if each[1] >= known.get(each[0], 0)}
        return (missing.client, missing.clock) in self._answered or len(self._answered) >= conf().asks_max

    def _has_answered(self) -> None:
        if self._asked is not None:
            self._answered.add(self._asked)
            self._asked = None
