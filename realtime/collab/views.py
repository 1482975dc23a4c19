"""One field of a room's document, as clients without a CRDT are told of it.

What changed is found once for each batch of rows, and encoded once for all sockets that are told alike."""

import logging
from collections.abc import Sequence
from typing import Any

from documents.conf import conf
from history.crdt.changes import compared
from history.crdt.content import canonical_json, readable, root_trees
from history.crdt.delta import delta_between, plain_text
from history.crdt.roots import RootKind, root_kinds
from realtime.frames import SharedMessage
from realtime.protocols.collab import person
from realtime.protocols.messages import Said
from realtime.rooms import Room
from realtime.tails import Committed

logger = logging.getLogger(__name__)

_NOTHING: Any = {"type": "text", "delta": []}
"""What a root says that is not there."""


class FieldView:
    """A root of the document at `seq`. `kind` is None as long as nothing is in it."""

    def __init__(self, room: Room, field: str) -> None:
        self._room = room
        self.field = field
        self.kind: RootKind | None = None
        self._tree: Any = _NOTHING
        self._told: SharedMessage | None = None
        self._whole: SharedMessage | None = None
        self.seq = -1
        self._read()

    def whole(self) -> SharedMessage:
        """All that the field says now, which replaces what a client has."""
        if self._whole is None or self.seq != self._room.seq:
            if self.seq != self._room.seq:
                self._read()
            said = {"type": "document_update", "content": self._content(), "editor": None, "seq": self.seq}
            self._whole = SharedMessage(Said({**said, "delta": None}))
        return self._whole

    def after(self, rows: Sequence[Committed]) -> SharedMessage | None:
        """What the rows changed that the room has just taken over; None where that is nothing."""
        if self.seq != self._room.seq:
            before = self._tree
            self._read()
            self._told = self._change(before, rows)
        return self._told

    def _read(self) -> None:
        """Read the field anew. As long as it holds nothing, its kind may be another one the next time."""
        doc = self._room.doc
        self._told = self._whole = None  # should reading fail, nobody is told what came before
        if self.kind is None and self.field in doc.keys():  # noqa: SIM118  (a Doc has no `in`)
            self.kind = root_kinds(doc.get_update()).get(self.field)
        self._tree = _NOTHING if self.kind is None else root_trees(doc, {self.field: self.kind})[self.field]
        if not _holds_anything(self._tree):
            self.kind = None
        self.seq = self._room.seq

    def _content(self) -> Any:
        return plain_text(self._tree["delta"]) if self._tree["type"] == "text" else readable(self._tree)

    def _change(self, before: Any, rows: Sequence[Committed]) -> SharedMessage | None:
        if canonical_json(before) == canonical_json(self._tree):
            return None
        content = self._content()
        authors = list(dict.fromkeys(author for row in rows for author in row.authors))
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
