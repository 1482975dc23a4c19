"""What an update changed: a difference by node that can be read, counted and applied to content.

It follows the edits as observers see them, so that nothing is guessed. It is tried on the content of before; a root
where that does not give the content of after is compared by content instead: never wrong, only coarser."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias, TypedDict

from pycrdt import Doc

from history.crdt.content import Json, Tree, canonical_json, plain_json, pycrdt_root, root_trees, tree_of
from history.crdt.differing import changes, is_same_type
from history.crdt.roots import RootKind

Path: TypeAlias = list[str | int]
"""From a root to a node, as it is after the change: keys of maps, places in arrays and among XML children, and for a
type embedded in a text the UTF-16 units before it. Empty for the root itself."""


class Span(TypedDict, total=False):
    """One step over a sequence from its start; lengths are UTF-16 units (an embed is 1), items or XML children.

    `{"retain": n}`: as it was · `{"retain": n, "attributes", "was"}`: formatted, `attributes` and `was` name each
    changed format, null for none · `{"insert", "attributes"}`: a text or one embed (a `Tree`); in arrays and XML
    `{"insert": [trees]}` · `{"delete": n, "was"}`: what went, as a delta; in arrays and XML as a list of trees. What
    stays at the end is not said."""

    retain: int
    insert: Json
    delete: int
    attributes: dict[str, Json]
    was: Json


class KeyChange(TypedDict, total=False):
    """A key of a map or an attribute of an XML node: no `old` for a new one, no `new` for one that went."""

    old: Tree
    new: Tree


class NodeChange(TypedDict, total=False):
    """What changed of one shared type: `spans` of its sequence, `keys` of its entries or attributes; `path` and `type`
    (as in `Tree`) always. A type that came or went as a whole stands in its parent's change."""

    path: Path
    type: str
    spans: list[Span]
    keys: dict[str, KeyChange]


Changes: TypeAlias = dict[str, list[NodeChange]]
"""By root, parents before what is in them: so they can be applied one after the other. JSON-serialisable."""


class _Event(NamedTuple):
    """One event of pycrdt; lengths in texts are UTF-8 bytes."""

    path: list[Any]
    delta: list[dict[str, Any]]
    keys: dict[str, dict[str, Any]]


class _Unfit(Exception):
    """Raised for an event that does not fit the content of before."""


def changes_by(doc: Doc[Any], update: bytes, *, kinds: Mapping[str, RootKind]) -> Changes:
    """Apply an update to a document and say what it changed, net; `kinds` are those of all roots, new ones included.

    Costs one reading of the content before and one after, besides the update. Raises: ContentTooDeep."""
    before = root_trees(doc, kinds)
    events = _events_of(doc, update, kinds)
    after = root_trees(doc, kinds)
    found = {name: _root_changes(before[name], after[name], events.get(name)) for name in sorted(kinds)}
    return {name: nodes for name, nodes in found.items() if nodes}


def applied(trees: Mapping[str, Tree], changed: Changes) -> dict[str, Tree]:
    """The root trees of after, from those of before (`content.root_trees`, empty roots included) and the difference.

    Raises: ValueError where they do not fit."""
    result = {name: json.loads(canonical_json(tree)) for name, tree in trees.items()}
    for name, nodes in changed.items():
        for node in nodes:
            try:
                _apply(node_at(result[name], node["path"]), node)
            except (_Unfit, LookupError) as error:
                raise ValueError(f"the difference does not fit root {name!r}") from error
    return result


def compared(before: Mapping[str, Tree], after: Mapping[str, Tree]) -> Changes:
    """The difference of contents alone, of the same roots; a format that changed shows as text replaced."""
    found = {name: list(_compared(before[name], after[name], [])) for name in sorted(before)}
    return {name: nodes for name, nodes in found.items() if nodes}


def _events_of(doc: Doc[Any], update: bytes, kinds: Mapping[str, RootKind]) -> dict[str, list[_Event]]:
    """Apply the update in one transaction; return the events of each root, none at all where an observer failed."""
    seen: dict[str, list[_Event]] = {}
    roots = {name: pycrdt_root(doc, name, kind) for name, kind in kinds.items()}

    def observer(name: str) -> Any:
        def note(events: list[Any]) -> None:
            seen[name] = [
                _Event(event.path, getattr(event, "delta", None) or [], getattr(event, "keys", None) or {})
                for event in events
            ]

        return note

    subscriptions = [(root, root.observe_deep(observer(name))) for name, root in roots.items()]
    try:
        doc.apply_update(update)
    except ExceptionGroup:
        return {}  # of the observers, at commit: the update is applied
    finally:
        for root, subscription in subscriptions:
            root.unobserve(subscription)  # not left to when the root object goes: the next step must not be noted twice
    return seen


