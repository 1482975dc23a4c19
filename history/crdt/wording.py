"""A difference in numbers and in one line of words, for lists of edits.

Bounded whatever changed: excerpts and names are cut, and what is too much is only counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from history.crdt.changes import Changes

WORDS_LENGTH_MAX = 240
"""Characters of a whole line."""

EXCERPT_LENGTH_MAX = 48
"""Characters of a text that is quoted."""

NAMES_MAX = 3
"""Names of keys, formats or tags that are said of a kind; of the others it is said how many they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much changed. Characters are code points of texts, those in types that came or went included, and UTF-16
    units where they were formatted; items are what came to arrays, XML nodes and embeds; keys those of maps and XML."""

    inserted_characters: int = 0
    deleted_characters: int = 0
    formatted_characters: int = 0
    inserted_items: int = 0
    deleted_items: int = 0
    set_keys: int = 0
    deleted_keys: int = 0


@dataclass(slots=True)
class _Told:
    """All that a difference says, gathered by what is said of it."""

    inserted: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    formatted: Counter[str] = field(default_factory=Counter)
    formatted_characters: int = 0
    added: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    set_keys: list[str] = field(default_factory=list)
    deleted_keys: list[str] = field(default_factory=list)


def counts_of(changed: Changes) -> Counts:
    told = _told(changed)
    return Counts(
        inserted_characters=sum(map(len, told.inserted)),
        deleted_characters=sum(map(len, told.deleted)),
        formatted_characters=told.formatted_characters,
        inserted_items=sum(told.added.values()),
        deleted_items=sum(told.removed.values()),
        set_keys=len(told.set_keys),
        deleted_keys=len(told.deleted_keys),
    )


def in_words(changed: Changes) -> str:
    """Say in at most WORDS_LENGTH_MAX characters what changed; "no change" for nothing."""
    told = _told(changed)
    parts = [
        *_of_text("inserted", told.inserted),
        *_of_text("deleted", told.deleted),
        *_listed("formatted", [f"{_numbered(count, 'character')} {name}" for name, count in told.formatted.items()]),
        *_listed("added", [_numbered(count, name) for name, count in told.added.items()]),
        *_listed("removed", [_numbered(count, name) for name, count in told.removed.items()]),
        *_listed("set", told.set_keys),
        *_listed("removed", told.deleted_keys),
    ]
    return _cut(" · ".join(parts), WORDS_LENGTH_MAX) or "no change"


def _told(changed: Changes) -> _Told:
    told = _Told()
    for nodes in changed.values():
        for node in nodes:
            is_text = node["type"] in ("text", "xmltext")
            for span in node.get("spans", []):
                _tell_span(told, span, is_text=is_text)
            for key, change in node.get("keys", {}).items():
                (told.set_keys if "new" in change else told.deleted_keys).append(key)
                told.inserted += _texts(change.get("new"))
                told.deleted += _texts(change.get("old"))
    return told


def _tell_span(told: _Told, span: Any, *, is_text: bool) -> None:
    if "insert" in span:
        inserted = [span["insert"]] if is_text else span["insert"]
        for item in inserted:
            if is_text and isinstance(item, str):
                told.inserted.append(item)
            else:
                told.inserted += _texts(item)
                told.added[_name_of(item, is_text=is_text)] += 1
    elif "delete" in span:
        deleted = [{"type": "text", "delta": span["was"]}] if is_text else span["was"]
        told.deleted += chain.from_iterable(map(_texts, deleted))
        embeds = [run["insert"] for run in span["was"] if not isinstance(run["insert"], str)] if is_text else deleted
        told.removed.update(_name_of(item, is_text=is_text) for item in embeds)
    elif "attributes" in span:
        told.formatted_characters += span["retain"]
        for name, value in span["attributes"].items():
            told.formatted[name if value is not None else f"not {name}"] += span["retain"]


def _texts(tree: Any) -> Iterator[str]:
    """The texts of shared types in a canonical tree, in order."""
    waiting = [tree]
    while waiting:
        match waiting.pop():
            case {"type": "text" | "xmltext", "delta": list(delta)}:
                waiting += reversed([run["insert"] for run in delta if not isinstance(run["insert"], str)])
                waiting.append(_Text("".join(run["insert"] for run in delta if isinstance(run["insert"], str))))
            case {"type": "array", "items": list(inner)} | {"type": _, "children": list(inner)}:
                waiting += reversed(inner)
            case {"type": "map", "entries": dict(entries)}:
                waiting += reversed(entries.values())
            case _Text(text):
                yield text


class _Text(NamedTuple):
    """A text of a shared type, as against a plain value."""

    text: str


def _name_of(tree: Any, *, is_text: bool) -> str:
    match tree:
        case {"type": "element", "tag": str(tag)}:
            return _cut(tag, EXCERPT_LENGTH_MAX)
        case {"type": "xmltext" | "text"}:
            return "text"
        case {"type": "map" | "array" | "fragment" as name}:
            return str(name)
        case _:
            return "embed" if is_text else "item"


def _of_text(verb: str, pieces: list[str]) -> Iterator[str]:
    text = " ".join(pieces)
    words = text.split()
    if not words:
        if text:
            yield f"{verb} white space"
        return
    quoted = f"“{_cut(' '.join(words), EXCERPT_LENGTH_MAX)}”"
    yield f"{verb} {quoted}" if len(words) == 1 else f"{verb} {len(words)} words: {quoted}"


def _listed(verb: str, names: list[str]) -> Iterator[str]:
    distinct = list(dict.fromkeys(names))
    said = [_cut(name, EXCERPT_LENGTH_MAX) for name in distinct[:NAMES_MAX]]
    if len(distinct) > NAMES_MAX:
        said.append(f"{len(distinct) - NAMES_MAX} more")
    if said:
        yield f"{verb} {', '.join(said)}"


def _numbered(count: int, name: str) -> str:
    if name == "text":
        return "a text" if count == 1 else f"{count} texts"
    if count == 1:
        return f"1 {name}"
    return (
        f"{count} {name}s"
        if name in ("character", "item", "embed", "map", "array", "fragment")
        else f"{count} × {name}"
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
