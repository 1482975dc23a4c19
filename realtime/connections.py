"""One socket in one room: what its messages do, and what it is sent.

Knows the messages of y-sync and awareness, not the WebSocket: the consumer brings frames and takes payloads."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from documents.conf import conf
from documents.roles import Admission
from history.crdt.updates import Id, MissingDependency
from history.fates import Reason
from history.refusals import CLIENTS_NOTED_MAX, ROW_COST, RefusedUpdate
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing, closing_for
from realtime.frames import FrameWriter, SharedMessage
from realtime.identities import identity_of
from realtime.limits import TokenBucket
from realtime.outbox import Outbox
from realtime.protocols.frames import (
    Awareness,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode_frame,
    encode_permission_denied,
    holds_one_update,
)
from realtime.rooms import Room

logger = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 5.0
"""A question that a client has not answered for so long is asked again when it sends what builds on the missing."""


class Connection:
    """One socket in one room, under one session."""

    def __init__(
        self,
        room: Room,
        *,
        user: Any,
        session: WriteSession,
        send: Callable[[bytes], Awaitable[None]],
        writer: FrameWriter | None,
        close: Callable[[Closing], None],
    ) -> None:
        self.room = room
        self.user = user
        self.session = session
        self.identity = identity_of(session.user)
        self._close = close
        self._is_gone = False
        self._has_lost_right = False
        self._late_bytes_left = conf().sync_frame_bytes_max
        self._refused = 0
        self._asked: Id | None = None
        self._asked_at = 0.0
        self._answered: set[Id] = set()
        self._asked_before: set[type[Message]] = set()
        now = room.hub.now()
        self._updates_left = TokenBucket(rate=conf().updates_per_second, burst=conf().updates_burst, now=now)
        self._bytes_left = TokenBucket(rate=conf().bytes_per_second, burst=conf().bytes_burst, now=now)
        self.outbox = Outbox(
            send=send,
            writer=writer,
            missed_since=room.missed_since,
            failed=lambda error: close(closing_for(error)),
            bytes_max=conf().outbox_bytes_max,
        )

    def greet(self) -> None:
        """Join the room, and send its state vector and who is there. Raises: Closing."""
        if self.room.closed:
            raise Closing(CloseCode.TRY_AGAIN, "the room was closed")
        self.room.join(self)
        for message in self.room.greeting():
            self.outbox.offer(message)

    def leave(self) -> None:
        self._is_gone = True
        self.room.leave(self)
        self.outbox.close()

    def close(self, closing: Closing) -> None:
        """From this moment on the socket is shown nothing, whenever its client takes the close."""
        self.leave()
        self._close(closing)

    def deliver(self, message: SharedMessage, *, seq: int) -> None:
        """Send what the whole room is sent."""
        self.outbox.offer(message, seq=seq)

    async def receive(self, frame: bytes) -> None:
        """Do what one frame says; return when the next one may be read: later than at once for who sends too fast.

        Raises: Malformed, Closing; the socket is to be closed then."""
        messages = await self._decoded(frame)
        # Of questions that a frame asks more than once the last is answered: each answer may be the whole document.
        last_asked = {type(message): place for place, message in enumerate(messages)}
        for place, message in enumerate(messages):
            if place:
                await asyncio.sleep(0)  # many small things in one frame are no reason to let everybody else wait
            if self._is_gone:
                return await self._keep(messages[place:])
            if not isinstance(message, SyncStep1 | QueryAwareness) or last_asked[type(message)] == place:
                await self._do(message)
        await self._paced(frame, messages)

    async def receive_late(self, frame: bytes) -> None:
        """Keep what one frame edits that was under way when the socket was closed because a right had ended: its client
        stays away for good, and brings it no more. As much as one frame may hold, each update counted with what a row
        of its own would cost; what is not an update is nothing.

        Raises: Malformed, Closing; there is nothing left to close."""
        self._late_bytes_left -= len(frame)
        if self._has_lost_right and self._late_bytes_left >= 0:
            await self._keep(await self._decoded(frame))

    async def _decoded(self, frame: bytes) -> Sequence[Message]:
        limits = conf()
        size = len(frame)
        if size > limits.frame_bytes_max and (size > limits.sync_frame_bytes_max or not holds_one_update(frame)):
            raise Closing(CloseCode.TOO_LARGE, "the frame is too large")
        if size <= limits.off_loop_bytes:
            return decode_frame(frame, messages_max=limits.messages_per_frame_max)
        return await self.room.hub.compute(decode_frame, frame, messages_max=limits.messages_per_frame_max)

    async def _keep(self, messages: Sequence[Message]) -> None:
        """Refuse what these say that is new, where it is because a right has ended that nothing else is done."""
        if self._has_lost_right:
            for message in messages:
                if not isinstance(message, SyncStep2 | Update):
                    continue
                self._late_bytes_left -= ROW_COST
                if self._late_bytes_left < 0:
                    return
                if await self.room.would_change(message.update):
                    self.refuse(message.update, Reason.NOT_ALLOWED)
                    await self.room.hub.refusals.room_for_more()

    def charge(self, size: int) -> None:
        """Count what a message costs as so many bytes that the socket sent: it is read on when they are paid for."""
        self._bytes_left.take(size, now=self.room.hub.now())

    def charge_time(self, cpu_seconds: float) -> None:
        """Count processor time as so many bytes: some edits cost yrs time that grows with the text that they are in."""
        if conf().cpu_percent_per_socket:
            self.charge(round(cpu_seconds * conf().bytes_per_second * 100 / conf().cpu_percent_per_socket))

    async def _paced(self, frame: bytes, messages: Sequence[Message]) -> None:
        now = self.room.hub.now()
        pause = max(self._bytes_left.take(len(frame), now=now), self._updates_left.take(len(messages), now=now))
        if pause:
            await asyncio.sleep(pause)

    async def _do(self, message: Message) -> None:
        match message:
            case SyncStep1(state_vector):
                await self.outbox.room_for_answers()
                self._answer([self.room.sync_step2(state_vector)], to=SyncStep1)
            case SyncStep2(update):
                self._has_answered()
                await self._write(update, may_ask=False)
            case Update(update):
                await self._write(update, may_ask=True)
            case Awareness(entries):
                self.room.hear(self, entries)
            case QueryAwareness():
                await self.outbox.room_for_answers()
                self._answer(self.room.presence(), to=QueryAwareness)

    async def _write(self, update: bytes, *, may_ask: bool) -> None:
        refused_before = self._refused
        if self.may_write and (may_ask or self.room.judge.has_gate):
            await self.room.write(self, update, may_ask=may_ask)
        elif await self.room.would_change(update):  # what comes with everybody who opens a document builds no gate
            if self.may_write:
                await self.room.write(self, update, may_ask=may_ask)
            else:
                self.refuse(update, Reason.NOT_ALLOWED)
        if self._refused != refused_before:
            await self.room.hub.refusals.room_for_more()

    def _answer(self, messages: Iterable[SharedMessage], *, to: type[Message]) -> None:
        """Answer a question. Each but the first of its kind, which everybody asks who comes, costs what its answer has:
        encoding a document of 8 MB takes 60 ms, in which nobody else is served, and asking for it takes six bytes."""
        for message in messages:
            self.outbox.offer(message)
            if to in self._asked_before:
                self.charge(len(message.payload))
        self._asked_before.add(to)

    def refuse(self, update: bytes, reason: Reason, *, clients: AbstractSet[int] = frozenset()) -> None:
        """Tell the client that an update was not taken, or not whole, and keep it where it can be fetched. The socket
        stays: editors emit an update on loading. `clients`: those because of whom it was refused."""
        logger.info(
            "update refused: document=%s session=%s reason=%s clients=%s",
            self.session.document_id,
            self.session.id,
            reason.name,
            sorted(clients)[:CLIENTS_NOTED_MAX],
        )
        self._refused += 1
        refused = RefusedUpdate(session=self.session, update=update, reason=reason, clients=clients)
        self.room.hub.refusals.offer(refused, self)
        self.tell(reason)

    def tell(self, reason: Reason) -> None:
        self.outbox.offer(SharedMessage(encode_permission_denied(reason.value)))

    def ask_for_missing(self, missing: MissingDependency, sync_step1: bytes) -> bool:
        """Ask the client for what its last update builds on. Whether that, and all that it sends meanwhile, is in the
        answer to come; False when it has answered that question before and did not have it."""
        if self._is_asked():
            return True
        if self._lacks(missing):
            return False
        self._asked, self._asked_at = (missing.client, missing.clock), self.room.hub.now()
        self.outbox.offer(SharedMessage(sync_step1))
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

    def readmit(self, admission: Admission) -> None:
        """Take over what the user may do now; without any right the socket is closed."""
        could_write, self.session.admission = self.may_write, admission
        self._has_lost_right = not admission.signed_in or admission.role is None
        if not admission.signed_in:
            self.close(Closing(CloseCode.SIGNED_OUT, "you are no longer signed in"))
        elif admission.role is None:
            self.close(Closing(CloseCode.NOT_ALLOWED, "you may no longer see this document"))
        elif could_write and not admission.may_write:
            self.tell(Reason.NOT_ALLOWED)

    @property
    def may_write(self) -> bool:
        return self.session.admission.may_write