def _root_changes(before: Any, after: Tree, events: list[_Event] | None) -> list[NodeChange]:
    said, wanted = canonical_json(before), canonical_json(after)
    if said == wanted:
        return []
    try:
        told = [_told(before, event) for event in sorted(events or [], key=_depth)]
        if canonical_json(before) == wanted:
            return [node for node in map(_without_same, told) if "spans" in node or "keys" in node]
    except (_Unfit, LookupError, ValueError, TypeError):
        pass  # such as an offset inside a character, or a path that the content does not have
    return list(_compared(json.loads(said), after, []))


def _depth(event: _Event) -> int:
    return len(event.path)


def _told(root: Any, event: _Event) -> NodeChange:
    """Put an event into words of the content before it, which is changed in place."""
    node = node_at(root, event.path)
    change: NodeChange = {"path": list(event.path), "type": node["type"]}
    if event.delta:
        is_text = "delta" in node
        spans = _text_spans(node["delta"], event.delta) if is_text else _item_spans(_items(node), event.delta)
        if spans:
            change["spans"] = spans
    keys = _key_changes(node, event.keys)
    if keys:
        change["keys"] = keys
    _apply(node, change)
    return change


def node_at(node: Any, path: Sequence[Any]) -> Any:
    """The shared type that a path leads to in a tree. Raises: LookupError and the like where it leads nowhere."""
    for step in path:
        match node:
            case {"type": "map", "entries": entries}:
                node = entries[step]
            case {"delta": delta}:
                node = _embed_at(delta, step)
            case _:
                node = _items(node)[step]
    if not isinstance(node, dict):
        raise _Unfit
    return node


def _items(node: Any) -> list[Any]:
    """The sequence of an array or an XML node. Raises: LookupError."""
    items: list[Any] = node["items"] if node["type"] == "array" else node["children"]
    return items


def _embed_at(delta: list[Any], offset: int) -> Any:
    taking = Taking(delta)
    taking.take(offset)
    [run] = taking.take(1)
    return run["insert"]


class Taking:
    """Takes units off a delta from its start: UTF-8 bytes or UTF-16 units of text; an embed is one."""

    def __init__(self, delta: list[Any], encoding: str = "utf-16-le", width: int = 2) -> None:
        self.delta, self.encoding, self.width = delta, encoding, width
        self.place = self.offset = 0
        self.encoded: bytes | None = None

    def take(self, units: int) -> list[Any]:
        """The next units as runs. Raises: _Unfit past the end, UnicodeDecodeError inside a character."""
        taken: list[Any] = []
        while units > 0:
            if self.place == len(self.delta):
                raise _Unfit
            run = self.delta[self.place]
            if not isinstance(run["insert"], str):
                taken.append(run)
                self.place, units = self.place + 1, units - 1
                continue
            if self.encoded is None:
                self.encoded = run["insert"].encode(self.encoding)
            stop = min(self.offset + units * self.width, len(self.encoded))
            text = self.encoded[self.offset : stop].decode(self.encoding)
            taken.append({"insert": text, "attributes": run["attributes"]})
            units -= (stop - self.offset) // self.width
            self.offset = stop
            if stop == len(self.encoded):
                self.place, self.offset, self.encoded = self.place + 1, 0, None
        return taken

    def rest(self) -> list[Any]:
        if self.encoded is None:
            return self.delta[self.place :]
        run = self.delta[self.place]
        text = self.encoded[self.offset :].decode(self.encoding)
        return [{"insert": text, "attributes": run["attributes"]}, *self.delta[self.place + 1 :]]


def _text_spans(delta: list[Any], steps: list[dict[str, Any]]) -> list[Span]:
    taking = Taking(delta, "utf-8", 1)
    spans: list[Span] = []
    for step in steps:
        formats = {key: plain_json(value) for key, value in sorted((step.get("attributes") or {}).items())}
        if "insert" in step:
            attributes: dict[str, Json] = {key: value for key, value in formats.items() if value is not None}
            _add(spans, {"insert": tree_of(step["insert"]), "attributes": attributes})
        elif "delete" in step:
            was = _joined(taking.take(step["delete"]))
            _add(spans, {"delete": _length(was), "was": was})
        else:
            for run in taking.take(step["retain"]):
                _add(spans, _retained(run, formats))
    return _without_end(spans)


