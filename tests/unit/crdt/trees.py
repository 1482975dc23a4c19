"""Any canonical trees (`history.crdt.content.Tree`) for Hypothesis: small ones, easily mistaken for equal."""

from itertools import pairwise
from typing import Any, TypeAlias

from hypothesis import strategies as st

from history.crdt.content import canonical_json

Trees: TypeAlias = st.SearchStrategy[Any]

_TEXTS = st.text("ab é😀\n", max_size=6)
_NAMES = st.sampled_from(["a", "b", "😀"])
_PLAIN = st.one_of(st.none(), st.booleans(), st.sampled_from([0, 1, 1.5, -7]), _TEXTS)
_OBJECTS = st.builds(
    lambda value: {"type": "json", "value": value},
    st.lists(_PLAIN, max_size=2) | st.dictionaries(_NAMES, _PLAIN, max_size=2),
)
_FORMATS = st.dictionaries(st.sampled_from(["bold", "color"]), st.sampled_from([True, 1, "red"]), max_size=2)
_ATTRIBUTES = st.dictionaries(_NAMES, _PLAIN, max_size=2)


def _is_canonical(delta: list[Any]) -> bool:
    """Whether texts that stand beside each other differ in their attributes."""
    return not any(
        isinstance(run["insert"], str)
        and isinstance(after["insert"], str)
        and canonical_json(run["attributes"]) == canonical_json(after["attributes"])
        for run, after in pairwise(delta)
    )


def _is_embed(tree: Any) -> bool:
    return isinstance(tree, dict)


def _deltas(embeds: Trees) -> Trees:
    runs = st.fixed_dictionaries({"insert": _TEXTS.filter(bool) | embeds, "attributes": _FORMATS})
    return st.lists(runs, max_size=4).filter(_is_canonical)


def _text(embeds: Trees) -> Trees:
    return st.fixed_dictionaries({"type": st.just("text"), "delta": _deltas(embeds)})


def _array(values: Trees) -> Trees:
    return st.fixed_dictionaries({"type": st.just("array"), "items": st.lists(values, max_size=4)})


def _map(values: Trees) -> Trees:
    return st.fixed_dictionaries({"type": st.just("map"), "entries": st.dictionaries(_NAMES, values, max_size=3)})


def _fragment(nodes: Trees) -> Trees:
    return st.fixed_dictionaries({"type": st.just("fragment"), "children": st.lists(nodes, max_size=3)})


def _element(nodes: Trees) -> Trees:
    return st.fixed_dictionaries(
        {
            "type": st.just("element"),
            "tag": st.sampled_from(["p", "ul"]),
            "attributes": _ATTRIBUTES,
            "children": st.lists(nodes, max_size=3),
        }
    )


_VALUES = st.recursive(
    _PLAIN | _OBJECTS, lambda inner: st.one_of(_text(inner.filter(_is_embed)), _array(inner), _map(inner)), max_leaves=6
)
_XML_TEXT = st.fixed_dictionaries({"type": st.just("xmltext"), "delta": _deltas(_OBJECTS), "attributes": _ATTRIBUTES})
_NODES = st.recursive(_XML_TEXT, _element, max_leaves=5)

ROOTS: Trees = st.fixed_dictionaries(
    {
        "text": _text(_VALUES.filter(_is_embed)),
        "array": _array(_VALUES),
        "map": _map(_VALUES),
        "xml": _fragment(_NODES),
    }
)
"""A document of every kind of root."""

EMPTY_ROOTS: dict[str, Any] = {
    "text": {"type": "text", "delta": []},
    "array": {"type": "array", "items": []},
    "map": {"type": "map", "entries": {}},
    "xml": {"type": "fragment", "children": []},
}
