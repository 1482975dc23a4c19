"""What a document says, as plain JSON: to be read by people, stored, and compared.

Reading changes nothing in the document. Two documents say the same exactly when their `canonical` texts are equal;
roots that hold nothing count as absent."""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt.guard import TYPE_DEPTH_MAX
from history.crdt.roots import RootKind, root_kinds

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

Tree: TypeAlias = Json
"""A canonical tree. A shared type is an object with a `type`: `text` (`delta`), `array` (`items`), `map` (`entries`),
`fragment` (`children`), `element` (`tag`, `attributes`, `children`) or `xmltext` (`delta`, `attributes`). A delta is a
list of `{"insert": text or tree, "attributes": {…}}`, neighbours with equal attributes joined. A plain value stands as
itself; plain objects and lists are wrapped as `{"type": "json", "value": …}`, bytes are `{"$bytes": base64}`."""

RootContent: TypeAlias = dict[str, Json]
"""A root for readers: `type` (text, array, map or xml) with `text` and `delta`, with `value`, or with `children` and
`text`, a rendering with one line for each block, indented by depth."""

_PYCRDT_TYPES: dict[RootKind, Any] = {
    RootKind.TEXT: Text,
    RootKind.ARRAY: Array,
    RootKind.MAP: Map,
    RootKind.XML: XmlFragment,
}
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)  # `dumps` makes one each time
_EMPTY: tuple[Tree, ...] = (
    {"type": "text", "delta": []},
    {"type": "array", "items": []},
    {"type": "map", "entries": {}},
    {"type": "fragment", "children": []},
)


class ContentTooDeep(ValueError):
    """Raised for shared types nested deeper than the guard lets in."""


def content_of(doc: Doc[Any], kinds: Mapping[str, RootKind] | None = None) -> dict[str, RootContent]:
    """Return each root's content for readers, by name, empty roots included; JSON-serialisable.

    `kinds` spares telling them from the document's structs. Raises: ContentTooDeep."""
    kinds = root_kinds(doc.get_update()) if kinds is None else kinds
    return {name: _readable_root(tree) for name, tree in root_trees(doc, kinds).items()}


def trees_of(doc: Doc[Any], kinds: Mapping[str, RootKind] | None = None) -> dict[str, Tree]:
    """Return each root's canonical tree, by name, without roots that hold nothing. Raises: ContentTooDeep."""
    kinds = root_kinds(doc.get_update()) if kinds is None else kinds
    return {name: tree for name, tree in root_trees(doc, kinds).items() if tree not in _EMPTY}


def canonical(doc: Doc[Any], kinds: Mapping[str, RootKind] | None = None) -> str:
    """Return the document's content as one JSON text, equal exactly when the content is. Raises: ContentTooDeep."""
    return canonical_json(trees_of(doc, kinds))


def canonical_json(value: object) -> str:
    """Write JSON in one form: sorted keys, no spaces. As text, 1 and true differ, which Python's `==` does not see."""
    return _ENCODER.encode(value)


def is_same(one: Json, other: Json) -> bool:
    """Whether two are the same as `canonical_json` writes them, which is looked at only where it may tell more."""
    return one == other and (one == {} or canonical_json(one) == canonical_json(other))


def pycrdt_root(doc: Doc[Any], name: str, kind: RootKind) -> Any:
    """Return a root as the pycrdt type of its kind."""
    return doc.get(name, type=_PYCRDT_TYPES[kind])


def root_trees(doc: Doc[Any], kinds: Mapping[str, RootKind]) -> dict[str, Tree]:
    """Return the canonical tree of each root of `kinds`, by name, empty ones included. Raises: ContentTooDeep."""
    with doc.transaction():
        return {name: tree_of(pycrdt_root(doc, name, kind)) for name, kind in sorted(kinds.items())}


def tree_of(value: Any, depth: int = 0) -> Tree:
    """Return the canonical tree of a value as pycrdt hands it out. Raises: ContentTooDeep."""
    if depth > TYPE_DEPTH_MAX + 1:
        raise ContentTooDeep(f"shared types are nested deeper than {TYPE_DEPTH_MAX}")
    match value:
        case str():  # nearly all that formatted texts are made of
            return value
        case XmlText():
            return {"type": "xmltext", "delta": _delta(value, depth), "attributes": _attributes(value)}
        case Text():
            return {"type": "text", "delta": _delta(value, depth)}
        case Array():
            return {"type": "array", "items": [tree_of(item, depth + 1) for item in value]}
        case Map():
            return {"type": "map", "entries": {key: tree_of(item, depth + 1) for key, item in sorted(value.items())}}
        case XmlElement():
            children = [tree_of(child, depth + 1) for child in value.children]
            return {"type": "element", "tag": value.tag, "attributes": _attributes(value), "children": children}
        case XmlFragment():
            return {"type": "fragment", "children": [tree_of(child, depth + 1) for child in value.children]}
        case dict() | list() | tuple():
            return {"type": "json", "value": plain_json(value)}
        case _:
            return plain_json(value)