def _retained(run: Any, formats: Mapping[str, Json]) -> Span:
    had = run["attributes"]
    changed = {key: new for key, new in formats.items() if canonical_json(had.get(key)) != canonical_json(new)}
    if not changed:
        return {"retain": _length([run])}
    return {"retain": _length([run]), "attributes": changed, "was": {key: had.get(key) for key in changed}}


def _item_spans(items: list[Any], steps: list[dict[str, Any]]) -> list[Span]:
    spans: list[Span] = []
    place = 0
    for step in steps:
        if "insert" in step:
            _add(spans, {"insert": [tree_of(item) for item in step["insert"]]})
        elif "delete" in step:
            _add(spans, {"delete": step["delete"], "was": items[place : place + step["delete"]]})
            place += step["delete"]
        else:
            _add(spans, {"retain": step["retain"]})
            place += step["retain"]
    if place > len(items):
        raise _Unfit
    return _without_end(spans)


def _key_changes(node: Any, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, KeyChange]:
    had = _keys_of(node) if keys else {}
    found: dict[str, KeyChange] = {}
    for key, event in sorted(keys.items()):
        change: KeyChange = {}
        if key in had:
            change["old"] = had[key]
        if event["action"] != "delete":
            change["new"] = tree_of(event["newValue"]) if node["type"] == "map" else plain_json(event["newValue"])
        if change:
            found[key] = change
    return found


def _without_same(change: NodeChange) -> NodeChange:
    """A change without the keys that were set to what they were."""
    if "keys" in change:
        keys = change.pop("keys")
        new = {key: each for key, each in keys.items() if not _is_same(each)}
        if new:
            change["keys"] = new
    return change


def _is_same(change: KeyChange) -> bool:
    return len(change) == 2 and canonical_json(change["old"]) == canonical_json(change["new"])


def _keys_of(node: Any) -> dict[str, Any]:
    keys: dict[str, Any] = node["entries"] if node["type"] == "map" else node["attributes"]
    return keys


def _add(spans: list[Span], span: Span) -> None:
    """Add a span, joined with the one before where both are of a kind."""
    last: Any = spans[-1] if spans else {}
    if "insert" in span:
        if isinstance(span["insert"], list) and isinstance(last.get("insert"), list):
            last["insert"] += span["insert"]
            return
        texts = isinstance(span["insert"], str) and isinstance(last.get("insert"), str)
        if texts and canonical_json(last["attributes"]) == canonical_json(span["attributes"]):
            last["insert"] += span["insert"]
            return
    elif "retain" in span and "retain" in last and _formats_of(last) == _formats_of(span):
        last["retain"] += span["retain"]
        return
    spans.append(span)


def _formats_of(span: Any) -> str:
    return canonical_json([span.get("attributes"), span.get("was")])


def _without_end(spans: list[Span]) -> list[Span]:
    if spans and "retain" in spans[-1] and "attributes" not in spans[-1]:
        spans.pop()
    return spans


def _apply(node: Any, change: NodeChange) -> None:
    """Change a node of content in place. Raises: _Unfit, LookupError, UnicodeDecodeError."""
    spans = change.get("spans", [])
    if spans and "delta" in node:
        node["delta"] = _applied_to_text(node["delta"], spans)
    elif spans:
        _apply_to_items(_items(node), spans)
    for key, changed in change.get("keys", {}).items():
        if "new" in changed:
            _keys_of(node)[key] = changed["new"]
        else:
            del _keys_of(node)[key]


def _applied_to_text(delta: list[Any], spans: list[Span]) -> list[Any]:
    taking = Taking(delta)
    runs: list[Any] = []
    for span in spans:
        if "insert" in span:
            runs.append({"insert": span["insert"], "attributes": span["attributes"]})
        elif "delete" in span:
            taking.take(span["delete"])
        else:
            formats = span.get("attributes")
            for run in taking.take(span["retain"]):
                runs.append(_formatted(run, formats) if formats else run)
    return _joined([*runs, *taking.rest()])


def _formatted(run: Any, formats: Mapping[str, Json]) -> Any:
    merged = {**run["attributes"], **formats}
    return {"insert": run["insert"], "attributes": {key: merged[key] for key in merged if merged[key] is not None}}


def _apply_to_items(items: list[Any], spans: list[Span]) -> None:
    place = 0
    for span in spans:
        if "insert" in span:
            inserted = span["insert"]
            assert isinstance(inserted, list)
            items[place:place] = json.loads(canonical_json(inserted))  # a copy: what is in it may change further
            place += len(inserted)
        elif "delete" in span:
            if place + span["delete"] > len(items):
                raise _Unfit
            del items[place : place + span["delete"]]
        else:
            place += span["retain"]


