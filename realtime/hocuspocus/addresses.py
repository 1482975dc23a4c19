"""What a Hocuspocus socket has at one address: frames that wait for a token, an admission under way, a document that is
open, or one that was.

What comes for one address is done in the order in which it came; what comes for others does not wait for its
admission."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from documents.conf import conf
from documents.credentials import Credential
from documents.tickets import TicketExpired, ticket_expiry
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing, closing_for
from realtime.entrance import enter, read_admission
from realtime.hocuspocus.connections import HocuspocusConnection
from realtime.hub import current_hub
from realtime.limits import TooManySockets
from realtime.protocols.hocuspocus import (
    HocuspocusWire,
    MessageType,
    Token,
    decode_message_of,
    document_name,
    is_sync_step1,
)
from realtime.rooms import Room

if TYPE_CHECKING:
    from realtime.hocuspocus.consumers import HocuspocusConsumer

TOKENS_ASKED_MAX = 2
"""How often a provider that comes with an expired ticket is asked for a fresh one before it is denied."""

OF_ONE_DOCUMENT = frozenset({CloseCode.SIGNED_OUT, CloseCode.NOT_ALLOWED, CloseCode.NO_SUCH_DOCUMENT})
"""What keeps a provider out of one document, and no other out of another."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    frame: bytes
    type: MessageType
    may_be_from_queue: bool


