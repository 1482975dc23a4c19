"""One field of a room's document, as clients without a CRDT are told of it.

What changed is found once for each batch of rows, and encoded once for all sockets that are told alike."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

from documents.conf import conf
from history.crdt.changes import compared
from history.crdt.content import canonical_json, readable, root_trees
from history.crdt.delta import delta_between, plain_text
from history.crdt.roots import RootKind, root_kinds
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
"""What takes longer to read and compare is told that much later, LATER_TIMES: it is at most a tenth of the loop's time,
of megabytes of text too."""
LATER_TIMES = 9


class Reader(Protocol):
    """Who is told of a field."""

    def take(self, change: SharedMessage | None, *, seq: int) -> None:
        """Show what has changed up to `seq`; None for nothing."""

    def fail(self, error: BaseException) -> None:
        """It cannot be told any more."""


class FieldView:
    """A root of the document at `seq`. `kind` is None as long as nothing is in it."""

    def __init__(self, room: Room, field: str) -> None:
        self._room = room
        self.field = field
        self.kind: RootKind | None = None
        self.readers: set[Reader] = set()
        self._authors: dict[Identity, None] = {}
        self._tree: Any = _NOTHING
        self._whole: SharedMessage | None = None
        self._due_at = 0.0
        self._is_due = False
        self.seq = -1
        self._read()

    def whole(self) -> SharedMessage:
        """All that the field says now, which replaces what a client has."""
        if self.seq != self._room.seq:
            self.tell()
        if self._whole is None:
            said = {"type": "document_update", "content": self._content(), "editor": None, "seq": self.seq}
            self._whole = SharedMessage(Said({**said, "delta": None}))
        return self._whole

    def note(self, rows: Sequence[Committed]) -> None:
        """The room has taken over these rows: tell what they changed, now or, of a large field, a little later."""
        for author in (author for row in rows for author in row.authors):
            self._authors.pop(author, None)  # the last one stands last
            self._authors[author] = None
        now = self._room.hub.now()
        if now >= self._due_at:
            self.tell()
        elif not self._is_due:
            self._is_due = True
            self._room.hub.spawn(self._tell_later(self._due_at - now))

    def tell(self) -> None:
        """Tell all readers what has changed since they were last told."""
        before, started = self._tree, perf_counter()
        try:
            self._read()
            change = self._change(before)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
            for reader in list(self.readers):
                reader.fail(error)
            return
        took = perf_counter() - started
        self._due_at = self._room.hub.now() + (LATER_TIMES * took if took > COMPARED_AT_ONCE_SECONDS else 0)
        self._authors.clear()
        for reader in tuple(self.readers):
            reader.take(change, seq=self.seq)

    async def _tell_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._is_due = False
        if self.seq != self._room.seq and not self._room.closed:
            self.tell()

    def _read(self) -> None:
        """Read the field anew. As long as it holds nothing, its kind may be another one the next time."""
        doc = self._room.doc
        self._whole = None
        if self.kind is None and self.field in doc.keys():  # noqa: SIM118  (a Doc has no `in`)
            self.kind = root_kinds(doc.get_update()).get(self.field)
        self._tree = _NOTHING if self.kind is None else root_trees(doc, {self.field: self.kind})[self.field]
        if not _holds_anything(self._tree):
            self.kind = None
        self.seq = self._room.seq

    def _content(self) -> Any:
        return plain_text(self._tree["delta"]) if self._tree["type"] == "text" else readable(self._tree)

    def _change(self, before: Any) -> SharedMessage | None:
        if canonical_json(before) == canonical_json(self._tree):
            return None
        content = self._content()
        authors = list(self._authors)[-AUTHORS_TOLD_MAX:]
        editor = person(authors[-1]) if authors else None
        said: dict[str, Any] = {"type": "document_update", "content": content, "editor": editor, "seq": self.seq}
        if len(authors) > 1:
            said["editors"] = [person(each) for each in authors]
        is_text = before["type"] == self._tree["type"] == "text"
        size = len(content.encode()) if isinstance(content, str) else len(canonical_json(content))
        if not is_text and (before["type"] != self._tree["type"] or size > conf().collab_content_bytes_max):
            return SharedMessage(Said({**said, "delta": None}))
        said["delta"] = self._delta(before)
        brief = {name: each for name, each in said.items() if name != "content"}
        return SharedMessage(Said(brief if size > conf().collab_content_bytes_max else said, brief))

    def _delta(self, before: Any) -> Any:
        """Of a text as Quill writes it; of other roots the difference by node (docs/protocol.md, Changes)."""
        if before["type"] == "text":
            return delta_between(before["delta"], self._tree["delta"])
        return compared({self.field: before}, {self.field: self._tree})[self.field]


def _holds_anything(tree: Any) -> bool:
    return any(tree.get(part) for part in ("delta", "items", "entries", "children"))
