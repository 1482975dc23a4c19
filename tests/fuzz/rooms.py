"""A room without sockets and without a log: one input goes through it in the product's own order."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pycrdt import Doc

from history.crdt.content import trees_of
from history.crdt.folding import emitted_by
from history.crdt.guard import Guard
from history.crdt.idsets import delete_set_of
from history.crdt.lib0 import Malformed
from history.crdt.roots import root_kinds
from history.crdt.splits import with_splits
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import Id, MissingDependency, RefusedUpdate, Struct, decode_update
from history.fates import Base
from history.gate import Gate, GateBroken, NotTaken, Taken
from history.models import Via
from history.sessions import WriteSession
from realtime.protocols import frames, messages
from realtime.protocols.identities import Identity
from realtime.protocols.presence import AwarenessStates
from tests.fuzz.yjs import comparable


class Fate(Enum):
    """What became of one input."""

    ACCEPTED = "accepted"
    NOTHING_NEW = "nothing new"
    MALFORMED = "malformed"
    REFUSED = "refused"
    MISSING = "missing dependency"
    BROKEN = "broken: an ordinary exception of pycrdt, after which the gate is built anew"


# Whose client ids those are is asked elsewhere: here everybody may write under all of them.
_NOBODY = WriteSession(
    document_id=1, user=None, via=Via.WEBSOCKET, opened_at=datetime(2026, 1, 1, tzinfo=UTC), requires_role=False
)


class WrongError(Exception):
    """Raised when something else came out than may come out."""


class Room:
    """`rows` is its log, in order, and `splits` the characters that are cut in it. Without `guarded` what clients send
    goes into the documents as it is."""

    def __init__(self, *, guarded: bool = True) -> None:
        self.guarded = guarded
        self.rows: list[bytes] = []
        self.splits: set[Id] = set()
        self._structs: list[Struct] = []
        self._rows_read = 0
        self.broken_by = ""
        self.awareness = AwarenessStates()
        self.gate = self._new_gate()
        self.served: Doc[Any] = Doc()

    def _new_gate(self) -> Gate:
        """As `Gate.load` makes it of a log."""
        intake: Doc[Any] = Doc(skip_gc=True)
        for row in self.rows:
            self._call("a row", intake.apply_update, with_splits(row, self.splits))
        state = intake.get_update()
        guard = Guard.of(state)
        return Gate(
            intake, guard, owners={}, epoch=1, seq=0, base=Base(1, 0), state_bytes=len(state), measured_bytes=len(state)
        )

    @property
    def known(self) -> dict[int, int]:
        return self.gate.guard._facts.known

    @property
    def structs(self) -> list[Struct]:
        """Of its log. Read when asked for: whoever measures what an input costs pays nothing for it."""
        if self.guarded:
            for row in self.rows[self._rows_read :]:
                self._structs += self._call("what was emitted", decode_update, row).structs
            self._rows_read = len(self.rows)
        return self._structs

    def hear(self, frame: bytes, *, owner: int) -> Fate:
        """Take one frame of a client. Raises: WrongError for anything that may not happen, PanicException included."""
        try:
            said = self._call("decode_frame", frames.decode_frame, frame)
        except Malformed:
            return Fate.MALFORMED
        fate = Fate.NOTHING_NEW
        for message in said:
            match message:
                case messages.SyncStep1(state_vector):
                    self._call("get_update", self.served.get_update, state_vector)
                case messages.SyncStep2(update) | messages.Update(update):
                    fate = self.take(update)
                    if fate in (Fate.MALFORMED, Fate.REFUSED, Fate.BROKEN):
                        return fate  # its socket is closed
                case messages.Awareness(entries):
                    self._call("awareness", self._show, entries, owner)
                case messages.QueryAwareness():
                    self._call("awareness", frames.encode_awareness, self.awareness.entries())
        return fate

    def _show(self, entries: Any, owner: int) -> None:
        identity = Identity(user=str(owner), name=f"person {owner}")
        changes = self.awareness.hear(entries, owner=owner, identity=identity, now=0.0, owned_max=16)
        frames.decode_frame(frames.encode_awareness(changes.broadcast))

    def take(self, update: bytes) -> Fate:
        """Put an update through the gate, and what comes out into the served document and the log."""
        if not self.guarded:
            try:
                emitted = emitted_by(self.gate.intake, update)
            except Exception:  # noqa: BLE001  (what pycrdt may raise is not said anywhere)
                return Fate.BROKEN
            except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
                raise _wrong("apply", error) from None
            return Fate.NOTHING_NEW if emitted is None else self._serve(Taken(emitted, frozenset()))
        try:
            taken = self._call("the gate", self.gate.take, update, _NOBODY)
        except (RefusedUpdate, NotTaken):  # the latter where there is no place for more roots or client ids
            return Fate.REFUSED
        except Malformed:
            return Fate.MALFORMED
        except MissingDependency:
            return Fate.MISSING
        except GateBroken as error:
            if "PanicException" in str(error):
                raise _wrong("the gate", error) from None
            self.broken_by = str(error.__context__)[:100]
            self.gate = self._new_gate()
            return Fate.BROKEN
        if taken is None:
            return Fate.NOTHING_NEW
        return self._serve(taken)

    def _serve(self, taken: Taken) -> Fate:
        if taken.splits:
            read = with_splits(self.served.get_update(), taken.splits)
            self.served = Doc()
            self._call("the served document", self.served.apply_update, read)
            self.splits |= taken.splits
        self._call("the served document", self.served.apply_update, taken.update)
        self.rows.append(taken.update)
        return Fate.ACCEPTED

    def _call(self, where: str, what: Callable[..., Any], *given: Any) -> Any:
        try:
            return what(*given)
        except (Malformed, MissingDependency, NotTaken, GateBroken, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
            raise _wrong(where, error) from None

    def fingerprint(self) -> tuple[Any, ...]:
        """All that an input may change."""
        facts = self.gate.guard._facts
        return (
            self.gate.intake.get_state(),
            delete_set_of(self.gate.intake),
            self.served.get_state(),
            len(self.rows),
            dict(facts.known),
            {client: (list(runs.starts), list(runs.values)) for client, runs in facts.places.items()},
            dict(facts.sequences),
            dict(facts.depths),
            {client: list(spans) for client, spans in facts.collected.items()},
            {client: set(clocks) for client, clocks in facts.low_surrogates.items()},
            set(facts.roots),
            set(facts.keyed),
            {client: list(starts) for client, (starts, _) in facts.branches.by_client.items()},
            deepcopy(facts.branches.children),
        )

    def reading(self) -> dict[str, Any]:
        """What Yjs must read too: {rows, snapshot, kinds} to be told, {trees, state_vector} to be read.

        Raises: WrongError when the documents of this room differ among themselves or its snapshot does not load."""
        try:
            return self._reading()
        except WrongError:
            raise
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
            raise _wrong("reading", error) from None

    def _reading(self) -> dict[str, Any]:
        intake = self.gate.intake
        snapshot = self.served.get_update()
        kinds = root_kinds(intake.get_update())
        loaded: Doc[Any] = Doc()
        loaded.apply_update(snapshot)
        readings = [(trees_of(doc, kinds), _clocks(doc)) for doc in (self.served, intake, loaded)]
        if self.guarded and (_clocks(intake) != self.known or Guard.of(snapshot)._facts.known != self.known):
            raise WrongError("the guard knows another state vector than the document")
        names = ("served", "intake", "loaded")
        for name, reading in zip(names, readings, strict=True):
            if (comparable(reading[0]), reading[1]) != (comparable(readings[0][0]), readings[0][1]):
                raise WrongError(f"the {name} document differs from the served one")
        return {
            "told": {
                "rows": [row.hex() for row in self.rows],
                "snapshot": snapshot.hex(),
                "kinds": {name: kind.value for name, kind in kinds.items()},
            },
            "trees": comparable(readings[0][0]),
            "state_vector": readings[0][1],
        }


def _clocks(doc: Doc[Any]) -> dict[int, int]:
    return decode_state_vector(doc.get_state())


def _wrong(where: str, error: BaseException) -> WrongError:
    return WrongError(f"{where}: {type(error).__name__}: {str(error)[:200]}")
