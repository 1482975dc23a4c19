"""A range of a text at one moment, found again at another: the same units, wherever they stand by then.

pycrdt's own sticky indexes count in bytes and in UTF-16 units at once and panic beyond the BMP. Here the document's
order itself is read: from a shadow of it, in which every unit of the text is there and is a letter that names it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from pycrdt import Doc, Text

from history.crdt.content import canonical_json
from history.crdt.idsets import IdSet, id_set, span_at
from history.crdt.lib0 import var_string, var_uint
from history.crdt.places import Places
from history.crdt.updates import Id, Kind, Struct, utf16_length

Order: TypeAlias = Sequence[Id]
"""The units of a root's sequence, deleted ones and formatting marks too, in the document's order."""

_LETTERS = 0xD800 - 0x100
_LETTER_FIRST = 0x100
_WITHOUT_CONTENT = (Kind.GC, Kind.DELETED)


class Span(NamedTuple):
    """Units `start` to `stop`, the last one not included, of a text: UTF-16 units, an embed counts 1, as in Yjs."""

    start: int
    stop: int


class Stretch(NamedTuple):
    """From one unit of a sequence to another, both included, with all that stands between them at any time."""

    first: Id
    last: Id


class NoSuchRange(ValueError):
    """Raised for a range that the text did not have at that moment; the message says which ones it had."""


def order_of(places: Places, root: str) -> Order:
    """Read the order of all units of a root that were ever there and whose content was not collected.

    182,000 units take 0.2 s: two shadows of them, as there are fewer letters than units."""
    units = [
        (struct.client, clock)
        for struct in places.structs
        if struct.kind not in _WITHOUT_CONTENT and _is_in(places, struct, root)
        for clock in range(struct.clock, struct.clock + struct.length)
    ]
    digits = [_shadow(places, root, [number % _LETTERS for number in range(len(units))])]
    if len(units) > _LETTERS:
        digits.append(_shadow(places, root, [number // _LETTERS for number in range(len(units))]))
    numbers = digits[0] if len(digits) == 1 else [low + _LETTERS * high for low, high in zip(*digits, strict=True)]
    return [units[number] for number in numbers]


def stretch_of(order: Order, span: Span, *, alive: IdSet) -> Stretch:
    """The first and the last unit of a span, of the units that were alive when it was taken. Raises: NoSuchRange."""
    seen = list(compress(order, _are_in(order, alive)))
    if not 0 <= span.start < span.stop <= len(seen):
        raise NoSuchRange(f"the text had {len(seen)} characters then; a range lies within them and is not empty")
    return Stretch(seen[span.start], seen[span.stop - 1])


def span_of(order: Order, stretch: Stretch, *, alive: IdSet) -> Span:
    """Where a stretch is among the units that are alive; empty where nothing of it is."""
    first, last = order.index(stretch.first), order.index(stretch.last)
    counted = list(_are_in(order, alive))
    start = sum(counted[:first])
    return Span(start, start + sum(counted[first : last + 1]))


def _are_in(order: Order, ids: IdSet) -> Iterator[bool]:
    """For each unit whether it is in a set; units stand in runs, so that most need no search."""
    client, start, stop, is_in = -1, 0, 0, False
    for unit in order:
        if unit[0] != client or not start <= unit[1] < stop:
            client = unit[0]
            start, stop, is_in = span_at(ids, *unit)
        yield is_in


def units_of(order: Order, stretch: Stretch) -> IdSet:
    """All units of a stretch; none where its ends are not in the order."""
    if stretch.first not in order or stretch.last not in order:
        return {}
    between = order[order.index(stretch.first) : order.index(stretch.last) + 1]
    return id_set((client, clock, 1) for client, clock in between)


def _is_in(places: Places, struct: Struct, root: str) -> bool:
    return struct.kind is not Kind.GC and places.of((struct.client, struct.clock)) == (root, None)


def _shadow(places: Places, root: str, numbers: Sequence[int]) -> list[int]:
    """The numbers, given in the order of the structs, in the order in which their units stand in the document."""
    letters = "".join(chr(_LETTER_FIRST + number) for number in numbers)
    parts: list[bytes] = []
    by_client = [(client, list(structs)) for client, structs in groupby(places.structs, key=attrgetter("client"))]
    parts.append(var_uint(len(by_client)))
    taken = 0
    for client, structs in by_client:
        parts += var_uint(len(structs)), var_uint(client), var_uint(structs[0].clock)
        for struct in structs:
            if not _is_in(places, struct, root):
                parts.append(bytes((Kind.GC,)) + var_uint(struct.length))
                continue
            has_content = struct.kind not in _WITHOUT_CONTENT
            parts.append(_lettered(struct, root, letters[taken : taken + struct.length] if has_content else ""))
            taken += struct.length if has_content else 0
    parts.append(var_uint(0))  # nothing is deleted
    doc: Doc[Any] = Doc(skip_gc=True)
    doc.apply_update(b"".join(parts))
    return [ord(letter) - _LETTER_FIRST for letter in str(doc.get(root, type=Text))]


def _lettered(struct: Struct, root: str, letters: str) -> bytes:
    """A struct of the same units at the same place, whose content are letters, or nothing where there are none."""
    info = Kind.STRING if letters else Kind.DELETED
    flags = 0
    parts: list[bytes] = []
    for flag, origin in ((0x80, struct.origin), (0x40, struct.right_origin)):
        if origin is not None:
            flags |= flag
            parts += var_uint(origin[0]), var_uint(origin[1])
    if not parts:
        parts += var_uint(1), var_string(root)
    content = var_string(letters) if letters else var_uint(struct.length)
    return bytes((info | flags,)) + b"".join(parts) + content


def sliced(delta: Sequence[Mapping[str, Any]], span: Span) -> list[Any]:
    """What a canonical tree's delta has in a span. Raises: NoSuchRange where that cuts a character in two."""
    parts: list[Any] = []
    place = 0
    for run in delta:
        insert = run["insert"]
        length = utf16_length(insert) if isinstance(insert, str) else 1
        start, stop = max(span.start - place, 0), min(span.stop - place, length)
        place += length
        if start < stop:
            parts.append({**run, "insert": _utf16_slice(insert, start, stop)} if isinstance(insert, str) else run)
    return parts


def joined(*deltas: Iterable[Any]) -> list[Any]:
    """Deltas one behind the other, neighbours of equal attributes joined as in a canonical tree."""
    parts: list[Any] = []
    for part in (part for delta in deltas for part in delta):
        last = parts[-1] if parts else None
        if last is not None and _same_run(last, part):
            parts[-1] = {**last, "insert": last["insert"] + part["insert"]}
        else:
            parts.append(part)
    return parts


def _same_run(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    both_text = isinstance(first["insert"], str) and isinstance(second["insert"], str)
    return both_text and canonical_json(first["attributes"]) == canonical_json(second["attributes"])


def _utf16_slice(text: str, start: int, stop: int) -> str:
    if text.isascii():
        return text[start:stop]
    try:
        return text.encode("utf-16-le")[2 * start : 2 * stop].decode("utf-16-le")
    except UnicodeDecodeError:
        raise NoSuchRange("a range does not begin or end inside a character") from None
