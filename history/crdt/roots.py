"""What kind of shared type each root of a document is, told from its structs.

Yjs writes only a root's name; the kind is what the program says that opens it. Reading a root as the wrong kind
shows nothing or hangs, so everything that reads documents asks here."""

from collections.abc import Iterator
from enum import Enum

from history.crdt.guard import Guard, Holds
from history.crdt.lib0 import Malformed, Reader
from history.crdt.updates import HEAD_OF_RUN, Kind, Struct, TypeContent, TypeRef, read_struct


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

_TOLD_BY = {
    Kind.STRING: RootKind.TEXT,
    Kind.FORMAT: RootKind.TEXT,
    Kind.EMBED: RootKind.TEXT,
    Kind.ANY: RootKind.ARRAY,
    Kind.BINARY: RootKind.ARRAY,
}
_XML_TYPES = (TypeRef.XML_ELEMENT, TypeRef.XML_FRAGMENT, TypeRef.XML_TEXT)
_STRING = Kind.STRING.value


def root_kinds(state_update: bytes, *later: bytes) -> dict[str, RootKind]:
    """Return each root's kind, by name, from a document's full state and any updates after it.

    What its sequence holds decides: text, formats or embeds → TEXT; values → ARRAY; XML nodes → XML; other types →
    ARRAY. A root with keys alone is a MAP. Of a root whose every content was collected nothing can be told: it is
    taken for an empty TEXT; updates from before the collection (`later`, or a state that keeps it) tell more.
    Raises: Malformed, MissingDependency when the bytes are no full state or do not follow it, as far as is looked."""
    seen = _seen_at_a_glance((state_update, *later))
    return kinds_in(Guard.of(state_update, *later)) if seen is None else seen


def kinds_in(guard: Guard) -> dict[str, RootKind]:
    """As `root_kinds`, of a guard that is there already."""
    roots = guard.roots()
    return {name: _KINDS[holds] if holds else RootKind.TEXT for name, holds in sorted(roots.items())}


def _seen_at_a_glance(updates: tuple[bytes, ...]) -> dict[str, RootKind] | None:
    """Kinds as the first struct of each root tells them, in a fifth of the time that the guard takes; None where it
    does not: it was deleted, or is a type that texts and arrays may hold.

    The first of a sequence has no origins and so names its root, as does the first value of each key."""
    found: dict[str, set[RootKind | None]] = {}
    try:
        for update in updates:
            for struct in _without_origins(update):
                if isinstance(struct.parent, str):
                    found.setdefault(struct.parent, set()).add(_told_by(struct))
    except Malformed:
        return None
    kinds: dict[str, RootKind] = {}
    for name, told in sorted(found.items()):
        kind, *others = told - {RootKind.MAP} or told
        if kind is None or others:
            return None
        kinds[name] = kind
    return kinds


def _told_by(struct: Struct) -> RootKind | None:
    if struct.parent_key is not None:
        return RootKind.MAP
    if isinstance(struct.content, TypeContent):
        return RootKind.XML if struct.content.ref in _XML_TYPES else None
    return _TOLD_BY.get(struct.kind)


def _without_origins(update: bytes) -> Iterator[Struct]:
    """Yield the structs that name their parent, and some others; their clocks are not told. Raises: Malformed."""
    reader = Reader(update)
    passed_over = HEAD_OF_RUN.match  # nearly all of most documents, and none of it tells anything
    for _ in range(reader.count(item_bytes_min=3)):
        count, client, _ = reader.var_uint(), reader.var_uint(), reader.var_uint()
        for _ in range(count):
            match = passed_over(update, reader.position)
            if match is None:
                yield read_struct(reader, client, 0)
            elif update[reader.position] & 0x1F == _STRING:
                reader.position = match.start(1)
                length = reader.var_uint()
                reader.position += length
            else:
                reader.position = match.end()
    if reader.remaining < 0:
        raise Malformed("a length reaches past the end of the input")