def plain_json(value: Any) -> Json:
    """Return a plain value as JSON: integral numbers as integers, bytes and non-finite numbers as objects."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                return {"$number": str(value)}
            # pycrdt reads integers back as floats; JavaScript does not tell them apart at all.
            return int(value) if value.is_integer() else value
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode()}
        case dict():
            return {str(key): plain_json(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_json(item) for item in value]
        case _:
            # Such as a shared type for an XML attribute, which pycrdt hands out unwrapped: no reason to hide the rest.
            return {"$unreadable": type(value).__name__}


def _attributes(node: Any) -> dict[str, Json]:
    return {key: plain_json(value) for key, value in sorted(iter(node.attributes))}


def _delta(text: Any, depth: int) -> list[Json]:
    delta: list[Json] = []
    last: dict[str, Json] | None = None
    for chunk, formats in text.diff():
        insert = tree_of(chunk, depth + 1)
        attributes = {key: plain_json(value) for key, value in sorted((formats or {}).items()) if value is not None}
        # yrs cuts a text where it was typed in pieces; the content is the same.
        if last is not None and isinstance(insert, str) and _continues(last, attributes):
            last["insert"] = f"{last['insert']}{insert}"
            continue
        last = {"insert": insert, "attributes": attributes}
        delta.append(last)
    return delta


def _continues(run: dict[str, Json], attributes: dict[str, Json]) -> bool:
    return isinstance(run["insert"], str) and is_same(run["attributes"], attributes)


def _readable_root(tree: Any) -> RootContent:
    match tree["type"]:
        case "text":
            return {"type": "text", "text": _plain_text(tree["delta"]), "delta": _readable_delta(tree["delta"])}
        case "fragment":
            lines = [line for child in tree["children"] for line in _lines(child, 0)]
            children: list[Json] = [readable(child) for child in tree["children"]]
            return {"type": "xml", "children": children, "text": "\n".join(lines)}
        case kind:
            return {"type": kind, "value": readable(tree)}


def readable(tree: Any) -> Any:
    """Turn a canonical tree into the JSON that Yjs's `toJSON` would give, XML and formatted text as objects."""
    if not isinstance(tree, dict) or "type" not in tree:
        return tree
    match tree["type"]:
        case "json":
            return tree["value"]
        case "array":
            return [readable(item) for item in tree["items"]]
        case "map":
            return {key: readable(item) for key, item in tree["entries"].items()}
        case "text":
            return _readable_text(tree["delta"])
        case "xmltext":
            return {"type": "text", "delta": _readable_delta(tree["delta"]), "attributes": tree["attributes"]}
        case "fragment":
            return {"type": "fragment", "children": [readable(child) for child in tree["children"]]}
        case _:
            return {**tree, "children": [readable(child) for child in tree["children"]]}


def _readable_text(delta: list[Any]) -> Json:
    """A nested text without formats and embeds reads as a string."""
    if all(isinstance(run["insert"], str) and not run["attributes"] for run in delta):
        return "".join(run["insert"] for run in delta)
    return {"type": "text", "delta": _readable_delta(delta)}


def _readable_delta(delta: list[Any]) -> list[Json]:
    """Write a delta as Quill does: attributes only where there are some."""
    runs: list[Json] = []
    for run in delta:
        told: dict[str, Json] = {"insert": readable(run["insert"])}
        if run["attributes"]:
            told["attributes"] = run["attributes"]
        runs.append(told)
    return runs


def _plain_text(delta: list[Any]) -> str:
    return "".join(run["insert"] for run in delta if isinstance(run["insert"], str))


def _lines(node: Any, depth: int) -> list[str]:
    """Render an XML node: text and inline nodes on one line, blocks inside a block one step further in."""
    indent = "  " * depth
    if node["type"] == "xmltext":
        return [indent + line for line in _plain_text(node["delta"]).split("\n")]
    children = node["children"]
    if not children:
        return [f"{indent}[{node.get('tag') or node['type']}]"]
    if all(child["type"] == "xmltext" for child in children):
        text = "".join(_plain_text(child["delta"]) for child in children)
        return [indent + line for line in text.split("\n")]
    # The outermost block of a list or a quote needs no line of its own: its children's indentation shows it.
    return [line for child in children for line in _lines(child, depth + 1)]
