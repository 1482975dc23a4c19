"""The awareness protocol: who is in a room and what they show of themselves, such as a name and a cursor.

The codec is strict, because stock clients send back whatever they receive: what is let in from one must be accepted
from all. `AwarenessStates` is one room's memory of it. Source: y-protocols 1.0.7, awareness.js."""

import json
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from history.crdt.lib0 import Malformed, Reader, var_string, var_uint

AWARENESS_ENTRIES_MAX = 2048
"""Entries in one message. A client echoes in one message all that it was sent in one, a whole room's included."""

AWARENESS_STATES_MAX = 2048
"""Clients that one room shows at a time."""

STATE_JSON_BYTES_MAX = 16 * 1024
"""One client's state, as UTF-8 JSON. A name, a colour and a cursor are about 300 bytes."""

STATE_DEPTH_MAX = 64
"""Nesting of a state; `json` recurses, and so do the clients that compare states."""

AWARENESS_CLOCK_MAX = (1 << 31) - 1
"""A client that moves its cursor 60 times a second gets here in a year. A forged clock near 2^53 would never be
outrun by the client it belongs to."""

NUMBER_GROWTH_BYTES_MAX = 21
"""How much longer `JSON.stringify` may write a number than it was: 1e20 becomes 21 digits."""

_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_EXPONENTS = re.compile(r"\d[eE][+-]?\d")


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
    if clock > AWARENESS_CLOCK_MAX:
        raise MalformedEntry(index, "its clock is longer than 31 bits")
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
    if not isinstance(state, dict):
        return "its state is neither an object nor null"
    if size + _growth_bytes(text) > STATE_JSON_BYTES_MAX:
        return f"its state is larger than {STATE_JSON_BYTES_MAX} bytes once a client has sent it on"
    return None


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


def _growth_bytes(valid_json: str) -> int:
    """Bound how much longer the text is after `JSON.stringify(JSON.parse(text))`: only exponents grow."""
    if _EXPONENTS.search(valid_json) is None:
        return 0
    return NUMBER_GROWTH_BYTES_MAX * len(_EXPONENTS.findall(_STRINGS.sub("", valid_json)))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Python reads NaN and Infinity, at which a browser's JSON.parse throws.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def encode_entry(entry: AwarenessEntry) -> bytes:
    state = "null" if entry.state_json is None else entry.state_json
    return var_uint(entry.client_id) + var_uint(entry.clock) + var_string(state)


