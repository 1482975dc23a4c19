"""Make live shared types say what a canonical tree says, touching as little as possible.

It knows contents only, not where they came from: what an undo can bring back keeps its identity there, so this is for
what is left over. Callers hold one transaction around it, so that it emits one update."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fast_diff_match_patch import diff
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt.content import Tree, canonical_json, pycrdt_root, tree_of
from history.crdt.roots import RootKind

DIFF_SECONDS_MAX = 2.0
"""After that the difference of one text gets coarser, never wrong."""

_CODES_FIRST = 0x100
_SURROGATES = range(0xD800, 0xE000)
_CODES_MAX = 0x110000 - _CODES_FIRST - len(_SURROGATES)


class Change(NamedTuple):
    """`have[have_start:have_stop]` becomes `want[want_start:want_stop]`."""

    have_start: int
    have_stop: int
    want_start: int
    want_stop: int


class _Unit(NamedTuple):
    """One character or embed of a formatted text."""

    insert: Any
    attributes: dict[str, Any]

    @property
    def size(self) -> int:
        """Its length as pycrdt counts: UTF-8 bytes, 1 for an embed."""
        return len(self.insert.encode()) if isinstance(self.insert, str) else 1


def make_equal(doc: Doc[Any], kinds: Mapping[str, RootKind], wanted: Mapping[str, Tree]) -> None:
    """Edit every root of `kinds` until it says what `wanted` says; a root that is not there is emptied."""
    for name, kind in sorted(kinds.items()):
        root = pycrdt_root(doc, name, kind)
        _sync(root, wanted.get(name) or _emptied(tree_of(root)))


def _emptied(tree: Any) -> Any:
    return {key: value if isinstance(value, str) else type(value)() for key, value in tree.items()}


def _sync(shared: Any, want: Any) -> None:
    match shared:
        case XmlText():
            _sync_text(shared, want["delta"])
            _sync_attributes(shared, want["attributes"])
        case Text():
            _sync_text(shared, want["delta"])
        case Map():
            _sync_map(shared, want["entries"])
        case Array():
            have = [tree_of(item) for item in shared]
            _sync_sequence(shared, have, want["items"])
        case XmlElement() | XmlFragment():
            if isinstance(shared, XmlElement):
                _sync_attributes(shared, want["attributes"])
            _sync_sequence(shared.children, [tree_of(child) for child in shared.children], want["children"])


def _sync_map(shared: Any, want: Mapping[str, Any]) -> None:
    have = {key: tree_of(value) for key, value in shared.items()}
    for key in have.keys() - want.keys():
        del shared[key]
    for key, value in want.items():
        if key in have and canonical_json(have[key]) == canonical_json(value):
            continue
        if key in have and is_same_type(have[key], value):
            _sync(shared[key], value)
        else:
            shared[key] = _new(value)
            if _is_shared(value):
                _sync(shared[key], value)


def _sync_attributes(shared: Any, want: Mapping[str, Any]) -> None:
    have = dict(iter(shared.attributes))
    for key in have.keys() - want.keys():
        del shared.attributes[key]
    for key, value in want.items():
        if key not in have or canonical_json(tree_of(have[key])) != canonical_json(value):
            shared.attributes[key] = _plain(value)


def _sync_sequence(shared: Any, have: Sequence[Any], want: Sequence[Any]) -> None:
    """Edit an Array or a list of XML children; within a replaced stretch, types of one kind are edited in place."""
    keys = [canonical_json(item) for item in have], [canonical_json(item) for item in want]
    shift = 0
    for change in changes(*keys):
        index = change.have_start + shift
        old = list(have[change.have_start : change.have_stop])
        for item in want[change.want_start : change.want_stop]:
            matching = next((i for i, candidate in enumerate(old) if is_same_type(candidate, item)), None)
            if matching is None:
                shared.insert(index, _new(item))
                shift += 1
            elif matching:
                del shared[index : index + matching]
                shift -= matching
            if matching is not None:
                del old[: matching + 1]
            if _is_shared(item):
                _sync(shared[index], item)
            index += 1
        if old:
            del shared[index : index + len(old)]
            shift -= len(old)


def _sync_text(shared: Any, want: Sequence[Any]) -> None:
    have_tree = tree_of(shared)
    assert isinstance(have_tree, dict)
    have_units, want_units = list(_units(have_tree["delta"])), list(_units(want))
    offsets = [0]
    for unit in have_units:
        offsets.append(offsets[-1] + unit.size)
    keys = [canonical_json(unit) for unit in have_units], [canonical_json(unit) for unit in want_units]
    # From the end to the start, so that the offsets before a change stay true.
    for change in reversed(list(changes(*keys))):
        start = offsets[change.have_start]
        if change.have_stop > change.have_start:
            del shared[start : offsets[change.have_stop]]
        for insert, attributes, size in _joined(want_units[change.want_start : change.want_stop]):
            if isinstance(insert, str):
                shared.insert(start, insert, attributes)
            else:
                embed = _new(insert)
                shared.insert_embed(start, embed, attributes)
                if _is_shared(insert):
                    _sync(embed, insert)
            start += size


def _units(delta: Any) -> Iterator[_Unit]:
    for run in delta:
        for insert in run["insert"] if isinstance(run["insert"], str) else [run["insert"]]:
            yield _Unit(insert, run["attributes"])


def _joined(units: Sequence[_Unit]) -> Iterator[tuple[Any, dict[str, Any], int]]:
    """Yield (text or embed, attributes, size) with characters of equal attributes joined."""
    start = 0
    for stop in range(1, len(units) + 1):
        first = units[start]
        if stop < len(units) and _same_run(first, units[stop]):
            continue
        joined = units[start:stop]
        insert = "".join(unit.insert for unit in joined) if isinstance(first.insert, str) else first.insert
        yield insert, _plain(first.attributes), sum(unit.size for unit in joined)
        start = stop


def _same_run(first: _Unit, second: _Unit) -> bool:
    both_text = isinstance(first.insert, str) and isinstance(second.insert, str)
    return both_text and canonical_json(first.attributes) == canonical_json(second.attributes)


def changes(have: Sequence[str], want: Sequence[str]) -> Iterator[Change]:
    """Yield what turns one sequence of keys into another, from start to end."""
    codes: dict[str, str] = {}
    if len({*have, *want}) > _CODES_MAX:
        yield Change(0, len(have), 0, len(want))
        return
    for key in (*have, *want):
        if key not in codes:
            codes[key] = _code(len(codes))
    have_text, want_text = "".join(map(codes.__getitem__, have)), "".join(map(codes.__getitem__, want))
    i = j = start_i = start_j = 0
    steps = diff(have_text, want_text, timelimit=DIFF_SECONDS_MAX, checklines=False, cleanup="No", counts_only=True)
    for operation, length in (*steps, ("=", 0)):
        if operation == "=":
            if i > start_i or j > start_j:
                yield Change(start_i, i, start_j, j)
            i, j = i + length, j + length
            start_i, start_j = i, j
        elif operation == "-":
            i += length
        else:
            j += length


def _code(index: int) -> str:
    """Give each distinct key one character, past the surrogates, so that texts and lists compare alike."""
    code = _CODES_FIRST + index
    return chr(code if code < _SURROGATES.start else code + len(_SURROGATES))


_NEW: dict[str, Callable[[Any], Any]] = {
    "text": lambda tree: Text(""),
    "array": lambda tree: Array([]),
    "map": lambda tree: Map({}),
    "xmltext": lambda tree: XmlText(""),
    "element": lambda tree: XmlElement(tree["tag"]),
    "fragment": lambda tree: XmlFragment(),
    "json": lambda tree: _plain(tree["value"]),
}


def _new(tree: Any) -> Any:
    """Make what stands for a tree, empty where it is a shared type: that is filled once it is in the document."""
    return _NEW[tree["type"]](tree) if isinstance(tree, dict) and "type" in tree else _plain(tree)


def _plain(value: Any) -> Any:
    """Turn JSON as `plain_json` writes it back into the value."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$bytes": str(encoded)} if len(value) == 1:
            return base64.b64decode(encoded)
        case {"$number": str(number)} if len(value) == 1:
            return float(number)
        case _:
            return {key: _plain(item) for key, item in value.items()}


def _is_shared(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.get("type", "json") != "json"


def is_same_type(have: Any, want: Any) -> bool:
    return _is_shared(have) and _is_shared(want) and _identity(have) == _identity(want)


def _identity(tree: Any) -> tuple[str, str | None]:
    return tree["type"], tree.get("tag")
