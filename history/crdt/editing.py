"""Editing a document as it was at some seq for a client without a CRDT: by a delta, or by whole content.

What comes out is a Yjs update as of that seq; the CRDT merges it with all that came since. Everything is checked
before anything is changed: after an error the document is as it was."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from pycrdt import Doc

from history.crdt.content import canonical_json, plain_json, pycrdt_root, readable, root_trees
from history.crdt.delta import EMBED, Delete, Insert, Retain, Step, steps_between
from history.crdt.differing import changes, make_equal
from history.crdt.roots import RootKind
from history.crdt.updates import utf16_length
from history.crdt.values import checked

ITEMS_ADDED_MAX = 2000
"""Items that one edit writes into an array: yrs joins them at the end, in time that grows with their square and in
which nothing else of the process runs. 2,000 take 0.05 s, 20,000 some 5 s."""


class NotEditable(ValueError):
    """Raised where a root is not edited in this way; the message says in which it is."""


class OutsideText(ValueError):
    """Raised for a delta that reaches past the end of the text it was made on."""

    def __init__(self, offset: int, length: int) -> None:
        super().__init__(f"the text ends at {length}, before {offset}")
        self.offset = offset
        self.length = length


class InsideCharacter(ValueError):
    """Raised for an offset between the two UTF-16 units of one character."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"{offset} is inside a character of two UTF-16 units")
        self.offset = offset


class EditFailed(Exception):
    """Raised when pycrdt failed on an edit; the document is of no use any more."""


def kind_for(content: Any) -> RootKind:
    """The kind that a root gets which holds nothing yet, by what it is to say."""
    match content:
        case dict():
            return RootKind.MAP
        case list():
            return RootKind.ARRAY
        case _:
            return RootKind.TEXT


def edited(doc: Doc[Any], root: str, kind: RootKind, steps: Sequence[Step]) -> bytes | None:
    """Edit a text by a delta that was made on what `doc` says; return the update, or None if it says nothing new.

    Raises: NotEditable, OutsideText, InsideCharacter; EditFailed."""
    if kind is not RootKind.TEXT:
        raise NotEditable(f"a delta edits a text, and this is of kind {kind.value}: send whole content")
    text = pycrdt_root(doc, root, kind)
    placed = _placed(_Offsets(text), steps)
    return _emitted(doc, lambda: _edit_text(text, placed))


def rewritten(doc: Doc[Any], root: str, kind: RootKind, content: Any) -> bytes | None:
    """Have a root say what a client wants, by the difference with what `doc` says; return the update, or None.

    A text is given as text, embeds as U+FFFC: those that stay keep what they are, and text takes on the formats that
    stand where it comes to stand. Maps and arrays are given as JSON: shared types in them that are still like what is
    given are edited in place. Raises: NotEditable, BadValue; EditFailed."""
    content = plain_json(checked(content))
    if kind is RootKind.TEXT and isinstance(content, str):
        text = pycrdt_root(doc, root, kind)
        have = "".join(chunk if isinstance(chunk, str) else EMBED for chunk, _ in text.diff())
        placed = _placed(_Offsets(text), steps_between(have, content))
        return _emitted(doc, lambda: _edit_text(text, placed))
    if kind is RootKind.XML or kind_for(content) is not kind:
        needed = "XML is edited through Yjs" if kind is RootKind.XML else f"this is of kind {kind.value}"
        raise NotEditable(f"this content cannot be written here: {needed}")
    wanted = _tree_like(root_trees(doc, {root: kind})[root], content)
    return _emitted(doc, lambda: make_equal(doc, {root: kind}, {root: wanted}))