def encode_awareness_update(entries: Iterable[AwarenessEntry]) -> bytes:
    encoded = [encode_entry(entry) for entry in entries]
    return var_uint(len(encoded)) + b"".join(encoded)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a message changed in a room."""

    added: tuple[AwarenessEntry, ...] = ()
    updated: tuple[AwarenessEntry, ...] = ()
    removed: tuple[AwarenessEntry, ...] = ()
    outdated: tuple[AwarenessEntry, ...] = ()
    """For the sender alone: clients that it shows but that left at this clock. A Yjs client that finds itself here
    (it reconnected) takes a higher clock and sends its state again, at once instead of after 15 to 30 seconds."""

    @property
    def broadcast(self) -> tuple[AwarenessEntry, ...]:
        """What everyone in the room is sent, the sender included: its echo keeps the connection alive."""
        return self.added + self.updated + self.removed


@dataclass(slots=True)
class _Shown:
    entry: AwarenessEntry
    owner: Hashable
    seen_at: float


class AwarenessStates:
    """The awareness of one room. A client's entry belongs to the owner (a connection) that last raised its clock.

    It does not judge whether an owner may speak for a client: filter with `owner_of` or the document's client ids
    before `apply`. Times are seconds of any one clock. At most `states_max` clients are shown, and the clocks of as
    many that left are remembered, so that a copy relayed late does not bring them back."""

    def __init__(self, *, states_max: int = AWARENESS_STATES_MAX) -> None:
        self._states_max = states_max
        self._shown: dict[int, _Shown] = {}
        self._owned: dict[Hashable, set[int]] = {}
        self._left: dict[int, int] = {}  # client id → clock; the longest gone first

    def __len__(self) -> int:
        return len(self._shown)

    def entries(self) -> tuple[AwarenessEntry, ...]:
        """Return every client shown, for someone who joins."""
        return tuple(shown.entry for shown in self._shown.values())

    def owner_of(self, client_id: int) -> Hashable | None:
        shown = self._shown.get(client_id)
        return None if shown is None else shown.owner

    def apply(
        self, entries: Iterable[AwarenessEntry], *, owner: Hashable, now: float, owned_max: int | None = None
    ) -> Changes:
        """Take what one owner sent; `owned_max` bounds how many clients it may show. New clients for which the room or
        the owner has no place left are passed over.

        The higher clock wins. At an equal clock only a null wins over a state, and only from the entry's owner: Yjs
        clients send such nulls about everyone else when they wake from sleep or lose their own connection."""
        added: list[AwarenessEntry] = []
        updated: list[AwarenessEntry] = []
        removed: list[AwarenessEntry] = []
        outdated: list[AwarenessEntry] = []
        for entry in entries:
            client_id = entry.client_id
            shown = self._shown.get(client_id)
            left_clock = self._left.get(client_id)
            known_clock = shown.entry.clock if shown else left_clock
            raises = known_clock is None or entry.clock > known_clock
            if entry.state_json is None:
                if raises or (shown and shown.owner == owner and shown.entry.clock == entry.clock):
                    self._leave(entry)
                    if known_clock is not None:
                        removed.append(entry)
            elif not raises:
                if left_clock is not None:
                    outdated.append(AwarenessEntry(client_id, left_clock, None))
            elif self._has_place(client_id, owner, owned_max):
                self._show(entry, owner=owner, now=now)
                (updated if shown else added).append(entry)
        return Changes(tuple(added), tuple(updated), tuple(removed), tuple(outdated))

    def remove_owner(self, owner: Hashable) -> tuple[AwarenessEntry, ...]:
        """Forget an owner whose connection ended; return the nulls, at raised clocks, to broadcast."""
        return self._remove(sorted(self._owned.get(owner, ())))

    def expire(self, now: float, timeout_seconds: float) -> tuple[AwarenessEntry, ...]:
        """Remove the clients not heard of for `timeout_seconds`; return the nulls, at raised clocks, to broadcast.

        Yjs clients renew theirs every 15 s and drop others after 30 s."""
        silent = [client_id for client_id, shown in self._shown.items() if now - shown.seen_at >= timeout_seconds]
        return self._remove(silent)

    def _has_place(self, client_id: int, owner: Hashable, owned_max: int | None) -> bool:
        if client_id not in self._shown and len(self._shown) >= self._states_max:
            return False
        owned = self._owned.get(owner, ())
        return owned_max is None or client_id in owned or len(owned) < owned_max

    def _show(self, entry: AwarenessEntry, *, owner: Hashable, now: float) -> None:
        self._disown(entry.client_id)
        self._left.pop(entry.client_id, None)
        self._shown[entry.client_id] = _Shown(entry, owner, now)
        self._owned.setdefault(owner, set()).add(entry.client_id)

    def _leave(self, entry: AwarenessEntry) -> None:
        self._disown(entry.client_id)
        self._shown.pop(entry.client_id, None)
        self._left.pop(entry.client_id, None)  # back in as the newest
        self._left[entry.client_id] = entry.clock
        if len(self._left) > self._states_max:
            del self._left[next(iter(self._left))]

    def _disown(self, client_id: int) -> None:
        shown = self._shown.get(client_id)
        if shown is None:
            return
        owned = self._owned[shown.owner]
        owned.discard(client_id)
        if not owned:
            del self._owned[shown.owner]

    def _remove(self, client_ids: Iterable[int]) -> tuple[AwarenessEntry, ...]:
        nulls = []
        for client_id in client_ids:
            # Clients relay the null, so its clock must be one that the codec takes; an equal clock is enough.
            clock = min(self._shown[client_id].entry.clock + 1, AWARENESS_CLOCK_MAX)
            null = AwarenessEntry(client_id, clock, None)
            self._leave(null)
            nulls.append(null)
        return tuple(nulls)
