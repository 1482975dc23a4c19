"""What a client without a CRDT makes of Quill deltas: written from Quill's words, apart from the server's own."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

Unit = tuple[Any, str]
"""One UTF-16 unit (its number) or an embed, and its attributes as JSON."""


def units_of(text: str) -> list[int]:
    encoded = text.encode("utf-16-le")
    return [int.from_bytes(encoded[place : place + 2], "little") for place in range(0, len(encoded), 2)]


def words_of(attributes: dict[str, Any] | None) -> str:
    return json.dumps({name: value for name, value in (attributes or {}).items() if value is not None}, sort_keys=True)


def inserted(step: dict[str, Any]) -> list[Unit]:
    what, words = step["insert"], words_of(step.get("attributes"))
    return [(unit, words) for unit in (units_of(what) if isinstance(what, str) else [json.dumps(what, sort_keys=True)])]


def applied(units: Sequence[Unit], delta: Iterable[dict[str, Any]]) -> list[Unit]:
    """The units of a text after a delta. Raises: AssertionError where it reaches past the end."""
    result: list[Unit] = []
    at = 0
    for step in delta:
        if "insert" in step:
            result += inserted(step)
            continue
        length = step.get("retain", step.get("delete"))
        assert length is not None
        assert 0 < length <= len(units) - at, "the delta reaches past the end"
        if "retain" in step:
            changed = step.get("attributes") or {}
            result += [(unit, words_of(json.loads(words) | changed)) for unit, words in units[at : at + length]]
        at += length
    return result + list(units[at:])


def text_of(units: Iterable[Unit]) -> str:
    """Plain text, embeds as U+FFFC."""
    numbers = (unit if isinstance(unit, int) else 0xFFFC for unit, _ in units)
    return b"".join(number.to_bytes(2, "little") for number in numbers).decode("utf-16-le")
