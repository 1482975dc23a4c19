"""A socket whose client has no CRDT: what it is shown, and how its edits become updates of the document."""

from collections.abc import Callable, Sequence
from functools import partial
from time import thread_time
from typing import Any, TypeVar

from pycrdt import Doc

from documents.conf import conf
from history.append import requested_seq
from history.crdt.editing import EditFailed, InsideCharacter, NotEditable, OutsideText, edited, kind_for, rewritten
from history.crdt.lib0 import Malformed
from history.crdt.roots import RootKind
from history.crdt.updates import MissingDependency
from history.errors import LogHole, NoSuchSeq
from history.fates import Reason, Refused, Stored
from history.models import Kind
from realtime.closing import closing_for
from realtime.collab.gatherings import Gathering
from realtime.collab.pens import Pen, Pens, fork, forks_of, state_at
from realtime.frames import SharedMessage
from realtime.members import Member
from realtime.message_errors import MessageRefused
from realtime.protocols.collab import DocumentEdit, Words
from realtime.protocols.messages import Said
from realtime.rooms import Room
from realtime.tails import Committed

R = TypeVar("R")

STEPS_ON_LOOP_MAX = 100
"""Of a delta that is made on the event loop, which takes a millisecond or two; 10,000 in one text take seconds, and to
compare whole content takes up to DIFF_SECONDS_MAX."""


LOOK_COST = 16 * 1024
"""Bytes that a look at the database counts for, which an edit needs that brings nothing."""


class EditRefused(MessageRefused):
    """Raised for an edit that is not in the log."""


