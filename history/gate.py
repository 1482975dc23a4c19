"""The write gate of one document: the guard, and the intake document whose re-emission is what goes into the log.

Nothing reaches the log but through `take`, whoever made it. An apply that raises leaves the intake changed: the gate
is then thrown away and built anew from the log."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from pycrdt import Doc

from documents.conf import conf
from history.crdt.folding import emitted_by
from history.crdt.guard import Guard, Limits
from history.crdt.lib0 import Malformed
from history.crdt.splits import NO_SPLITS, Splits, with_splits
from history.folds import full_ydoc

MEASURED_SHARE = 64
"""A document that may be full is measured anew once it has grown by this share of DOCUMENT_BYTES_MAX."""


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


class DocumentFull(Exception):
    """Raised for new content above DOCUMENT_BYTES_MAX; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a gate made of an update: the bytes for the log, the clients under whose ids it brings new structs, and the
    characters of the document that it cuts in two, which the log must know of before it."""

    update: bytes
    clients: AbstractSet[int]
    splits: Splits = NO_SPLITS


@dataclass(slots=True, eq=False)
class Gate:
    """`seq` is the last committed seq that the intake holds; a room's also holds the updates that are in flight.

    `state_bytes` is how much the intake holds at most: what was measured, and all that came since."""

    intake: "Doc[Any]"
    guard: Guard
    epoch: int
    seq: int
    state_bytes: int
    measured_bytes: int

    @classmethod
    def load(cls, document_id: int) -> "Gate":
        """Build the gate of a document from its log. Reads the database; run it off the event loop."""
        folded = full_ydoc(document_id)
        state = folded.doc.get_update()
        guard = Guard.of(state, limits=_limits())
        return cls(folded.doc, guard, folded.epoch, folded.seq, state_bytes=len(state), measured_bytes=len(state))

    def take(self, update: bytes, *, reads_bytes_max: int | None = None) -> Taken | None:
        """Judge and apply one update; return what is to be logged, or None when it says nothing new.

        One that cuts a character in two needs a document that reads it so, which takes long where that is large.
        Raises: Malformed, MissingDependency, TakesLong (nothing has changed), DocumentFull, GateBroken."""
        verdict = self.guard.check(update)
        if verdict.clients and self._is_full():
            raise DocumentFull
        intake = self._intake_with(verdict.splits, reads_bytes_max)
        emitted = _apply(intake, with_splits(update, verdict.own_splits))
        if emitted is None and verdict.splits:
            return None  # nothing is logged, so nothing is split either: the intake that reads so is thrown away
        self.intake = intake
        self.state_bytes += len(emitted or b"")
        self.guard.commit(verdict)
        return None if emitted is None else Taken(emitted, verdict.clients, verdict.splits)

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
            emitted = _apply(self.intake, with_splits(update, verdict.own_splits | splits))
            self.state_bytes += len(emitted or b"")
            self.guard.commit(verdict)
            self.guard.forget(splits)
        self.seq = seq

    def _is_full(self) -> bool:
        bytes_max = conf().document_bytes_max
        if not bytes_max or self.state_bytes <= bytes_max:
            return False
        # A keystroke is 30 bytes in the log and one in the document; measuring takes too long to do it for each.
        if self.state_bytes - self.measured_bytes > bytes_max // MEASURED_SHARE:
            self.state_bytes = self.measured_bytes = len(self.intake.get_update())
        return self.state_bytes > bytes_max

    def _intake_with(self, splits: Splits, bytes_max: int | None) -> "Doc[Any]":
        """The intake that reads these characters as split: a new one where it holds any of them as they were."""
        if not splits:
            return self.intake
        held = self.intake.get_update()
        if bytes_max is not None and len(held) > bytes_max:
            raise TakesLong
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
