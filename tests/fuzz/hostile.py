"""Every class of input that is known to kill, hang or mislead pycrdt, Yjs or a server around them, at its smallest; and
large ones, whose cost must grow with their size and no faster."""

import random
from collections.abc import Callable, Mapping

from history.crdt.lib0 import var_bytes, var_string, var_uint

BULK_BYTES = 64 * 1024
"""Size of the large inputs."""


def one_struct(content: bytes, *, kind: int, root: str = "t", client: int = 1, clock: int = 0) -> bytes:
    """An update with one struct in a root."""
    return b"\1\1" + var_uint(client) + var_uint(clock) + bytes([kind, 1]) + var_string(root) + content + b"\0"


def nested_types(depth: int, *, ref: bytes = b"\0") -> bytes:
    """That many shared types inside each other: arrays, or `ref` (an element's is followed by its tag)."""
    inner = b"".join(b"\x07\0\1" + var_uint(clock) + ref for clock in range(depth - 1))
    return b"\1" + var_uint(depth) + b"\1\0\x07\1\1r" + ref + inner + b"\0"


def many_roots(count: int) -> bytes:
    structs = b"".join(b"\x08\1" + var_string(str(number)) + b"\1\x7e" for number in range(count))
    return b"\1" + var_uint(count) + b"\1\0" + structs + b"\0"


def sync(update: bytes) -> bytes:
    return b"\0\2" + var_bytes(update)


def awareness(*entries: tuple[int, int, str]) -> bytes:
    encoded = b"".join(var_uint(client) + var_uint(clock) + var_string(state) for client, clock, state in entries)
    return b"\1" + var_bytes(var_uint(len(entries)) + encoded)


_ELEMENT = b"\3\1p"

HOSTILE_UPDATES: Mapping[str, bytes] = {
    "values nested so deep that applying them is a segmentation fault": one_struct(
        b"\1" + b"\x75\1" * 26_700 + b"\x7e", kind=8
    ),
    "values nested so deep that reading them is a segmentation fault": one_struct(
        b"\1" + b"\x75\1" * 13_400 + b"\x7e", kind=8
    ),
    "objects nested deep": one_struct(b"\1" + b"\x76\1\0" * 13_400 + b"\x7e", kind=8),
    "an embed nested deep": one_struct(var_string("[" * 13_400 + "]" * 13_400), kind=5),
    "arrays nested so deep that applying them is a segmentation fault": nested_types(40_000),
    "XML nested so deep that reading it is a segmentation fault": nested_types(20_000, ref=_ELEMENT),
    "a clock that aborts yrs": bytes.fromhex("010101ffffffff0fc4030d030e0365cc8100"),
    "a clock that panics yrs": bytes.fromhex("010102ffffffff0f840101016100"),
    "a client without structs, on which yrs panics": b"\1\0\3\0\0",
    "JSON content, whose snapshot does not load": one_struct(b"\1" + var_string("1"), kind=2),
    "a subdocument": one_struct(var_string("guid") + b"\x76\0", kind=9),
    "a skip": b"\1\1\1\0\x0a\5\0",
    "a weak link": one_struct(b"\7\0", kind=7),
    "an XML hook": one_struct(b"\5\0", kind=7),
    "a hundred thousand roots": many_roots(100_000),
    "a length that is one endless integer": b"\1\1\1\0\4\1\1t" + b"\xff" * 400_000,
    "a count beyond the input": var_uint(1 << 28) + b"\0" * 10,
    "a deleted run that uses the clocks up": one_struct(var_uint((1 << 31) - 2), kind=1),
    "a collected run that uses the clocks up": b"\1\1\1\0\0" + var_uint((1 << 31) - 2) + b"\0",
    "bytes after the end": one_struct(b"\1a", kind=4) + b"\0",
    "an integer not in its shortest form": b"\x80\0\0",
    "a number that is not in its shortest form": one_struct(b"\1\x7d\x80\0", kind=8),
    "a number of 69 bits, which yrs and Yjs read differently": one_struct(
        b"\1\x7d\xbf" + b"\xff" * 8 + b"\x7f", kind=8
    ),
}
"""By what they are: each is refused by a guard of any document."""

HOSTILE_UPDATES_AFTER: Mapping[str, tuple[bytes, bytes]] = {
    "text in an array, which no reader comes back from": (
        one_struct(b"\1\x7b\x3f\xf8\0\0\0\0\0\0", kind=8, root="r"),
        bytes.fromhex("0101020044010006e697a5e69cac00"),
    ),
    "a value among XML nodes, on which readers panic": (
        one_struct(_ELEMENT, kind=7, root="r"),
        b"\1\1\2\0\x88\1\0\1\x7e\0",
    ),
    "content in a map without a key": (one_struct(b"\1", kind=7, root="r"), b"\1\1\2\0\x08\0\1\0\1\x7e\0"),
    "a parent that is no type": (one_struct(b"\1a", kind=4, root="r"), b"\1\1\2\0\4\0\1\0\1b\0"),
    "several values under a key, of which one may be deleted alone": (
        one_struct(b"\1", kind=7, root="r"),
        b"\1\1\1\1\x28\0\1\0\1k\3\x79\x78\x7e\0",
    ),
    "the rest of a struct behind a high surrogate": (
        one_struct(var_string("😀a"), kind=4, root="r"),
        b"\1\1\1\2\x84\1\0\2ab\0",
    ),
    "neighbours in different roots": (
        b"\1\2\1\0\4\1\1a\1a\4\1\1b\1b\0",
        b"\1\1\2\0\xc4\1\0\1\1\1x\0",
    ),
}
"""By what they are: an honest update, and the hostile one that builds on it."""