class CollabMember(Member):
    """One socket in one room, for one field of its document. `scope` says within what the names of its edits are
    told apart, besides its account."""

    def __init__(
        self, room: Room, *, gathering: Gathering, field: str, scope: str, counts_tabs: bool, **how: Any
    ) -> None:
        super().__init__(room, **how)
        self.counts_tabs = counts_tabs
        self.gathering = gathering
        self.view = gathering.view(field)
        self._scope = scope
        self._pens = Pens()
        self._has_begun = False
        self._count: Words | None = None

    # What it is shown

    def say(self, words: Words) -> None:
        """Answer the client."""
        self.outbox.offer(SharedMessage(Said(words)))

    async def begin(self) -> None:
        """Send all that the field says, and from now on what changes. Raises: Closing."""
        whole, seq = await self.view.whole()
        if self.is_gone:
            return
        self.view.readers.add(self)
        self._has_begun = True
        self.outbox.offer(whole)
        self.outbox.seq = seq

    def deliver(self, message: SharedMessage, *, seq: int) -> None:
        """Send what all in the room are told; what y-sync and awareness say has no words here."""
        if self._has_begun:
            super().deliver(message, seq=seq)

    def deliver_event(self, message: SharedMessage) -> None:
        """As `deliver`, of what brings nothing of the document."""
        self.deliver(message, seq=self.view.seq)

    def show(self, rows: Sequence[Committed], message: SharedMessage, *, seq: int) -> None:
        self.gathering.note(rows)

    def take(self, change: SharedMessage | None, *, seq: int) -> None:
        """Show what has changed in the field up to a seq."""
        if change is None:
            self.outbox.skip(seq)
        else:
            self.deliver(change, seq=seq)

    def fail(self, error: BaseException) -> None:
        """The field cannot be read, which is no trouble of others in the room."""
        self._close(closing_for(error))

    def tell_count(self, people: int, tabs: int) -> None:
        """Say how many are in the room."""
        self._count = {"type": "user_count", "user_count": tabs if self.counts_tabs else people}
        self.deliver_event(SharedMessage(Said(self._count)))

    async def missed_since(self, seq: int) -> tuple[SharedMessage | None, int]:
        if self._count is not None:
            self.say(self._count)
        # What the whole holds is not to be told again behind it.
        self.view.readers.discard(self)
        whole, seq = await self.view.whole()
        if not self.is_gone:
            self.view.readers.add(self)
        return whole, seq

    def leave(self) -> None:
        super().leave()
        self.view.readers.discard(self)
        self._pens.put_away(forks_of(self.room.hub))

    # What it writes

    async def edit(self, edit: DocumentEdit) -> int:
        """Make an edit of the client's and return its seq once it is committed and shown; of one that changes nothing
        the seq that it was made on. One that comes again is not made again.

        Raises: EditRefused, Closing, HistoryError."""
        if not self.may_write:
            raise EditRefused("not_allowed", Reason.NOT_ALLOWED.value)
        key = None if edit.id is None else f"edit:{self._scope}:{edit.id}"
        seq = await self._made(edit, key)
        if edit.base is not None and seq < edit.base:  # not this edit, which cannot be older than its base
            raise EditRefused("used_id", f"another edit, of seq {seq}, had this id: give each its own")
        return seq

    async def _made(self, edit: DocumentEdit, key: str | None) -> int:
        """The seq of an edit that is made, or has been made under this key."""
        if key is not None and (seq := self.gathering.edits.get((self.session.actor, key))) is not None:
            return seq
        base = await self._base_of(edit)
        pen = self._pens.pick(base, forks_of(self.room.hub))
        try:
            await self._bring_to(pen, base)
            update = await self._edited(pen, edit)
            if update is None:
                return base if key is None else await self._known(key) or base
            return await self._written(pen, update, key)
        finally:
            if self.is_gone:
                self._pens.put_away(forks_of(self.room.hub))

    async def _base_of(self, edit: DocumentEdit) -> int:
        base = self.outbox.seq if edit.base is None else edit.base
        if base > self.room.seq:
            self.charge(LOOK_COST)
            await self.room.catch_up()  # it came from another process, which is ahead
        if base > self.room.seq:
            raise EditRefused("unknown_base", f"the document is at {self.room.seq}, not yet at {base}")
        return base

    async def _bring_to(self, pen: Pen, base: int) -> None:
        """Have the pen's fork be the document as of `base`."""
        room, hub = self.room, self.room.hub
        if pen.doc is not None and pen.generation == self.gathering.generation:
            updates = self.gathering.recent.between(pen.seq, base)
            if updates is None and base == room.seq:
                updates = [room.doc.get_update(pen.doc.get_state())]
            if updates is not None:
                pen.take_over(updates, base)
                return
        generation = self.gathering.generation
        if base == room.seq:
            state = room.doc.get_update()
        else:
            try:
                state = await hub.load(state_at, room.document_id, base)
            except (NoSuchSeq, LogHole):
                raise EditRefused("unknown_base", f"the document as it was at {base} is not there any more") from None
            self.charge(len(state))  # whoever always edits an old moment is read slower
        is_large = len(state) > conf().off_loop_bytes
        pen.doc = await hub.compute(fork, state, pen.client_id) if is_large else fork(state, pen.client_id)
        pen.seq, pen.generation = base, generation
        forks_of(hub).keep(pen, len(state))

    async def _edited(self, pen: Pen, edit: DocumentEdit) -> bytes | None:
        """The update that the edit is, on the fork; None where it changes nothing."""
        doc = pen.doc
        assert doc is not None
        forks_of(self.room.hub).touch(pen)
        took: list[float] = []
        work = partial(timed, took, _edit, doc, self.view.field, self.view.kind, edit)
        is_small = edit.steps is not None and len(edit.steps) <= STEPS_ON_LOOP_MAX
        is_large = self.room.stored_bytes > conf().off_loop_bytes or not is_small
        try:
            return await self.room.hub.compute(work) if is_large else work()
        except OutsideText as error:
            raise EditRefused("outside_text", str(error)) from None
        except InsideCharacter as error:
            raise EditRefused("inside_character", str(error)) from None
        except NotEditable as error:
            raise EditRefused("not_editable", str(error)) from None
        except EditFailed:
            forks_of(self.room.hub).drop(pen)
            raise EditRefused("refused", _NOT_TAKEN) from None
        finally:
            self.charge_time(sum(took))  # also of one that cannot be made

    async def _written(self, pen: Pen, update: bytes, key: str | None) -> int:
        """Write an update that the pen's fork holds; return its seq."""
        forks = forks_of(self.room.hub)
        if len(update) > conf().update_bytes_max:
            forks.drop(pen)
            raise EditRefused("too_large", Reason.TOO_LARGE.value)
        try:
            fate = await self.room.write_and_wait(self.session, update, kind=Kind.EDIT, request_key=key)
        except (Malformed, MissingDependency):
            forks.drop(pen)
            raise EditRefused("refused", _NOT_TAKEN) from None
        except BaseException:
            # It may be in the log: what is written next must not be under the same client id.
            self._pens.lose(pen)
            forks.drop(pen)
            raise
        if isinstance(fate, Stored) and not fate.repeated:
            pen.last_seq = fate.seq
        else:
            forks.drop(pen)  # it holds what is not in the log
        if isinstance(fate, Refused):
            if fate.reason is Reason.NOT_YOURS:
                self._pens.lose(pen)
            raise EditRefused(_CODES.get(fate.reason, "refused"), fate.reason.value)
        if fate is None:
            return pen.seq
        if fate.repeated:
            self.charge(self.room.stored_bytes)  # the gate is built anew for it
        if key is not None:
            self.gathering.remember(self.session.actor, key, fate.seq)
        if self.view.seq < fate.seq <= self.room.seq:
            self.charge_time(await self.view.tell())  # of a large field, now: what is acknowledged has been shown
        return fate.seq

    async def _known(self, key: str) -> int | None:
        """Where an edit of this name is in the log."""
        self.charge(LOOK_COST)
        return await self.room.hub.load(requested_seq, self.session, key)


_NOT_TAKEN = "the document does not take this edit"
_CODES = {Reason.NOT_ALLOWED: "not_allowed", Reason.FULL: "full", Reason.TOO_LARGE: "too_large"}


def timed(took: list[float], work: Callable[..., R], *args: Any) -> R:
    """Do some work, and add to `took` the seconds of processor time, whatever comes of it."""
    started = thread_time()
    try:
        return work(*args)
    finally:
        took.append(thread_time() - started)


def _edit(doc: "Doc[Any]", field: str, kind: RootKind | None, edit: DocumentEdit) -> bytes | None:
    """Edit a fork; return the update."""
    if edit.steps is not None:
        return edited(doc, field, kind or RootKind.TEXT, edit.steps)
    return rewritten(doc, field, kind or kind_for(edit.content), edit.content)
