"""Plain JSON values from clients without a CRDT, before pycrdt sees them: what it or Yjs could not hold is refused."""

import math
from typing import Any

from history.crdt.lib0 import ANY_DEPTH_MAX

_EXACT_MAX = 2**53
"""Above it JavaScript has floats, and pycrdt panics above 2^63."""


class BadValue(ValueError):
    """Raised for what no document can hold; the message says what is wrong, without any of it."""


def checked(value: Any, *, depth: int = 0) -> Any:
    """The value as a document holds it: integers beyond 2^53 as floats. Raises: BadValue."""
    if depth > ANY_DEPTH_MAX:
        raise BadValue(f"a value is nested deeper than {ANY_DEPTH_MAX}")
    match value:
        case str():
            return checked_text(value)
        case bool() | None:
            return value
        case int():
            return value if abs(value) <= _EXACT_MAX else checked(_as_float(value))
        case float() if math.isfinite(value):
            return value
        case list():
            return [checked(item, depth=depth + 1) for item in value]
        case dict():
            return {checked_text(key): checked(item, depth=depth + 1) for key, item in value.items()}
        case _:
            raise BadValue("a number is not finite")


def checked_text(text: str) -> str:
    r"""The text, which JSON can have write half a character (`"\ud83d"`). Raises: BadValue."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadValue("a text holds half a character") from None
    return text


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
