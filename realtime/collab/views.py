"""One field of a room's document, as clients without a CRDT are told of it.

What changed is found once for each batch of rows, and encoded once for all sockets that are told alike. Large
documents are read on a thread: an array of 20,000 items takes pycrdt seconds."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import thread_time
from typing import Any, Protocol

from pycrdt import Doc

from documents.conf import conf
from history.crdt.changes import compared
from history.crdt.content import canonical_json, is_same, readable, root_trees
from history.crdt.delta import delta_between, plain_text
from history.crdt.roots import RootKind, root_kinds
from realtime.closing import closing_for
from realtime.frames import SharedMessage
from realtime.protocols.collab import person
from realtime.protocols.identities import Identity
from realtime.protocols.messages import Said
from realtime.rooms import Room
from realtime.tails import Committed

AUTHORS_TOLD_MAX = 16
"""Of one change: the last ones."""

_NOTHING: Any = {"type": "text", "delta": []}
"""What a root says that is not there."""

COMPARED_AT_ONCE_SECONDS = 0.005
"""What takes longer to read and compare is told that much later, LATER_TIMES: it is at most a tenth of a processor's
time, of megabytes of text too."""
LATER_TIMES = 9

PLAIN_RUNS_MAX = 100
"""Runs of one format in a text that is read on the event loop however long it is: 0.3 ms for 105,000 characters of a
recorded session, 1 ms for a million; it is compared on a thread all the same."""


class Reader(Protocol):
    """Who is told of a field."""

    def take(self, change: SharedMessage | None, *, seq: int) -> None:
        """Show what has changed up to `seq`; None for nothing."""

    def fail(self, error: BaseException) -> None:
        """It cannot be told any more."""


class FieldView:
    """A root of the document at `seq`, -1 until it was read. `kind` is None as long as nothing is in it."""

    def __init__(self, room: Room, field: str) -> None:
        self._room = room
        self.field = field
        self.kind: RootKind | None = None
        self.readers: set[Reader] = set()
        self._authors: dict[Identity, None] = {}
        self._tree: Any = _NOTHING
        self._whole: SharedMessage | None = None
        self._turn = asyncio.Lock()
        self._due_at = 0.0
        self._is_due = False
        self.seq = -1

    async def whole(self) -> tuple[SharedMessage, int]:
        """All that the field says, which replaces what a client has, and as of which seq. Who becomes a reader right
        then is told of all that follows. Raises: Closing."""
        async with self._turn:
            if self.seq != self._room.seq:
                try:
                    await self._read()
                except _NOT_ITS_TROUBLE:
                    raise
                except BaseException as error:
                    raise closing_for(error) from error
            if self._whole is None:
                said = {"type": "document_update", "content": _content_of(self._tree), "editor": None, "seq": self.seq}
                self._whole = SharedMessage(Said({**said, "delta": None}))
            return self._whole, self.seq

    def note(self, rows: Sequence[Committed]) -> None:
        """The room has taken over these rows: tell what they changed, now or, of a large field, a little later."""
        for author in (author for row in rows for author in row.authors):
            self._authors.pop(author, None)  # the last one stands last
            self._authors[author] = None
        pause = self._due_at - self._room.hub.now()
        if pause <= 0 and not self._is_large and not self._turn.locked():
            self._read_here()
        elif not self._is_due:
            self._is_due = True
            self._room.hub.spawn(self._tell_later(pause))

    async def tell(self) -> float:
        """Tell all readers what has changed since they were last told; return the seconds of processor time that this
        took."""
        async with self._turn:
            if self.seq == self._room.seq:
                return 0.0
            try:
                return await self._read()
            except _NOT_ITS_TROUBLE:
                raise
            except BaseException:  # noqa: BLE001  (pyo3's PanicException is no Exception; the readers were told)
                return 0.0

    async def _tell_later(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))
        self._is_due = False
        if not self._room.closed:
            await self.tell()

    @property
    def _is_large(self) -> bool:
        return self._room.stored_bytes > conf().off_loop_bytes

    @property
    def _is_plain(self) -> bool:
        return self.kind is RootKind.TEXT and len(self._tree["delta"]) <= PLAIN_RUNS_MAX

    def _read_here(self) -> None:
        try:
            seq, authors = self._begin_to_read()
            self._take_over(_reading(self._room.doc, self.field, self.kind, self._tree), seq, authors)
        except _NOT_ITS_TROUBLE:
            raise
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
            self._fail(error)

    async def _read(self) -> float:
        """Read the field anew and tell the readers; whoever asks has the turn. Raises what pycrdt raises, after the
        readers were told of it."""
        room, (seq, authors) = self._room, self._begin_to_read()
        try:
            if self._is_large and self._is_plain:
                # A thread would need the document encoded, which takes longer than to read this.
                tree = _tree_of(room.doc, self.field, RootKind.TEXT)
                reading = await room.hub.compute(_reading_of_tree, tree, self.field, RootKind.TEXT, self._tree)
            elif self._is_large:
                # The document belongs to the event loop: a thread reads one of its own.
                state = room.doc.get_update()
                reading = await room.hub.compute(_reading_of_state, state, self.field, self.kind, self._tree)
            else:
                reading = _reading(room.doc, self.field, self.kind, self._tree)
        except _NOT_ITS_TROUBLE:
            raise
        except BaseException as error:
            self._fail(error)
            raise
        self._take_over(reading, seq, authors)
        return reading.cpu_seconds

    def _begin_to_read(self) -> tuple[int, list[Identity]]:
        """What is read is as of this seq, and of these authors since the last time."""
        authors, self._authors = list(self._authors)[-AUTHORS_TOLD_MAX:], {}
        return self._room.seq, authors

    def _take_over(self, reading: "_Reading", seq: int, authors: Sequence[Identity]) -> None:
        self._whole = None
        self.kind, self._tree, self.seq = reading.kind, reading.tree, seq
        took = reading.cpu_seconds
        self._due_at = self._room.hub.now() + (LATER_TIMES * took if took > COMPARED_AT_ONCE_SECONDS else 0)
        message = None if reading.change is None else reading.change.told(seq, authors)
        for reader in tuple(self.readers):
            reader.take(message, seq=seq)

    def _fail(self, error: BaseException) -> None:
        for reader in tuple(self.readers):
            reader.fail(error)


_NOT_ITS_TROUBLE = (KeyboardInterrupt, SystemExit, asyncio.CancelledError)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a field says by now. `delta` is None where it has become another kind of thing, or is told whole; content
    that `is_long` is left out where there is a delta."""

    content: Any
    delta: Any
    is_long: bool

    def told(self, seq: int, authors: Sequence[Identity]) -> SharedMessage:
        editor = person(authors[-1]) if authors else None
        said: dict[str, Any] = {"type": "document_update", "content": self.content, "editor": editor, "seq": seq}
        if len(authors) > 1:
            said["editors"] = [person(each) for each in authors]
        said["delta"] = self.delta
        if self.delta is None:
            return SharedMessage(Said(said))
        brief = {name: each for name, each in said.items() if name != "content"}
        return SharedMessage(Said(brief if self.is_long else said, brief))


