"""What kind of shared type each root of a document is, told from its structs.

Yjs writes only a root's name; the kind is what the program says that opens it. Reading a root as the wrong kind
shows nothing or hangs, so everything that reads documents asks here."""

from dataclasses import dataclass, field
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
_OF_TEXTS = (Kind.STRING, Kind.FORMAT, Kind.EMBED)


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
    does not: it is a type that texts and arrays may hold, or was deleted and others than text alone may stand behind.

    The first of a sequence has no origins and so names its root, as does the first value of each key."""
    glance = _Glance()
    try:
        for update in updates:
            glance.over(update)
    except Malformed:
        return None
    return glance.kinds()


@dataclass(slots=True)
class _Glance:
    """What the structs say that tell where they stand, and as much of the others as it costs nothing to see."""

    keyed: set[str] = field(default_factory=set)
    sequences: dict[str, set[RootKind | None]] = field(default_factory=dict)
    """By root what its first ones tell, of which deleted ones tell nothing; None for what texts and arrays may hold."""
    has_text: bool = False
    """Whether text, a format or an embed stands behind something, wherever."""
    has_inner: bool = False
    """Whether anything stands in something else than a root."""

    def over(self, update: bytes) -> None:
        """Raises: Malformed."""
        reader = Reader(update)
        passed_over = HEAD_OF_RUN.match  # nearly all of most documents, and none of it tells where it stands
        for _ in range(reader.count(item_bytes_min=3)):
            count, client, _ = reader.var_uint(), reader.var_uint(), reader.var_uint()
            for _ in range(count):
                match = passed_over(update, reader.position)
                if match is None:
                    self._note(read_struct(reader, client, 0))
                elif update[reader.position] & 0x1F == _STRING:
                    self.has_text = True
                    reader.position = match.start(1)
                    length = reader.var_uint()
                    reader.position += length
                else:
                    reader.position = match.end()
        if reader.remaining < 0:
            raise Malformed("a length reaches past the end of the input")

    def _note(self, struct: Struct) -> None:
        is_type = isinstance(struct.content, TypeContent)
        self.has_inner = self.has_inner or is_type or isinstance(struct.parent, tuple)
        if not isinstance(struct.parent, str):
            self.has_text = self.has_text or struct.kind in _OF_TEXTS
        elif struct.parent_key is not None:
            self.keyed.add(struct.parent)
        else:
            told = self.sequences.setdefault(struct.parent, set())
            if struct.kind is not Kind.DELETED:
                told.add(_told_by(struct))

    def kinds(self) -> dict[str, RootKind] | None:
        kinds = dict.fromkeys(self.keyed, RootKind.MAP)
        for name, told in self.sequences.items():
            kind, *others = told or {self._told_by_others()}
            if kind is None or others:
                return None
            kinds[name] = kind
        return dict(sorted(kinds.items()))

    def _told_by_others(self) -> RootKind | None:
        """Where there is one sequence alone, what stands behind others stands in it: text, in most documents."""
        is_alone = len(self.sequences) == 1 and not self.has_inner
        return RootKind.TEXT if is_alone and self.has_text else None


def _told_by(struct: Struct) -> RootKind | None:
    if isinstance(struct.content, TypeContent):
        return RootKind.XML if struct.content.ref in _XML_TYPES else None
    return _TOLD_BY.get(struct.kind)
