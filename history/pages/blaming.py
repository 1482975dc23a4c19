"""Who wrote what as HTML: the content in the colours of its authors, who and when at each piece.

As in `rendering`, everything that comes from a document or a name is escaped, and what is shown is bounded."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from history.authors import Author
from history.blaming import Blamed, Writing
from history.crdt.blame import NodeBlame
from history.crdt.content import readable
from history.crdt.updates import utf16_length
from history.pages.rendering import CHARACTERS_MAX, PIECE_CHARACTERS, ContentHtml, ShownContent, ShownRoot, root_kind
from history.timeline import act_of

UNKNOWN_WORDS = "nobody knows who"
PIECES_CHARACTERS = 4 * PIECE_CHARACTERS
"""A piece with its author, as it bears a line of words."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """How many characters and items of what is shown an author wrote."""

    author: Author
    count: int


@dataclass(frozen=True, slots=True)
class ShownBlame:
    """`content` as `history/_content.html` shows it, and its authors, who wrote most first."""

    content: ShownContent
    authors: list[Wrote]


def shown_blame(blamed: Blamed) -> ShownBlame:
    html = BlameHtml(blamed.writings, characters_max=CHARACTERS_MAX)
    roots = [ShownRoot(name, root_kind(nodes[0]["type"]), html.blamed(nodes)) for name, nodes in blamed.content.items()]
    authors = [Wrote(author, count) for author, count in html.counts.most_common()]
    return ShownBlame(ShownContent(roots, html.is_cut), authors)


class BlameHtml(ContentHtml):
    """Builds the HTML of one blame and counts what it shows; `counts` tell how much of it is whose."""

    def __init__(self, writings: Mapping[int, Writing], *, characters_max: int) -> None:
        super().__init__(characters_max=characters_max)
        self.counts: Counter[Author] = Counter()
        self._writings = writings
        self._words = {number: _words(writing) for number, writing in writings.items()}
        self._nodes_at: dict[tuple[Any, ...], NodeBlame] = {}

    def blamed(self, nodes: Sequence[NodeBlame]) -> SafeString:
        """The HTML of one root."""
        self._parts = []
        self._nodes_at = {tuple(node["path"]): node for node in nodes}
        self._blamed_node(())
        return mark_safe("".join(self._parts))

    def _blamed_node(self, path: tuple[Any, ...]) -> None:
        node = self._nodes_at.get(path)
        if node is None:
            return  # it holds nothing
        if "keys" in node:
            self._tagged("div", "keys", (path, node["keys"]), self._blamed_keys)
        if "runs" in node:
            name = {"text": "prose", "xmltext": "words"}.get(node["type"], "blocks")
            self._tagged("div" if name != "words" else "span", name, (path, node["runs"]), self._runs)

    def _runs(self, told: tuple[tuple[Any, ...], Sequence[Any]]) -> None:
        path, runs = told
        place = 0
        for _, same in groupby(runs, key=self._same):
            for run in _joined(same):
                if self._is_full:
                    return
                if "node" in run:
                    self._inner(run, (*path, place))
                    place += 1
                    continue
                insert = run["insert"]
                self._piece(run, insert)
                place += utf16_length(insert) if isinstance(insert, str) else _items(insert)

    def _same(self, run: Any) -> Any:
        """What neighbours have in common that are shown as one piece."""
        return self._title(run), self._colour(run), "deleted_by" in run

    def _inner(self, run: Any, path: tuple[Any, ...]) -> None:
        """A shared type that stands in a sequence."""
        self._count(run, 1)
        self._parts.append(self._opened("del" if "deleted_by" in run else "div", run, "node"))
        name = run.get("tag") or run["node"]
        if run["node"] == "xmltext":
            self._blamed_node(path)
        else:
            self._block(name, {}, path, self._blamed_node)
        self._parts.append("</del>" if "deleted_by" in run else "</div>")

    def _piece(self, run: Any, insert: Any) -> None:
        tag = "del" if "deleted_by" in run else "span"
        self._parts.append(self._opened(tag, run, "by"))
        self._count(run, len(insert) if isinstance(insert, str) else _items(insert))
        self._text(insert if isinstance(insert, str) else _json(insert))
        self._parts.append(f"</{tag}>")

    def _blamed_keys(self, told: tuple[tuple[Any, ...], Mapping[str, Any]]) -> None:
        path, keys = told
        for key, blamed in keys.items():
            if self._is_full:
                return
            self._count(blamed, 1)
            tag = "del" if "deleted_by" in blamed else "span"
            self._parts.append(f'<div class="key">{self._opened(tag, blamed, "by")}<span class="key-name">')
            self._parts.append(f"{self._name(key)}</span> ")
            if "value" in blamed:
                self._text(_value(blamed["value"]))
            self._parts.append(f"</{tag}>")
            self._blamed_node((*path, key))
            self._parts.append("</div>")

    def _opened(self, tag: str, run: Any, name: str) -> str:
        self._left -= PIECES_CHARACTERS
        return f'<{tag} class="{name}{self._colour(run)}" title="{escape(self._title(run))}">'

    def _colour(self, run: Any) -> str:
        """The class of the author's colour, with a space before it: of who deleted it, where it is deleted."""
        writing = self._writings.get(run.get("deleted_by", run["by"]))
        return f" author-{writing.author.colour}" if writing is not None and writing.author.is_known else ""

    def _title(self, run: Any) -> str:
        written = self._words.get(run["by"], UNKNOWN_WORDS)
        if "deleted_by" not in run:
            return written
        return f"{written} — deleted by {self._words.get(run['deleted_by'], UNKNOWN_WORDS)}"

    def _count(self, run: Any, count: int) -> None:
        writing = self._writings.get(run["by"])
        if writing is not None and "deleted_by" not in run:
            self.counts[writing.author] += count


def _words(writing: Writing) -> str:
    """Who, when, and through what, in one line."""
    at = date_format(timezone.localtime(writing.at), "j M Y, H:i")
    parts = [writing.author.name, at, *([f"via {writing.via.label}"] if writing.via else []), act_of(writing.kind)]
    return " · ".join(part for part in parts if part)


def _joined(runs: Iterable[Any]) -> list[Any]:
    """Runs of one author and time, neighbouring texts joined."""
    joined: list[Any] = []
    for run in runs:
        last = joined[-1] if joined else {}
        if isinstance(run.get("insert"), str) and isinstance(last.get("insert"), str):
            joined[-1] = {**last, "insert": last["insert"] + run["insert"]}
        else:
            joined.append(run)
    return joined


def _json(insert: Any) -> str:
    """An embed, or an array's values one behind the other."""
    values = insert if isinstance(insert, list) else [insert]
    return ", ".join(json.dumps(readable(value), ensure_ascii=False) for value in values)


def _value(tree: Any) -> str:
    return tree if isinstance(tree, str) else _json([tree])


def _items(insert: Any) -> int:
    """How many places a run takes: an array's values stand in a list, an embed is one."""
    return len(insert) if isinstance(insert, list) else 1
