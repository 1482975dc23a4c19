"""A moment's content as HTML: text with its formats, XML as nested blocks, maps and arrays as JSON.

Everything that comes from a document goes through `escape`: it is text wherever it lands, never markup, never an
address to follow. What is shown is bounded by CHARACTERS_MAX; the API gives the whole."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from history.crdt.content import RootContent

CHARACTERS_MAX = 400_000
"""Characters of content that one page shows; a browser lays out more than that slowly."""

_FORMAT_TAGS = {
    "bold": "strong",
    "strong": "strong",
    "italic": "em",
    "em": "em",
    "underline": "u",
    "strike": "s",
    "code": "code",
    "superscript": "sup",
    "subscript": "sub",
}
_NAME_CHARACTERS_MAX = 200
"""Longer tags, keys and attribute values are cut for display."""

PIECE_CHARACTERS = 20
"""What an element counts for, as its markup costs a browser too: many small pieces are cut as one long text is."""


@dataclass(frozen=True, slots=True)
class ShownRoot:
    """One root of a document as a page shows it. `html` is empty when it holds nothing."""

    name: str
    kind: str
    html: SafeString


def root_kind(node_type: str) -> str:
    """What a root of that type is called where its content is shown."""
    return "xml" if node_type == "fragment" else node_type


@dataclass(frozen=True, slots=True)
class ShownContent:
    """What `history/_content.html` shows; `is_cut` where it is longer than CHARACTERS_MAX."""

    roots: list[ShownRoot]
    is_cut: bool

    @property
    def is_empty(self) -> bool:
        return not any(root.html for root in self.roots)


def shown_content(content: Mapping[str, RootContent]) -> ShownContent:
    """The roots as HTML. Recursion is bounded: deeper content is refused when it is read."""
    html = ContentHtml(characters_max=CHARACTERS_MAX)
    roots = [ShownRoot(name, str(root["type"]), html.root(root)) for name, root in content.items()]
    return ShownContent(roots, html.is_cut)


class ContentHtml:
    """Builds the HTML of one moment and counts what it shows."""

    def __init__(self, *, characters_max: int) -> None:
        self._left = characters_max
        self._parts: list[str] = []
        self.is_cut = False

    def root(self, content: RootContent) -> SafeString:
        """The HTML of one root; empty for a root that holds nothing."""
        self._parts = []
        match content["type"]:
            case "text":
                if content["delta"]:
                    self._tagged("div", "prose", content["delta"], self._delta)
            case "xml":
                if content["children"]:
                    self._tagged("div", "blocks", content["children"], self._nodes)
            case _:
                if content["value"]:
                    self._parts.append('<pre class="json" tabindex="0">')
                    self._text(json.dumps(content["value"], indent=2, ensure_ascii=False))
                    self._parts.append("</pre>")
        return mark_safe("".join(self._parts))

    @property
    def _is_full(self) -> bool:
        """Whether nothing more is to be shown; then it says so from now on."""
        self.is_cut = self.is_cut or self._left <= 0
        return self._left <= 0

    def _text(self, text: str) -> None:
        if len(text) > self._left:
            text = text[: max(self._left, 0)]
            self.is_cut = True
        self._left -= len(text)
        self._parts.append(escape(text))

    def _name(self, value: Any) -> str:
        """A tag, a key or an attribute's value: short, escaped for text and for a quoted attribute alike."""
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = text if len(text) <= _NAME_CHARACTERS_MAX else f"{text[:_NAME_CHARACTERS_MAX]}…"
        self._left -= len(text)
        return str(escape(text))

    def _tagged(self, tag: str, name: str, inner: Any, write: Any) -> None:
        self._parts.append(f'<{tag} class="{name}">')
        write(inner)
        self._parts.append(f"</{tag}>")

    def _nodes(self, nodes: Iterable[Any]) -> None:
        for node in nodes:
            if self._is_full:
                return
            self._node(node)

    def _node(self, node: Any) -> None:
        self._left -= PIECE_CHARACTERS
        if node["type"] in ("text", "xmltext"):
            if node["delta"]:
                self._tagged("span", "words", node["delta"], self._delta)
            return
        tag = node.get("tag", node["type"])
        if tag in ("hardBreak", "hard_break", "br") and not node["children"]:
            self._parts.append("<br>")
            return
        self._block(tag, node.get("attributes") or {}, node["children"], self._nodes)

    def _block(self, tag: str, attributes: Mapping[str, Any], inner: Any, write: Any) -> None:
        self._parts.append(f'<div class="block {_block_class(tag)}"><span class="tag">{self._name(tag)}')
        self._attributes(attributes)
        self._parts.append("</span>")
        self._tagged("div", "inside", inner, write)
        self._parts.append("</div>")

    def _attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self._parts.append(f' <span class="attribute">{self._name(key)}={self._name(value)}</span>')

    def _delta(self, delta: Iterable[Any]) -> None:
        for run in delta:
            if self._is_full:
                return
            self._run(run["insert"], run.get("attributes") or {})

    def _run(self, insert: Any, attributes: Mapping[str, Any]) -> None:
        on = {key: value for key, value in attributes.items() if value is not False}
        tags = list(dict.fromkeys(_FORMAT_TAGS[key] for key in on if key in _FORMAT_TAGS))
        others = {key: value for key, value in on.items() if key not in _FORMAT_TAGS}
        self._left -= PIECE_CHARACTERS * (len(tags) + bool(others) + (not isinstance(insert, str)))
        if others:
            said = ", ".join(f"{self._name(key)}: {self._name(value)}" for key, value in others.items())
            self._parts.append(f'<span class="format" title="{said}">')
        self._parts += [f"<{tag}>" for tag in tags]
        if isinstance(insert, str):
            self._text(insert)
        else:
            self._parts.append('<span class="embed">')
            self._text(json.dumps(insert, ensure_ascii=False))
            self._parts.append("</span>")
        self._parts += [f"</{tag}>" for tag in reversed(tags)]
        if others:
            self._parts.append("</span>")


def _block_class(tag: str) -> str:
    """How a block of that name looks; names of editors that are common, everything else as a plain block."""
    match tag.lower().replace("_", ""):
        case "heading" | "h1" | "h2" | "h3":
            return "heading"
        case "codeblock" | "code" | "pre":
            return "code"
        case "blockquote":
            return "quote"
        case _:
            return "plain"