@dataclass(frozen=True, slots=True)
class _Reading:
    """A field as it was read. As long as it holds nothing, its kind is None and may be another one the next time."""

    kind: RootKind | None
    tree: Any
    change: _Change | None
    cpu_seconds: float


def _reading_of_state(state: bytes, field: str, kind: RootKind | None, before: Any) -> _Reading:
    started = thread_time()
    doc: Doc[Any] = Doc()
    doc.apply_update(state)
    reading = _reading(doc, field, kind, before)
    return replace(reading, cpu_seconds=thread_time() - started)


def _reading(doc: "Doc[Any]", field: str, kind: RootKind | None, before: Any) -> _Reading:
    started = thread_time()
    if kind is None and field in doc.keys():  # noqa: SIM118  (a Doc has no `in`)
        kind = root_kinds(doc.get_update()).get(field)
    tree = _tree_of(doc, field, kind)
    reading = _reading_of_tree(tree, field, kind, before)
    return replace(reading, cpu_seconds=thread_time() - started)


def _tree_of(doc: "Doc[Any]", field: str, kind: RootKind | None) -> Any:
    return _NOTHING if kind is None else root_trees(doc, {field: kind})[field]


def _reading_of_tree(tree: Any, field: str, kind: RootKind | None, before: Any) -> _Reading:
    started = thread_time()
    change = _change(field, before, tree)
    return _Reading(kind if _holds_anything(tree) else None, tree, change, thread_time() - started)


def _change(field: str, before: Any, tree: Any) -> _Change | None:
    is_text = before["type"] == tree["type"] == "text"
    text_delta = delta_between(before["delta"], tree["delta"]) if is_text else []  # as Quill writes it
    if not text_delta and (is_text or is_same(before, tree)):
        return None
    content = _content_of(tree)
    size = len(content.encode()) if isinstance(content, str) else len(canonical_json(content))
    is_long = size > conf().collab_content_bytes_max
    if is_text:
        return _Change(content, text_delta, is_long)
    if before["type"] != tree["type"] or is_long:
        return _Change(content, None, is_long)
    # By node: docs/protocol.md, Changes.
    return _Change(content, compared({field: before}, {field: tree})[field], is_long)


def _content_of(tree: Any) -> Any:
    return plain_text(tree["delta"]) if tree["type"] == "text" else readable(tree)


def _holds_anything(tree: Any) -> bool:
    return any(tree.get(part) for part in ("delta", "items", "entries", "children"))