class _Offsets:
    """Turns offsets in UTF-16 units into pycrdt's, which count UTF-8 bytes; an embed is 1 in both."""

    def __init__(self, text: Any) -> None:
        self._chunks = [chunk for chunk, _ in text.diff()]
        self._units, self._bytes = [0], [0]
        for chunk in self._chunks:
            is_text = isinstance(chunk, str)
            self._units.append(self._units[-1] + (utf16_length(chunk) if is_text else 1))
            self._bytes.append(self._bytes[-1] + (_utf8_length(chunk) if is_text else 1))
        self._encoded: tuple[int, bytes] = -1, b""

    def __call__(self, offset: int) -> int:
        """Raises: OutsideText, InsideCharacter."""
        place = bisect_right(self._units, offset) - 1
        inside = offset - self._units[place]
        if place == len(self._chunks) or not inside:
            if inside:
                raise OutsideText(offset, self._units[-1])
            return self._bytes[place]
        chunk = self._chunks[place]
        if chunk.isascii():
            return self._bytes[place] + inside
        if self._encoded[0] != place:
            self._encoded = place, chunk.encode("utf-16-le")
        try:
            before = self._encoded[1][: 2 * inside].decode("utf-16-le")
        except UnicodeDecodeError:
            raise InsideCharacter(offset) from None
        return self._bytes[place] + _utf8_length(before)


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _placed(offsets: _Offsets, steps: Sequence[Step]) -> list[tuple[Step, int]]:
    """Each step with its length as pycrdt counts. Raises: OutsideText, InsideCharacter."""
    placed: list[tuple[Step, int]] = []
    at = start = 0
    for step in steps:
        match step:
            case Insert(what):
                placed.append((step, _utf8_length(what) if isinstance(what, str) else 1))
            case Retain(length) | Delete(length):
                at += length
                stop = offsets(at)
                placed.append((step, stop - start))
                start = stop
    return placed


def _edit_text(text: Any, placed: Sequence[tuple[Step, int]]) -> None:
    at = 0
    for step, length in _inserts_first(placed):
        match step:
            case Retain(attributes=attributes):
                if attributes:
                    text.format(at, at + length, attributes)
                at += length
            case Delete():
                del text[at : at + length]
            case Insert(str() as what, attributes):
                text.insert(at, what, attributes)
                at += length
            case Insert(embed, attributes):
                text.insert_embed(at, embed, attributes or {})
                at += length


def _inserts_first(placed: Sequence[tuple[Step, int]]) -> Sequence[tuple[Step, int]]:
    """What takes the place of something is inserted before that is deleted, not behind it: what others typed right
    behind it meanwhile then stays behind."""
    ordered: list[tuple[Step, int]] = []
    deletes: list[tuple[Step, int]] = []
    for step in placed:
        if isinstance(step[0], Delete):
            deletes.append(step)
            continue
        if isinstance(step[0], Retain):
            ordered += deletes
            deletes = []
        ordered.append(step)
    return ordered + deletes


def _emitted(doc: Doc[Any], edit: Callable[[], None]) -> bytes | None:
    """Run an edit in one transaction; return what it emits. Raises: EditFailed."""
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    try:
        with doc.transaction():
            edit()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
        raise EditFailed(type(error).__name__) from None
    finally:
        doc.unobserve(subscription)
    return emitted[0] if emitted else None


def _tree_like(have: Any, value: Any) -> Any:
    """The canonical tree of a JSON value, shared types where there are such now: they are edited, not replaced."""
    if have is not None and canonical_json(readable(have)) == canonical_json(value):
        return have
    match have, value:
        case {"type": "map", "entries": entries}, dict():
            return {"type": "map", "entries": {key: _tree_like(entries.get(key), each) for key, each in value.items()}}
        case {"type": "array", "items": items}, list():
            return {"type": "array", "items": _items_like(items, value)}
        case {"type": "text"}, str():
            return {"type": "text", "delta": [{"insert": value, "attributes": {}}] if value else []}
        case _:
            return {"type": "json", "value": value} if isinstance(value, dict | list) else value


def _items_like(items: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Items that are still there stay as they are; within a replaced stretch, in order, what is of one kind."""
    keys = [canonical_json(readable(item)) for item in items], [canonical_json(value) for value in values]
    like: list[Any] = []
    at = added = 0
    for change in changes(*keys):
        added += change.want_stop - change.want_start
        if added > ITEMS_ADDED_MAX:
            raise NotEditable(f"at most {ITEMS_ADDED_MAX} items of an array are written at once")
        like += items[at : change.have_start]
        old = list(items[change.have_start : change.have_stop])
        for value in values[change.want_start : change.want_stop]:
            like.append(_tree_like(old.pop(0) if old else None, value))
        at = change.have_stop
    return like + list(items[at:])
