"""The write gate of one document: the guard, and the intake document whose re-emission is what goes into the log.

Nothing reaches the log but through `take`, whoever made it. An apply that raises leaves the intake changed: the gate
is then thrown away and built anew from the log."""

from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

from pycrdt import Doc

from documents.conf import conf
from history.crdt.folding import emitted_by
from history.crdt.guard import Guard, Limits, Overfull, Verdict
from history.crdt.joining import CUTS_MIN, joined
from history.crdt.lib0 import Malformed
from history.crdt.order import Astray
from history.crdt.parts import part_of
from history.crdt.splits import NO_SPLITS, Splits, with_splits
from history.crdt.straightening import straightened
from history.crdt.updates import DeletedRange, decode_runs, decode_update
from history.fates import Base, Reason
from history.folds import full_ydoc
from history.models import Client
from history.sessions import WriteSession

MEASURED_SHARE = 64
"""A document that may be full is measured anew once it has grown by this share of DOCUMENT_BYTES_MAX."""


class NotTaken(Exception):
    """Raised for an update that the document does not take from this session, or not whole: `reason`, and where it is
    NOT_YOURS the `clients` that are somebody else's."""

    def __init__(self, reason: Reason, *, clients: AbstractSet[int] = frozenset()) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.clients = clients


def owners_of(document_id: int) -> dict[int, str]:
    """By client id of a document, the actor who first wrote under it; empty for nobody. Reads the database."""
    owners = Client.objects.filter(document_id=document_id).values_list("client_id", "actor")
    return dict(owners.iterator())


def _limits() -> Limits:
    return Limits(
        roots=conf().document_roots_max,
        clients=conf().document_clients_max,
        update_parts=conf().update_structs_max,
    )


class TakesLong(Exception):
    """Raised where a larger document than may be read here has to be read anew, character by character."""


class GateBroken(Exception):
    """Raised when pycrdt failed on an update that the guard had let through: build a new gate."""