_DEEP_STATE = '{"d":' * 20_000 + "1" + "}" * 20_000

HOSTILE_FRAMES: Mapping[str, bytes] = {
    **{what: sync(update) for what, update in HOSTILE_UPDATES.items()},
    "an empty frame": b"",
    "a sync message without a type": b"\0",
    "an unknown message": b"\x09",
    "an unknown sync message": b"\0\3\0",
    "an authentication message of a client": b"\2\0\0",
    "a payload cut short": b"\0\2\x05\1\1",
    "a sync message whose length is one endless integer": b"\0\2" + b"\xff" * 400_000,
    "a message type that is one endless integer": b"\xff" * 400_000,
    "more messages than a frame may hold": b"\3" * 257,
    "a state vector that claims 2^28 entries": b"\0\0" + var_bytes(var_uint(1 << 28)),
    "a state vector with a client twice": b"\0\0" + var_bytes(b"\2\1\1\1\2"),
    "a state vector with a clock beyond 31 bits": b"\0\0" + var_bytes(b"\1\1" + var_uint(1 << 31)),
    "an awareness state nested deep": awareness((1, 1, _DEEP_STATE)),
    "an awareness state that is no JSON": awareness((1, 1, '{"a":')),
    "an awareness state that is no object": awareness((1, 1, "[]")),
    "an awareness state that browsers cannot read": awareness((1, 1, '{"a":NaN}')),
    "an awareness state of a megabyte": awareness((1, 1, '{"a":"' + "x" * 1_000_000 + '"}')),
    "an awareness clock of 2^60": b"\1" + var_bytes(b"\1\1" + b"\x80" * 8 + b"\x10" + var_string("{}")),
    "an awareness clock of 2^80": b"\1" + var_bytes(b"\1\1" + b"\x80" * 11 + b"\x08" + var_string("{}")),
    "an awareness clock that no browser counts": awareness((1, 1 << 53, "{}")),
    "an awareness message with a client twice": awareness((1, 1, "{}"), (1, 2, "{}")),
    "an awareness message of 200,000 clients": awareness(*((client, 1, "{}") for client in range(200_000))),
}
"""By what they are: each closes its socket and changes nothing. The one known class that closes nothing is a flood of
updates that build on nothing, which honest clients send too: `test_catching_up.py` holds what it may cost."""


def bulk_frame(rng: random.Random, known: Mapping[int, int]) -> bytes:
    """A frame of about `BULK_BYTES`, of one of the shapes that have cost somebody quadratic time."""
    free = next(client for client in range(50) if client not in known)
    return rng.choice(list(BULK_SHAPES.values()))(free)


def _repeated(unit: bytes) -> int:
    return (BULK_BYTES - 64) // len(unit)


def _chain(client: int, unit: bytes, *, deletes: bytes = b"\0") -> bytes:
    """One struct of text and then `unit` as often as there is room for."""
    count = _repeated(unit)
    return sync(b"\1" + var_uint(count + 1) + var_uint(client) + b"\0\4\1\1t\1a" + unit * count + deletes)


def _origins(client: int, kind: bytes = b"\x84", more: bytes = b"") -> bytes:
    """Structs that each stand behind the first unit, so before all that came before them."""
    return _chain(client, kind + var_uint(client) + b"\0" + more + b"\1x")


def _clients_that_wait(client: int, *, rising: bool) -> bytes:
    """Each client's struct stands behind the next client's, the last one's in the root."""
    count = BULK_BYTES // 11
    first = 1 << 14  # three bytes each
    numbers = range(first, first + count)
    structs = [b"\1" + var_uint(each) + b"\0\x84" + var_uint(each + 1) + b"\0\1x" for each in numbers]
    structs.append(b"\1" + var_uint(first + count) + b"\0\4\1\1t\1a")
    return sync(var_uint(len(structs)) + b"".join(structs if rising else reversed(structs)) + b"\0")


def _clients_that_wait_for_nothing(client: int) -> bytes:
    count = BULK_BYTES // 11
    numbers = range(1 << 14, (1 << 14) + count)
    structs = [b"\1" + var_uint(each) + b"\0\x84" + var_uint(each + 1) + b"\0\1x" for each in numbers]
    return sync(var_uint(len(structs)) + b"".join(structs) + b"\0")