class Address:
    """One address of one socket. All methods run on the event loop."""

    def __init__(self, socket: "HocuspocusConsumer", address: str) -> None:
        self._socket = socket
        self._hub = current_hub()
        self._name = document_name(address)
        self._wire = HocuspocusWire(address)
        self.connection: HocuspocusConnection | None = None
        """The document, also once it has ended: what still comes of it may have to be kept."""
        self.is_over = False
        """Whether the provider was denied, has left or was sent away: it has to begin anew."""
        self._waiting: deque[_Waiting] = deque()
        self._tokens_asked = 0
        self._task: asyncio.Task[None] | None = None
        self._seats = self._hub.sockets.seats()
        self._timer = self._later(conf().token_seconds, self._give_up)
        self._brings_tokens = False
        self._began_before_a_word = False
        self._is_left = False

    @property
    def is_open(self) -> bool:
        return self.connection is not None and not self.connection.is_gone

    @property
    def is_at_rest(self) -> bool:
        """Whether it is over, and nothing of what has come for it is still to be done."""
        return self.is_over and self._task is None

    @property
    def credential(self) -> Credential | None:
        """Under which the document is open, or was."""
        return None if self.connection is None else self.connection.session.credential

    # What comes

    async def hear(self, frame: bytes, type_: MessageType) -> None:
        """Do what one frame says, or have it wait for the admission, which a token begins, or the SyncStep1 of one who
        brings no tokens: 2.15 sends none where it has none.

        Raises: Malformed, Closing; the socket is to be closed then."""
        if type_ is MessageType.CLOSE:
            decode_message_of(frame)
        says_step1, is_token = is_sync_step1(frame), type_ is MessageType.AUTH
        if says_step1:
            self._began_before_a_word = not self._socket.has_spoken
        self._brings_tokens |= is_token
        begins = is_token or (says_step1 and not self._brings_tokens)
        waiting = _Waiting(frame, type_, self._began_before_a_word and self._socket.has_spoken)
        if self._task is not None and (self.is_open or not self._socket.has_place_for(frame)):
            await asyncio.wait([self._task])
        if self._task is None and not is_token and (self.is_open or (self.is_over and not begins)):
            await self._do(waiting)
        elif self._task is None and type_ is MessageType.CLOSE:
            self._be_over()
            self._drop_waiting()
        else:
            self._wait(waiting, begins=begins)

    def _wait(self, waiting: _Waiting, *, begins: bool) -> None:
        if not (begins or self._socket.has_place_for(waiting.frame)):
            raise Closing(CloseCode.TRY_AGAIN, "too much was sent without a token")
        self._socket.queued(waiting.frame)
        self._waiting.append(waiting)
        if begins and self._task is None:
            self.is_over = self.is_over and self._brings_tokens
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._socket.closing is None and self._waiting:
                if self.is_open or self.is_over:
                    await self._do(self._next_waiting())
                elif (token := self._next_token()) is not None:
                    await self._admit(token)
                else:
                    return
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            raise
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception; all have a close code)
            self._socket.close_soon(closing_for(error))
        finally:
            self._task = None
            if self._is_left:
                self._end()

    def _next_token(self) -> str | None:
        """Take the first token out of what waits; the rest goes on waiting for it, but for what was closed before. An
        empty one of who brings none."""
        if not self._brings_tokens:
            return ""
        for waiting in list(self._waiting):
            if waiting.type is MessageType.AUTH:
                self._waiting.remove(waiting)
                self._socket.unqueued(waiting.frame)
                return _token_in(waiting.frame)
            if waiting.type is MessageType.CLOSE:
                self._be_over()
                while self._next_waiting() is not waiting:
                    pass
        return None

    def _next_waiting(self) -> _Waiting:
        waiting = self._waiting.popleft()
        self._socket.unqueued(waiting.frame)
        return waiting

    def _drop_waiting(self) -> None:
        while self._waiting:
            self._next_waiting()

    async def _do(self, waiting: _Waiting) -> None:
        if waiting.type is MessageType.AUTH:
            await self._admit(_token_in(waiting.frame))
        elif self.connection is None:
            pass
        elif self.connection.is_gone:
            await self.connection.receive_late(waiting.frame)
        elif waiting.type is MessageType.CLOSE:
            self._leave_document()
        else:
            await self.connection.take(waiting.frame, may_be_from_queue=waiting.may_be_from_queue)

    # The way in

    async def _admit(self, token: str) -> None:
        """A ticket decides, whatever else the socket came with; of any other text nothing is known here."""
        self.is_over = False
        expires_at = ticket_expiry(token)
        ticket = None if expires_at is None else token
        try:
            if self.connection is not None and self.is_open:
                await self._admit_again(self.connection, ticket)
            else:
                await self._enter(ticket)
        except TicketExpired as error:
            await self._want_token(closing_for(error).reason)
        except Exception as error:
            closing = closing_for(error)
            if closing.code not in OF_ONE_DOCUMENT and not isinstance(error, TooManySockets):
                raise
            await self._deny(closing.reason)
        else:
            self._tokens_asked = 0
            self._timer.cancel()
            if expires_at is not None:
                self._timer = self._later(expires_at - time.time(), self._ask_for_token)

    async def _enter(self, ticket: str | None) -> None:
        await enter(
            self._hub,
            self._socket.scope,
            self._name,
            via=self._socket.via,
            seats=self._seats,
            make_doc=partial(self._socket.make_ydoc, self._name),  # a room outlives this
            make_member=self._make_connection,
            ticket=ticket,
        )
        self._socket.has_let_in()

    def _make_connection(self, room: Room, user: Any, session: WriteSession) -> HocuspocusConnection:
        self._socket.has_spoken = True
        self.connection = HocuspocusConnection(
            room,
            user=user,
            session=session,
            wire=self._wire,
            send=self._socket.say,
            writer=self._socket.frame_writer(),
            close=self._ended,
        )
        return self.connection

    async def _admit_again(self, connection: HocuspocusConnection, ticket: str | None) -> None:
        """Take over what the same person has come with now; somebody else comes in anew."""
        began = self._hub.now()
        scope, via = self._socket.scope, self._socket.via
        user, session = await self._hub.load(read_admission, scope, self._name, via, ticket)
        if connection.is_gone or session.actor != connection.session.actor:
            connection.leave()
            self._seats.give_back()
            await self._enter(ticket)
            return
        connection.user, connection.session.credential = user, session.credential
        connection.session.admission = session.admission
        connection.tell_admitted()
        self._hub.rechecks.entered(connection, since=began)

    async def _want_token(self, reason: str) -> None:
        """Of an expired ticket: who is in stays in, and is looked at like everybody; others are asked for another."""
        if self.is_open:
            return
        if self._tokens_asked == TOKENS_ASKED_MAX:
            await self._deny(reason)
            return
        self._tokens_asked += 1
        self._timer.cancel()
        self._timer = self._later(conf().token_seconds, self._give_up)
        await self._socket.say(self._wire.encode_token_wanted())

    def _ask_for_token(self) -> None:
        """The ticket has expired by which the provider was let in: it is to have another when the network drops."""
        if self.is_open:
            self._socket.say_soon(self._wire.encode_token_wanted())

    # The way out

    async def _deny(self, reason: str) -> None:
        if self.is_open:
            self._leave_document()
        self._be_over()
        await self._socket.say(self._wire.encode_denied(reason))

    def _give_up(self) -> None:
        """No token has come in time."""
        if self._task is None and not self.is_open:
            self._be_over()
            self._drop_waiting()
            self._socket.say_soon(self._wire.encode_denied("no token came"))

    def _ended(self, closing: Closing) -> None:
        """The document has been left, for what concerns it alone, or for what takes the socket along: a provider comes
        again, and says again what it has, on a new socket alone."""
        is_signed_out = closing.code == CloseCode.SIGNED_OUT
        if closing.code in OF_ONE_DOCUMENT and not (is_signed_out and self._socket.is_under_no_other(self)):
            self._be_over()
            # In this order: 2.15 does not know the second, and has left the document at the first.
            self._socket.say_soon(self._wire.encode_denied(closing.reason))
            self._socket.say_soon(self._wire.encode_closed(closing.reason))
        else:
            self._socket.close_soon(closing)

    def _leave_document(self) -> None:
        self._be_over()
        if self.connection is not None:
            self.connection.leave()

    def _be_over(self) -> None:
        self.is_over = True
        self._timer.cancel()
        self._seats.give_back()

    def _later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0.0, seconds), act)

    def leave(self) -> None:
        """The socket is gone, or is closed. What it had sent by then is still done, unless the server closed it."""
        self._is_left = True
        if self._task is None:
            self._end()

    def _end(self) -> None:
        self._timer.cancel()
        self._seats.give_back()
        if self.connection is not None and not self.connection.is_gone:
            self.connection.leave()


def _token_in(frame: bytes) -> str:
    """Raises: Malformed."""
    message = decode_message_of(frame)
    return message.token if isinstance(message, Token) else ""
