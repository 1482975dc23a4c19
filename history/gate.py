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
from history.crdt.updates import Id
from history.folds import full_ydoc

MEASURED_SHARE = 64
"""A document that may be full is measured anew once it has grown by this share of DOCUMENT_BYTES_MAX."""


def _limits() -> Limits:
    return Limits(
        roots=conf().document_roots_max,
        clients=conf().document_clients_max,
        update_parts=conf().update_structs_max,
    )


class GateBroken(Exception):
    """Raised when pycrdt failed on an update that the guard had let through: build a new gate."""


class DocumentFull(Exception):
    """Raised for new content above DOCUMENT_BYTES_MAX; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a gate made of an update: the bytes for the log, the clients under whose ids it brings new structs, and the
    (client, clock) of the low surrogates before which it cuts an emoji in two."""

    update: bytes
    clients: AbstractSet[int]
    splits: AbstractSet[Id] = frozenset()


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

    def take(self, update: bytes) -> Taken | None:
        """Judge and apply one update; return what is to be logged, or None when it says nothing new.

        Raises: Malformed (nothing has changed), MissingDependency (nothing has changed), DocumentFull, GateBroken."""
        verdict = self.guard.check(update)
        if verdict.clients and self._is_full():
            raise DocumentFull
        emitted = self._apply(update)
        self.guard.commit(verdict)
        return None if emitted is None else Taken(emitted, verdict.clients)

    def follow(self, seq: int, update: bytes, *, known: bool) -> None:
        """Take over a committed update, the last of which has `seq`; `known` ones are in the intake already.

        Raises: GateBroken."""
        if seq <= self.seq:
            return
        if not known:
            try:
                verdict = self.guard.check(update)
            except Malformed as error:
                raise GateBroken("the log holds what the guard refuses") from error
            self._apply(update)
            self.guard.commit(verdict)
        self.seq = seq

    def _is_full(self) -> bool:
        bytes_max = conf().document_bytes_max
        if not bytes_max or self.state_bytes <= bytes_max:
            return False
        # A keystroke is 30 bytes in the log and one in the document; measuring takes too long to do it for each.
        if self.state_bytes - self.measured_bytes > bytes_max // MEASURED_SHARE:
            self.state_bytes = self.measured_bytes = len(self.intake.get_update())
        return self.state_bytes > bytes_max

    def _apply(self, update: bytes) -> bytes | None:
        try:
            emitted = emitted_by(self.intake, update)
            self.state_bytes += len(emitted or b"")
            return emitted
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
            raise GateBroken(f"pycrdt failed on an update of {len(update)} bytes: {type(error).__name__}") from None