def _values(client: int, tag: bytes) -> bytes:
    count = _repeated(tag)
    return sync(b"\1\1" + var_uint(client) + b"\0\x08\1\1a" + var_uint(count) + tag * count + b"\0")


def _deleted_ranges(client: int) -> bytes:
    count = BULK_BYTES // 4
    ranges = b"".join(var_uint(2 * place) + b"\1" for place in range(count))
    head = b"\1\2" + var_uint(client) + b"\0\4\1\1t\1a\1"
    collected = b"\x81" + var_uint(client) + b"\0" + var_uint(2 * count)
    return sync(head[:-1] + collected + b"\1" + var_uint(client) + var_uint(count) + ranges)


def _cuts(client: int, *, rising: bool) -> bytes:
    """Deleted units, every other one of a long text."""
    count = BULK_BYTES // 7
    ranges = [var_uint(2 * place) + b"\1" for place in range(count)]
    text = b"\1\1" + var_uint(client) + b"\0\4\1\1t" + var_string("x" * (2 * count))
    deleted = b"\1" + var_uint(client) + var_uint(count) + b"".join(ranges if rising else reversed(ranges))
    return sync(text + deleted)


def _keys(client: int) -> bytes:
    """Values under one key of a map, each overwriting the one before."""
    return _chain_of(client, b"\x28\1\1m\1k\1\x7e")


def _chain_of(client: int, unit: bytes) -> bytes:
    count = _repeated(unit)
    return sync(b"\1" + var_uint(count) + var_uint(client) + b"\0" + unit * count + b"\0")


def _goes_on(client: int, info: int, content: bytes, *, units: int = 1) -> bytes:
    """Structs of one client that each go on where the one before ends, which yrs joins pair by pair."""
    first = bytes([info & 0x1F]) + b"\1\1t" + content
    count = _repeated(bytes([info, client, 0, 0, 0]) + content)
    rest = (bytes([info]) + var_uint(client) + var_uint(units * each - 1) + content for each in range(1, count))
    return sync(b"\1" + var_uint(count) + var_uint(client) + b"\0" + first + b"".join(rest) + b"\0")


def _state_vector(client: int) -> bytes:
    count = BULK_BYTES // 4
    return b"\0\0" + var_bytes(var_uint(count) + b"".join(var_uint((1 << 14) + each) + b"\1" for each in range(count)))


BULK_SHAPES: Mapping[str, Callable[[int], bytes]] = {
    "inserts behind one unit": _origins,
    "inserts before one unit": lambda client: _origins(client, b"\x44"),
    "inserts in the root": lambda client: _chain_of(client, b"\4\1\1t\1x"),
    "formats": lambda client: _chain(client, b"\x86" + var_uint(client) + b"\0\1b\1" + b"1"),
    "embeds": lambda client: _chain(client, b"\x85" + var_uint(client) + b"\0\1" + b"1"),
    "types": lambda client: _chain(client, b"\x87" + var_uint(client) + b"\0\1"),
    "collected units": lambda client: _chain_of(client, b"\0\1"),
    "deleted units": lambda client: _chain_of(client, b"\1\1\1t\1"),
    "one key overwritten": _keys,
    "clients that wait for the next": lambda client: _clients_that_wait(client, rising=True),
    "clients in order": lambda client: _clients_that_wait(client, rising=False),
    "clients that wait for what is not there": _clients_that_wait_for_nothing,
    "nulls": lambda client: _values(client, b"\x7e"),
    "integers": lambda client: _values(client, b"\x7d\0"),
    "empty objects": lambda client: _values(client, b"\x76\0"),
    "lists in lists": lambda client: _values(client, b"\x75\1" * 60 + b"\x7e"),
    "one long text": lambda client: sync(one_struct(var_string("x" * BULK_BYTES), kind=4, client=client)),
    "emoji": lambda client: sync(one_struct(var_string("😀" * (BULK_BYTES // 4)), kind=4, client=client)),
    "deleted ranges": _deleted_ranges,
    "cuts in one text": lambda client: _cuts(client, rising=True),
    "cuts in one text from its end on": lambda client: _cuts(client, rising=False),
    "text that goes on": lambda client: _goes_on(client, 0x84, b"\1x"),
    "values that go on": lambda client: _goes_on(client, 0x88, b"\5" + b"\x78" * 5, units=5),
    "a state vector": _state_vector,
    "awareness states": lambda client: awareness(*((each, 1, '{"a":[1]}') for each in range(2048))),
    "one awareness state": lambda client: awareness((1, 1, '{"a":' + '[{"b":' * 30 + "1" + "}]" * 30 + "}")),
    "awareness numbers": lambda client: awareness(
        *((each, 1, '{"a":[' + ",".join(["1e5"] * 600) + "]}") for each in range(20))
    ),
    "brackets in a state": lambda client: awareness(*((each, 1, '{"a":"' + "[" * 15_000 + '"}') for each in range(4))),
}
"""By what they are made of: a function of a client id that nobody has."""
