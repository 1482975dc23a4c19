"""One socket in one room: what it is sent, what it may do and how fast, and how it ends.

Knows neither the WebSocket (a consumer brings frames and takes payloads) nor what its client says: subclasses do."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from documents.conf import conf
from documents.roles import Admission
from history.fates import Reason
from history.refusals import CLIENTS_NOTED_MAX, RefusedUpdate
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing, closing_for, ended_right
from realtime.frames import FrameWriter, SharedMessage
from realtime.identities import identity_of
from realtime.limits import TokenBucket
from realtime.outbox import Outbox
from realtime.protocols.messages import PermissionDenied, SyncStep1, Wire
from realtime.rooms import Room
from realtime.tails import Committed

logger = logging.getLogger(__name__)


class Member:
    """One socket in one room, under one session, spoken to over one wire."""

    def __init__(
        self,
        room: Room,
        *,
        user: Any,
        session: WriteSession,
        wire: Wire,
        send: Callable[[bytes], Awaitable[None]],
        writer: FrameWriter | None,
        close: Callable[[Closing], None],
    ) -> None:
        self.room = room
        self.user = user
        self.session = session
        self.identity = identity_of(session.user)
        self._close = close
        self.is_gone = False
        self.has_lost_right = False
        now = room.hub.now()
        self._updates_left = TokenBucket(rate=conf().updates_per_second, burst=conf().updates_burst, now=now)
        self._bytes_left = TokenBucket(rate=conf().bytes_per_second, burst=conf().bytes_burst, now=now)
        self.outbox = Outbox(
            wire=wire,
            send=send,
            writer=writer,
            missed_since=self.missed_since,
            failed=lambda error: close(closing_for(error)),
            bytes_max=conf().outbox_bytes_max,
        )

    # Coming and going

    def greet(self) -> None:
        """Join the room. Raises: Closing."""
        if self.room.closed:
            raise Closing(CloseCode.TRY_AGAIN, "the room was closed")
        self.room.join(self)

    def leave(self) -> None:
        self.is_gone = True
        self.room.leave(self)
        self.outbox.close()

    def close(self, closing: Closing) -> None:
        """From this moment on the socket is shown nothing, whenever its client takes the close."""
        self.leave()
        self._close(closing)

    # What it is sent

    def deliver(self, message: SharedMessage, *, seq: int) -> None:
        """Send what the whole room is sent."""
        self.outbox.offer(message, seq=seq)

    def show(self, rows: Sequence[Committed], message: SharedMessage, *, seq: int) -> None:
        """Show committed rows, up to `seq`, which the room's document has by now; `message` brings them as one
        update."""
        self.deliver(message, seq=seq)

    def ask(self, question: SyncStep1) -> None:
        """Ask the client for what it has beyond this. Raises nothing: one that cannot be asked is passed over."""

    async def missed_since(self, seq: int) -> tuple[SharedMessage | None, int]:
        """What brings this socket, which was too slow, from a seq to the room's present, and the seq it then has."""
        return await self.room.missed_since(seq)

    async def written(self) -> None:
        """Wait until nothing waits to be sent."""
        await self.outbox.written()

    # What it may do

    @property
    def may_write(self) -> bool:
        return self.session.admission.may_write

    def readmit(self, admission: Admission) -> None:
        """Take over what the user may do now; without any right the socket is closed."""
        could_write, self.session.admission = self.may_write, admission
        self.has_lost_right = not admission.signed_in or admission.role is None
        closing = ended_right(admission)
        if closing is not None:
            self.close(closing)
        elif could_write != admission.may_write:
            self.role_changed()

    def role_changed(self) -> None:
        """Tell the client that it may write from now on, or no longer."""
        if not self.may_write:
            self.tell(Reason.NOT_ALLOWED)

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
        refused = RefusedUpdate(session=self.session, update=update, reason=reason, clients=clients)
        self.room.hub.refusals.offer(refused, self)
        self.tell(reason)

    def tell(self, reason: Reason) -> None:
        self.outbox.offer(SharedMessage(PermissionDenied(reason.value)))

    # How fast

    def charge(self, size: int) -> None:
        """Count what a message costs as so many bytes that the socket sent: it is read on when they are paid for."""
        self._bytes_left.take(size, now=self.room.hub.now())

    def charge_time(self, cpu_seconds: float) -> None:
        """Count processor time as so many bytes: some edits cost yrs time that grows with the text that they are in."""
        if conf().cpu_percent_per_socket:
            self.charge(round(cpu_seconds * conf().bytes_per_second * 100 / conf().cpu_percent_per_socket))

    def pause(self, *, size: int, messages: int) -> float:
        """Count a frame of so many bytes and messages; return the seconds until the next one may be read."""
        now = self.room.hub.now()
        return max(self._bytes_left.take(size, now=now), self._updates_left.take(messages, now=now))
