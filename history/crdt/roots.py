"""What kind of shared type each root of a document is, told from its structs.

Yjs writes only a root's name; the kind is what the program says that opens it. Reading a root as the wrong kind
shows nothing or hangs, so everything that reads documents asks here."""

from enum import Enum

from history.crdt.guard import Guard, Holds


class RootKind(Enum):
    """How a root is read."""

    TEXT = "text"
    ARRAY = "array"
    MAP = "map"
    XML = "xml"


_KINDS = {
    Holds.TEXT: RootKind.TEXT,
    Holds.VALUES: RootKind.ARRAY,
    Holds.TYPES: RootKind.ARRAY,
    Holds.XML: RootKind.XML,
    Holds.NOTHING: RootKind.MAP,
}


def root_kinds(state_update: bytes, *later: bytes) -> dict[str, RootKind]:
    """Return each root's kind, by name, from a document's full state and any updates after it.

    What its sequence holds decides: text, formats or embeds → TEXT; values → ARRAY; XML nodes → XML; other types →
    ARRAY. A root with keys alone is a MAP. Of a root whose every content was collected nothing can be told: it is
    taken for an empty TEXT; updates from before the collection (`later`, or a state that keeps it) tell more.
    Raises: Malformed, MissingDependency when the bytes are no full state or do not follow it."""
    roots = Guard.of(state_update, *later).roots()
    return {name: _KINDS[holds] if holds else RootKind.TEXT for name, holds in sorted(roots.items())}