def _nobody_is_present(client_id: int, session: WriteSession) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Taken:
    """What a gate made of an update: the bytes for the log, the clients under whose ids it brings new structs, the
    characters of the document that it cuts in two, which the log must know of before it, and the seconds of processor
    time that all this took."""

    update: bytes
    clients: AbstractSet[int]
    splits: Splits = NO_SPLITS
    cpu_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Gate:
    """`seq` is the last committed seq that the intake holds; a room's also holds the updates that are in flight.

    `owners`: by client id the actor who first wrote under it, as far as this process has heard; the append decides.
    `is_anothers` tells whether an id that no account has written under is of somebody else who is here with it.
    `base` is where it was loaded. `state_bytes` is how much the intake holds at most: what was measured, and all that
    came since."""

    intake: "Doc[Any]"
    guard: Guard
    owners: dict[int, str]
    epoch: int
    seq: int
    base: Base
    state_bytes: int
    measured_bytes: int
    is_anothers: Callable[[int, WriteSession], bool] = _nobody_is_present
    _counts: Counter[str] = field(init=False)
    """By actor, how many client ids of the document are theirs, as far as this process has heard."""

    def __post_init__(self) -> None:
        self._counts = Counter(self.owners.values())

    @classmethod
    def load(cls, document_id: int) -> "Gate":
        """Build the gate of a document from its log. Reads the database; run it off the event loop."""
        folded = full_ydoc(document_id)
        state = folded.doc.get_update()
        return cls(
            intake=folded.doc,
            guard=Guard.of(state, limits=_limits()),
            owners=owners_of(document_id),
            epoch=folded.epoch,
            seq=folded.seq,
            base=Base(folded.epoch, folded.seq, folded.hash),
            state_bytes=len(state),
            measured_bytes=len(state),
        )

    def take(self, update: bytes, session: WriteSession, *, reads_bytes_max: int | None = None) -> Taken | None:
        """Judge and apply one update of a session; return what is to be logged, or None when it says nothing new.

        One that cuts a character in two needs a document that reads it so, which takes long where that is large.
        Raises: Malformed, MissingDependency, NotTaken, TakesLong (nothing has changed then), GateBroken."""
        started = thread_time()
        try:
            update, verdict = self._judged(update)
        except Overfull:
            raise NotTaken(Reason.FULL) from None
        if foreign := self._foreign(verdict.clients, session):
            raise NotTaken(Reason.NOT_YOURS, clients=foreign)
        if verdict.clients and (self._is_full() or self._are_too_many(verdict.clients, session)):
            raise NotTaken(Reason.FULL)
        fresh = len(verdict.clients - self.guard.known.keys())
        intake = self._intake_with(verdict.splits, reads_bytes_max)
        emitted = _apply(intake, self._readable(update, verdict, verdict.own_splits))
        if emitted is None and verdict.splits:
            return None  # nothing is logged, so nothing is split either: the intake that reads so is thrown away
        self.intake = intake
        self.state_bytes += len(emitted or b"")
        if emitted is not None and self._cuts_much(verdict.update.deletes):
            # pycrdt writes ranges rising again, and everybody who folds the log is to be as quick as the intake was.
            emitted = joined(emitted, decoded=decode_runs(emitted))
        self.guard.commit(verdict)
        self._counts[session.actor] += fresh
        if emitted is None:
            return None
        return Taken(emitted, verdict.clients, verdict.splits, cpu_seconds=thread_time() - started)

    def _judged(self, update: bytes) -> tuple[bytes, Verdict]:
        """The guard's verdict, and what it is of: the update, straightened where it had to be. Raises: as `check`."""
        try:
            return update, self.guard.check(update)
        except Astray as astray:
            straight = straightened(update, astray.inserts)
        return straight, self.guard.check(straight)

    def part_of(self, update: bytes, session: WriteSession) -> bytes | None:
        """What `take` would take of an update that it does not take whole; None for nothing. Raises: Malformed."""
        clients = {struct.client for struct in decode_update(update).structs}
        without = clients if self._is_full() else self._foreign(clients, session)
        part = part_of(update, self.guard.known, without=without)
        if part is not None and self._would_overfill(part, session):
            return part_of(update, self.guard.known, without=clients)
        return part

    def claim(self, clients: AbstractSet[int], session: WriteSession) -> None:
        """Note whose client ids these are: an update under them is in the log."""
        if session.requires_role and not conf().relays:
            self.owners.update(dict.fromkeys(clients, session.actor))

    def _foreign(self, clients: AbstractSet[int], session: WriteSession) -> AbstractSet[int]:
        if session.may_relay:
            return frozenset()
        return {client for client in clients - session.claims if not self._may_write_under(client, session)}

    def _are_too_many(self, clients: AbstractSet[int], session: WriteSession) -> bool:
        """Whether these would give one person more client ids than they may have: they would use up everybody's."""
        fresh = clients - self.guard.known.keys()
        if not fresh or session.may_relay:
            return False
        return self._counts[session.actor] + len(fresh) > conf().document_clients_per_person_max

    def _would_overfill(self, update: bytes, session: WriteSession) -> bool:
        try:
            return self._are_too_many(self._judged(update)[1].clients, session)
        except Overfull:
            return True

    def _may_write_under(self, client: int, session: WriteSession) -> bool:
        owner = self.owners.get(client)
        return session.owns(owner) if owner else not self.is_anothers(client, session)

    def follow(
        self,
        seq: int,
        update: bytes,
        *,
        known: bool,
        splits: Splits = NO_SPLITS,
        reads_bytes_max: int | None = None,
    ) -> None:
        """Take over a committed update, the last of which has `seq`; `known` ones are in the intake already. `splits`
        are those that the log has right before it.

        Raises: GateBroken, TakesLong."""
        if seq <= self.seq:
            return
        if not known:
            try:
                verdict = self.guard.check(update)
            except Malformed as error:
                raise GateBroken("the log holds what the guard refuses") from error
            self.intake = self._intake_with(verdict.splits | splits, reads_bytes_max)
            emitted = _apply(self.intake, self._readable(update, verdict, verdict.own_splits | splits))
            self.state_bytes += len(emitted or b"")
            self.guard.commit(verdict)
            self.guard.forget(splits)
        self.seq = seq

    def _cuts_much(self, deletes: Sequence[DeletedRange]) -> bool:
        """Whether many deleted ranges are of what the document holds; an update's own text is emitted in pieces."""
        known = self.guard.known
        return len(deletes) >= CUTS_MIN and sum(each.clock < known.get(each.client, 0) for each in deletes) >= CUTS_MIN

    def _is_full(self) -> bool:
        bytes_max = conf().document_bytes_max
        if not bytes_max or self.state_bytes <= bytes_max:
            return False
        # A keystroke is 30 bytes in the log and one in the document; measuring takes too long to do it for each.
        if self.state_bytes - self.measured_bytes > bytes_max // MEASURED_SHARE:
            self.state_bytes = self.measured_bytes = len(self.intake.get_update())
        return self.state_bytes > bytes_max

    def _readable(self, update: bytes, verdict: Verdict, splits: Splits) -> bytes:
        """What pycrdt is given for an update that the guard has let through and not committed yet."""
        read = with_splits(update, splits)
        return joined(read, decoded=verdict.update if read is update else None, known=self.guard.known)

    def _intake_with(self, splits: Splits, bytes_max: int | None) -> "Doc[Any]":
        """The intake that reads these characters as split: a new one where it holds any of them as they were."""
        if not splits:
            return self.intake
        if bytes_max is not None and self.state_bytes > bytes_max:  # encoding it would take long itself
            raise TakesLong
        held = self.intake.get_update()
        read = with_splits(held, splits)
        if read is held:
            return self.intake
        intake: Doc[Any] = Doc(skip_gc=True)
        _apply(intake, read)
        return intake


def _apply(intake: "Doc[Any]", update: bytes) -> bytes | None:
    try:
        return emitted_by(intake, update)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
        raise GateBroken(f"pycrdt failed on an update of {len(update)} bytes: {type(error).__name__}") from None
