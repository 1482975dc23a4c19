"""The awareness protocol: who is in a room and what they show of themselves, such as a name and a cursor.

The codec is strict, because stock clients send back whatever they receive: what is let in from one must be accepted
from all. Source: y-protocols 1.0.7, awareness.js."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from history.crdt.lib0 import SAFE_INTEGER_MAX, Malformed, Reader, var_string, var_uint

AWARENESS_ENTRIES_MAX = 2048
"""Entries in one message. A client echoes in one message all that it was sent in one, a whole room's included."""

STATE_JSON_BYTES_MAX = 16 * 1024
"""One client's state, as UTF-8 JSON. A name, a colour and a cursor are about 300 bytes."""

SHOWN_JSON_BYTES_MAX = 12 * 1024
"""A state as it is shown, its numbers at their longest. Below what may be sent: a stock client sends it back, and
y-prosemirror first writes a colour and a name into it."""

STATE_DEPTH_MAX = 64
"""Nesting of a state; `json` recurses, and so do the clients that compare states."""

AWARENESS_CLOCK_MAX = (1 << 31) - 1
"""The highest clock that is shown: a client that moves its cursor 60 times a second gets here in a year. A higher one
is no reason to refuse a message: a client may have been led there by others, and still has to be answered."""

NUMBER_GROWTH_BYTES_MAX = 21
"""How much longer `JSON.stringify` may write a number than it was: 1e20 becomes 21 digits."""

USER_BYTES_MAX = 1024
"""A user's key as text; an account's key is far shorter."""

_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_EXPONENTS = re.compile(r"\d[eE][+-]?\d")
_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


class MalformedEntry(Malformed):
    """Raised when one entry of an awareness update is not acceptable; `index` is its 0-based place."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"awareness entry {index}: {problem}")
        self.index = index


@dataclass(frozen=True, slots=True)
class AwarenessEntry:
    """What one client shows at one clock; `state_json` is a JSON object as text, or None for a client that left.

    A decoded one is safe for `json.loads`: bounded in size and depth, and an object."""

    client_id: int
    clock: int
    state_json: str | None


def decode_awareness_update(data: bytes, *, entries_max: int = AWARENESS_ENTRIES_MAX) -> tuple[AwarenessEntry, ...]:
    """Decode an awareness message's payload: all entries or none. None at all is legal: an empty room says so.

    Raises: Malformed, or MalformedEntry which says where."""
    reader = Reader(data)
    count = reader.count(item_bytes_min=3)
    if count > entries_max:
        raise Malformed(f"an awareness message holds {count} entries, more than {entries_max}")
    entries = tuple(_decode_entry(reader, index) for index in range(count))
    reader.finish()
    if len({entry.client_id for entry in entries}) != count:
        raise Malformed("an awareness message names a client twice")
    return entries


def _decode_entry(reader: Reader, index: int) -> AwarenessEntry:
    client_id, clock = reader.var_uint(), reader.var_uint()
    text = reader.var_string()
    if problem := _problem_of_state(text):
        raise MalformedEntry(index, problem)
    return AwarenessEntry(client_id, clock, None if text == "null" else text)


def _problem_of_state(text: str) -> str | None:
    """Say what is wrong with a state's JSON. `json` sees it only once its size and depth are known."""
    if text == "null":
        return None
    size = len(text.encode())
    if size > STATE_JSON_BYTES_MAX:
        return f"its state is larger than {STATE_JSON_BYTES_MAX} bytes"
    if _is_too_deep(text):
        return f"its state is nested deeper than {STATE_DEPTH_MAX}"
    try:
        state = _JSON.decode(text)
    except ValueError:
        return "its state is not JSON"
    return None if isinstance(state, dict) else "its state is neither an object nor null"


def _is_too_deep(text: str) -> bool:
    if text.count("{") + text.count("[") <= STATE_DEPTH_MAX:
        return False
    depth = 0
    # Linear on hostile text too: the pattern is possessive, and a string that never ends matches up to the end.
    for match in _BRACKETS.finditer(text):
        token = match[0]
        if token in ("{", "["):
            depth += 1
            if depth > STATE_DEPTH_MAX:
                return True
        elif token in ("}", "]"):
            depth -= 1
    return False


def read_state(state_json: str) -> dict[str, Any] | None:
    """The state of a decoded entry, its numbers as a browser reads them; None where one of them would be infinite."""
    try:
        state: dict[str, Any] = _BROWSERS_JSON.decode(state_json)
    except ValueError:
        return None
    return state


def write_state(state: dict[str, Any]) -> str | None:
    """Write a state that was read, as JSON; None where it would be larger than SHOWN_JSON_BYTES_MAX at a client that
    sends it on."""
    text = _LONE_SURROGATES.sub(
        lambda half: f"\\u{ord(half[0]):04x}", json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    )
    return None if len(text.encode()) + _growth_bytes(text) > SHOWN_JSON_BYTES_MAX else text


def _growth_bytes(written: str) -> int:
    """Bound how much longer the text is after `JSON.stringify(JSON.parse(text))`: only exponents grow."""
    if _EXPONENTS.search(written) is None:
        return 0
    return NUMBER_GROWTH_BYTES_MAX * len(_EXPONENTS.findall(_STRINGS.sub("", written)))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number that a browser reads as infinite")
    return value


def _integer(text: str) -> int | float:
    """Beyond 53 bits what a browser makes of it: else it would write an exponent where this process counted none."""
    value = _float(text)
    return int(text) if abs(value) <= SAFE_INTEGER_MAX else value


# Python reads NaN and Infinity, at which a browser's JSON.parse throws.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
# Twice as slow: most entries are relays and are read no further.
_BROWSERS_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer)


def encode_entry(entry: AwarenessEntry) -> bytes:
    state = "null" if entry.state_json is None else entry.state_json
    return var_uint(entry.client_id) + var_uint(entry.clock) + var_string(state)


def encode_awareness_update(entries: Iterable[AwarenessEntry]) -> bytes:
    encoded = [encode_entry(entry) for entry in entries]
    return var_uint(len(encoded)) + b"".join(encoded)


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry and whose it is: a user's key as text, empty for nobody. What processes tell each other."""

    user: str
    entry: AwarenessEntry


def encode_claims(claims: Iterable[Claim]) -> bytes:
    encoded = [var_string(claim.user) + encode_entry(claim.entry) for claim in claims]
    return var_uint(len(encoded)) + b"".join(encoded)


def decode_claims(data: bytes, *, claims_max: int = AWARENESS_ENTRIES_MAX) -> tuple[Claim, ...]:
    """Decode what `encode_claims` wrote. Raises: Malformed."""
    reader = Reader(data)
    count = reader.count(item_bytes_min=4)
    if count > claims_max:
        raise Malformed(f"a message holds {count} claims, more than {claims_max}")
    claims = tuple(_decode_claim(reader, index) for index in range(count))
    reader.finish()
    return claims


def _decode_claim(reader: Reader, index: int) -> Claim:
    user = reader.var_string()
    if len(user.encode()) > USER_BYTES_MAX:
        raise MalformedEntry(index, f"its user is longer than {USER_BYTES_MAX} bytes")
    return Claim(user, _decode_entry(reader, index))
