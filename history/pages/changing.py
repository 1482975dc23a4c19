"""A difference as HTML: what came as `ins`, what went as `del`, in its place among what stayed.

As in `rendering`, everything that comes from a document is escaped, and what is shown is bounded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.safestring import SafeString, mark_safe
from pycrdt import Doc

from history.crdt.changes import Changes, NodeChange, Path, Span, Taking, node_at
from history.crdt.content import Tree, readable, root_trees
from history.crdt.roots import RootKind, root_kinds
from history.crdt.updates import utf16_length
from history.pages.rendering import (
    CHARACTERS_MAX,
    PIECE_CHARACTERS,
    ContentHtml,
    ShownContent,
    ShownRoot,
    root_kind,
)

CONTEXT_CHARACTERS = 120
"""Of a text that stayed, so much is shown before and after what changed."""


def shown_changes(changes: Changes, after: "Doc[Any]") -> ShownContent:
    """The roots that changed, as HTML, among what stayed in the document of after, whose content is read once."""
    kinds = root_kinds(after.get_update())
    trees = root_trees(after, kinds)
    html = ChangesHtml(characters_max=CHARACTERS_MAX)
    roots = [
        ShownRoot(name, _kind(nodes, kinds.get(name)), html.changed(nodes, trees.get(name)))
        for name, nodes in changes.items()
    ]
    return ShownContent(roots, html.is_cut)


def _kind(nodes: Sequence[NodeChange], kind: RootKind | None) -> str:
    """What a root is called. One that holds nothing any more shows no kind: what went from it does."""
    for node in nodes:
        if not node["path"]:
            return root_kind(node["type"])
    return kind.value if kind is not None else ""


class ChangesHtml(ContentHtml):
    """Builds the HTML of one difference and counts what it shows."""

    def changed(self, nodes: Sequence[NodeChange], after: Tree) -> SafeString:
        """The HTML of what changed in one root, whose tree of after may be missing where it holds nothing."""
        self._parts = []
        for node in nodes:
            if self._is_full:
                break
            self._changed_node(node, after)
        return mark_safe("".join(self._parts))

    def _changed_node(self, change: NodeChange, root: Any) -> None:
        self._left -= PIECE_CHARACTERS
        self._parts.append('<section class="change">')
        if change["path"]:
            self._parts.append(
                f'<p class="path">{" › ".join(self._name(step) for step in _steps(root, change["path"]))}</p>'
            )
        node = node_at(root, change["path"]) if root is not None else {}
        spans = change.get("spans", [])
        if spans and change["type"] in ("text", "xmltext"):
            self._tagged("div", "prose", (spans, node.get("delta", [])), self._text_spans)
        elif spans:
            self._tagged("div", "blocks", spans, self._item_spans)
        if "keys" in change:
            self._tagged("div", "keys", change["keys"], self._keys)
        self._parts.append("</section>")

    def _text_spans(self, told: tuple[Sequence[Span], list[Any]]) -> None:
        spans, delta = told
        taking = Taking(delta)
        for number, span in enumerate(spans):
            if self._is_full:
                return
            if "insert" in span:
                taking.take(_units(span["insert"]))
                self._in("ins", [{"insert": span["insert"], "attributes": span["attributes"]}], self._delta)
            elif "delete" in span:
                self._in("del", span["was"], self._delta)
            elif "attributes" in span:
                self._formatted(span, taking.take(span["retain"]))
            else:
                self._stayed(taking.take(span["retain"]), is_first=number == 0)
        self._stayed(taking.rest(), is_last=True)

    def _in(self, tag: str, inner: Any, write: Any) -> None:
        self._left -= PIECE_CHARACTERS
        self._parts.append(f"<{tag}>")
        write(inner)
        self._parts.append(f"</{tag}>")

    def _formatted(self, span: Span, runs: Sequence[Any]) -> None:
        told = [
            f"{key}: {_value(value)}" if value is not None else f"no {key}" for key, value in span["attributes"].items()
        ]
        self._parts.append('<span class="formatted">')
        self._delta(runs)
        self._parts.append(f'<span class="note">{self._name(", ".join(told))}</span></span>')

    def _stayed(self, runs: Sequence[Any], *, is_first: bool = False, is_last: bool = False) -> None:
        """What stayed between two changes: its ends, where it is long."""
        head = [] if is_first else _first_characters(runs, CONTEXT_CHARACTERS)
        tail = [] if is_last else _last_characters(runs, CONTEXT_CHARACTERS)
        if _length(head) + _length(tail) >= _length(runs):
            self._delta(runs)
            return
        self._delta(head)
        self._parts.append('<span class="left-out">…</span>')
        self._delta(tail)

    def _item_spans(self, spans: Sequence[Span]) -> None:
        for span in spans:
            if self._is_full:
                return
            if "insert" in span:
                self._in("ins", span["insert"], self._trees)
            elif "delete" in span:
                self._in("del", span["was"], self._trees)
            else:
                stayed = "1 stays" if span["retain"] == 1 else f"{span['retain']} stay"
                self._parts.append(f'<p class="left-out">{stayed} as before</p>')

    def _keys(self, keys: Mapping[str, Any]) -> None:
        for key, change in keys.items():
            if self._is_full:
                return
            self._left -= PIECE_CHARACTERS
            self._parts.append(f'<div class="key"><span class="key-name">{self._name(key)}</span> ')
            for tag, name in (("del", "old"), ("ins", "new")):
                if name in change:
                    self._in(tag, [change[name]], self._trees)
            self._parts.append("</div>")

    def _trees(self, trees: Sequence[Any]) -> None:
        """Trees of any kind: XML as blocks, texts as texts, all others as JSON."""
        for tree in trees:
            if self._is_full:
                return
            self._left -= PIECE_CHARACTERS
            match tree:
                case {"type": "element" | "xmltext"}:
                    self._node(tree)
                case {"type": "text", "delta": delta}:
                    self._tagged("div", "prose", delta, self._delta)
                case {"type": "fragment", "children": children}:
                    self._nodes(children)
                case _:
                    self._parts.append('<code class="value">')
                    self._text(_value(readable(tree)))
                    self._parts.append("</code>")


def _steps(root: Any, path: Path) -> list[str]:
    """A path in words: tags and places, counted from 1; the text of a block goes without saying."""
    words: list[str] = []
    for number, step in enumerate(path, 1):
        node = node_at(root, path[:number])
        if isinstance(step, str):
            words.append(step)
        elif node["type"] == "xmltext" and words:
            continue
        else:
            words.append(f"{node.get('tag') or node['type']} {step + 1}")
    return words


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _units(insert: Any) -> int:
    return utf16_length(insert) if isinstance(insert, str) else 1


def _length(runs: Sequence[Any]) -> int:
    """In characters; an embed is one."""
    return sum(len(run["insert"]) if isinstance(run["insert"], str) else 1 for run in runs)


def _first_characters(runs: Sequence[Any], count: int) -> list[Any]:
    taken: list[Any] = []
    for run in runs:
        if count <= 0:
            break
        is_text = isinstance(run["insert"], str)
        taken.append({**run, "insert": run["insert"][:count]} if is_text else run)
        count -= len(run["insert"]) if is_text else 1
    return taken


def _last_characters(runs: Sequence[Any], count: int) -> list[Any]:
    taken: list[Any] = []
    for run in reversed(runs):
        if count <= 0:
            break
        is_text = isinstance(run["insert"], str)
        taken.append({**run, "insert": run["insert"][-count:]} if is_text else run)
        count -= len(run["insert"]) if is_text else 1
    return taken[::-1]