def _joined(runs: list[Any]) -> list[Any]:
    """Runs as a canonical tree has them: neighbours of equal attributes are one."""
    joined: list[Any] = []
    for run in runs:
        last: Any = joined[-1] if joined else {"insert": None}
        texts = isinstance(run["insert"], str) and isinstance(last["insert"], str)
        if texts and canonical_json(last["attributes"]) == canonical_json(run["attributes"]):
            joined[-1] = {"insert": last["insert"] + run["insert"], "attributes": run["attributes"]}
        else:
            joined.append(run)
    return joined


def _length(runs: list[Any]) -> int:
    """In UTF-16 units; an embed is one."""
    return sum(len(run["insert"].encode("utf-16-le")) // 2 if isinstance(run["insert"], str) else 1 for run in runs)


def _compared(before: Any, after: Any, path: Path) -> Iterator[NodeChange]:
    """Compare two trees of one type by content."""
    change: NodeChange = {"path": path, "type": after["type"]}
    inner: list[Iterator[NodeChange]] = []
    if "delta" in after:
        spans = _compared_texts(before["delta"], after["delta"])
    elif after["type"] == "map":
        spans = []
    else:
        spans, pairs = _compared_items(_items(before), _items(after))
        inner += [_compared(old, new, [*path, place]) for place, old, new in pairs]
    if spans:
        change["spans"] = spans
    if "entries" in after or "attributes" in after:
        keys, same = _compared_keys(_keys_of(before), _keys_of(after))
        inner += [_compared(_keys_of(before)[key], _keys_of(after)[key], [*path, key]) for key in same]
        if keys:
            change["keys"] = keys
    if "spans" in change or "keys" in change:
        yield change
    yield from chain.from_iterable(inner)


def _compared_keys(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, KeyChange], list[str]]:
    """The keys that changed, and those whose values are types that may have changed inside."""
    keys: dict[str, KeyChange] = {}
    same: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            keys[key] = {"old": before[key]}
        elif key not in before:
            keys[key] = {"new": after[key]}
        elif canonical_json(before[key]) != canonical_json(after[key]):
            if is_same_type(before[key], after[key]):
                same.append(key)
            else:
                keys[key] = {"old": before[key], "new": after[key]}
    return keys, same


def _compared_items(before: list[Any], after: list[Any]) -> tuple[list[Span], list[tuple[int, Any, Any]]]:
    """Spans, and (place after, before, after) of types of one kind that stand for each other."""
    spans: list[Span] = []
    pairs: list[tuple[int, Any, Any]] = []
    had = place = 0
    for change in changes([canonical_json(item) for item in before], [canonical_json(item) for item in after]):
        _add_if(spans, {"retain": change.have_start - had})
        had, place = change.have_start, change.want_start
        for item in after[change.want_start : change.want_stop]:
            old = next((i for i in range(had, change.have_stop) if is_same_type(before[i], item)), None)
            if old is None:
                _add(spans, {"insert": [item]})
            else:
                _add_if(spans, {"delete": old - had, "was": before[had:old]})
                _add(spans, {"retain": 1})
                pairs.append((place, before[old], item))
                had = old + 1
            place += 1
        _add_if(spans, {"delete": change.have_stop - had, "was": before[had : change.have_stop]})
        had = change.have_stop
    return _without_end(spans), pairs


def _add_if(spans: list[Span], span: Span) -> None:
    if span.get("retain") or span.get("delete"):
        _add(spans, span)


def _compared_texts(before: list[Any], after: list[Any]) -> list[Span]:
    old, new = list(_characters(before)), list(_characters(after))
    spans: list[Span] = []
    had = 0
    for change in changes([key for key, _ in old], [key for key, _ in new]):
        _add_if(spans, {"retain": _length([run for _, run in old[had : change.have_start]])})
        was = _joined([run for _, run in old[change.have_start : change.have_stop]])
        _add_if(spans, {"delete": _length(was), "was": was})
        for run in _joined([run for _, run in new[change.want_start : change.want_stop]]):
            _add(spans, {"insert": run["insert"], "attributes": run["attributes"]})
        had = change.have_stop
    return spans


def _characters(delta: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each character or embed as a run, with a key that is equal where it is the same."""
    for run in delta:
        attributes = run["attributes"]
        prefix = canonical_json(attributes)
        if isinstance(run["insert"], str):
            for character in run["insert"]:
                yield f"{prefix} {character}", {"insert": character, "attributes": attributes}
        else:
            yield f"{prefix}{canonical_json(run['insert'])}", run
