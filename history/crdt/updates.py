"""Yjs updates (v1), read without pycrdt and without recursion over structs.

This is what stands between client bytes and yrs, which crashes, hangs or panics on some of what it is given: every
count, clock and nesting is bounded here, and whatever has two readings is refused.
Source: yjs src/utils/encoding.js, src/structs/Item.js (`readItemContent`), DeleteSet.js."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache, partial
from heapq import heappop, heappush
from math import isfinite
from typing import NamedTuple, TypeAlias

from history.crdt.lib0 import ANY_DEPTH_MAX, AnyValue, Malformed, Reader, var_string, var_uint

CLOCK_MAX = (1 << 31) - 1
"""Largest end of a struct or a deleted range; yrs counts clocks in 32 bits and aborts when they overflow."""

DELETED_LENGTH_MAX = 1 << 26
"""Longest single run of deleted or collected units, far above any document, far below what would use up the clocks."""

Id: TypeAlias = tuple[int, int]
"""(client, clock): the name of one unit of content."""


class RefusedUpdate(Malformed):
    """Raised for an update that can be read but that this server does not take, such as one with a subdocument."""


class UpdateTooLarge(RefusedUpdate):
    """Raised for an update of more structs, deleted ranges and values than may be in one."""

    def __init__(self, parts_max: int) -> None:
        super().__init__(f"the update holds more than {parts_max} structs, deleted ranges and values")


class MissingDependency(Exception):
    """Raised for an update that needs unit `clock` of `client`, which the document does not have.

    pycrdt would hold the update back without a trace; the sender must send what is missing first."""

    def __init__(self, client: int, clock: int) -> None:
        super().__init__(f"the update needs unit {clock} of client {client}")
        self.client = client
        self.clock = clock


class Kind(IntEnum):
    """What a struct holds; the number is Yjs's content reference."""

    GC = 0
    DELETED = 1
    BINARY = 3
    STRING = 4
    EMBED = 5
    FORMAT = 6
    TYPE = 7
    ANY = 8


class TypeRef(IntEnum):
    """Which shared type a struct of `Kind.TYPE` makes; the number is Yjs's type reference."""

    ARRAY = 0
    MAP = 1
    TEXT = 2
    XML_ELEMENT = 3
    XML_FRAGMENT = 4
    XML_HOOK = 5
    XML_TEXT = 6


class TypeContent(NamedTuple):
    """A nested shared type; `name` is an element's tag, else None."""

    ref: TypeRef
    name: str | None


class FormatContent(NamedTuple):
    """A formatting mark; `value` is JSON text."""

    key: str
    value: str


Content: TypeAlias = str | bytes | list[AnyValue] | TypeContent | FormatContent | None


class Struct(NamedTuple):
    """One run of units of one client, as it travels.

    `length` counts UTF-16 units for strings and values for `Kind.ANY`. `parent` is a root's name, the id of a nested
    type, or None where it is inherited from the origins. `content` is the text (`STRING`), JSON text (`EMBED`), a
    list (`ANY`), bytes (`BINARY`), a `TypeContent`, a `FormatContent`, or None (`DELETED`, `GC`). `times` is how often
    the same bytes come one after another, of which `decode_runs` makes one; never where the first of them goes on
    behind its client's last unit, as the others do not."""

    client: int
    clock: int
    length: int
    kind: Kind
    origin: Id | None
    right_origin: Id | None
    parent: str | Id | None
    parent_key: str | None
    content: Content
    times: int = 1

    @property
    def stop(self) -> int:
        """The clock behind its last unit."""
        return self.clock + self.length * self.times


class DeletedRange(NamedTuple):
    """`length` ≥ 1 deleted units of a client from `clock` on."""

    client: int
    clock: int
    length: int


class Update(NamedTuple):
    """A decoded update: structs grouped by client in rising order of clocks, then what it deletes.

    Of `decode_runs` also `spans`: where the bytes of each struct begin and end, of all its `times` together."""

    structs: list[Struct]
    deletes: list[DeletedRange]
    spans: Sequence[tuple[int, int]] = ()


# Bound once: looking a member up on its enum class costs more than reading the struct's integers.
_GC, _DELETED, _BINARY, _STRING = Kind.GC, Kind.DELETED, Kind.BINARY, Kind.STRING
_EMBED, _FORMAT, _TYPE, _ANY = Kind.EMBED, Kind.FORMAT, Kind.TYPE, Kind.ANY
_HAS_ORIGIN, _HAS_RIGHT_ORIGIN, _HAS_PARENT_KEY, _KIND_BITS = 0x80, 0x40, 0x20, 0x1F
# One struct, no deletes; a var_uint of up to 42 bits in its shortest form; info byte, origin, perhaps a right origin.
_VAR_UINT = rb"([\x00-\x7f]|[\x80-\xff]{1,5}[\x01-\x7f])"
_ORIGINS = b"(?:\x84" + _VAR_UINT * 2 + b"|\xc4" + _VAR_UINT * 4 + b")"
_ANY_VAR_UINT = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,7}[\x01-\x7f])"
HEAD_OF_RUN = re.compile(
    b"(?:[\x81\x84\x41\x44]%(id)s|[\xc1\xc4]%(id)s%(id)s)(%(length)s)"
    % {b"id": _ANY_VAR_UINT * 2, b"length": _ANY_VAR_UINT}
)
"""Text or a deleted run with an origin, up to its length, which is the group: what most of any document is made of. Who
walks over a state that was read before passes over them so in a fifth of `read_struct`'s time."""
_KEYSTROKE = re.compile(b"\x01\x01" + _VAR_UINT * 2 + _ORIGINS + _VAR_UINT + rb"([\x00-\x7f]+)\x00")
_DELETION = re.compile(b"\x00\x01" + _VAR_UINT + b"\x01" + _VAR_UINT * 2)
_TYPE_REFS = tuple(TypeRef)
_XML_ELEMENT, _XML_HOOK = TypeRef.XML_ELEMENT, TypeRef.XML_HOOK
_NAMELESS_TYPES = tuple(TypeContent(ref, None) for ref in TypeRef)
_PLAIN_JSON = frozenset({"null", "true", "false", "0", "1", '""', "{}", "[]"})
# A named tuple's own constructor takes twice as long.
_struct = partial(tuple.__new__, Struct)
_deleted_range = partial(tuple.__new__, DeletedRange)
_update = partial(tuple.__new__, Update)
_REFUSED_KINDS = {
    2: "the update holds JSON content of an old Yjs, which yrs reads wrongly",
    9: "the update holds a subdocument",
    10: "the update skips over structs that it does not hold",
}


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number


def _integer(text: str) -> int:
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:  # yrs reads no other, and fails in the middle of applying
        raise ValueError(text)
    return number


_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer)


def utf16_length(text: str) -> int:
    """Count the UTF-16 units of a text, which is how Yjs measures it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) >> 1


def decode_update(data: bytes, *, parts_max: int | None = None) -> Update:
    """Read an update (v1) of at most `parts_max` structs, deleted ranges and values in all.

    Raises: Malformed when the bytes are no update; RefusedUpdate when they are one that the server does not take."""
    structs, deletes, _ = decode_runs(data, parts_max=parts_max)
    if structs and any(struct.times > 1 for struct in structs):
        structs = [single for struct in structs for single in singles(struct)]
    return _update((structs, deletes, ()))


def decode_runs(data: bytes, *, parts_max: int | None = None) -> Update:
    """As `decode_update`, but equal neighbours are one struct with its `times`: 64 KiB may hold 32,000 structs, and
    what is found out about the first of them holds for all."""
    return _decode_keystroke(data) or _decode_deletion(data) or _decode_any_update(data, parts_max)


def singles(struct: Struct) -> Iterator[Struct]:
    """Yield the structs that one of `decode_runs` stands for."""
    for clock in range(struct.clock, struct.stop, struct.length):
        yield struct._replace(clock=clock, times=1)


def _decode_keystroke(data: bytes) -> Update | None:
    """Read ASCII text put behind or between other text, which most updates are, in half the general reader's time.

    Returns None for any other shape and for whatever is not in order: the general reader then says what it is."""
    found = _keystroke_in(data)
    if found is None:
        return None
    client, clock, left_client, left_clock, *between, _, text = found
    right_origin: Id | None = None
    if left_client is None:
        left_client, left_clock, right_client, right_clock = between
        right_origin = _client_value(right_client), _var_uint_value(right_clock)
    origin = _client_value(left_client), _var_uint_value(left_clock)
    author, start = _client_value(client), _var_uint_value(clock)
    struct = _struct((author, start, len(text), _STRING, origin, right_origin, None, None, text.decode(), 1))
    return _update(([struct], [], ()))


def _keystroke_in(data: bytes) -> tuple[bytes, ...] | None:
    """The groups of `_KEYSTROKE`, where all of it is in order."""
    match = _KEYSTROKE.fullmatch(data)
    if match is None:
        return None
    groups = match.groups()
    _, clock, _, _, *between, length, text = groups
    units = len(text)
    if units != _var_uint_value(length) or _var_uint_value(clock) + units > CLOCK_MAX:
        return None
    return None if between[:2] == between[2:] != [None, None] else groups


def _decode_deletion(data: bytes) -> Update | None:
    """Read one deleted range alone, which most other updates are, in half the general reader's time; as
    `_decode_keystroke` otherwise."""
    match = _DELETION.fullmatch(data)
    if match is None:
        return None
    client, clock, length = match.groups()
    start, units = _var_uint_value(clock), _var_uint_value(length)
    if not units or start + units > CLOCK_MAX:
        return None
    return _update(([], [_deleted_range((_client_value(client), start, units))], ()))


def _var_uint_value(encoded: bytes) -> int:
    """Of what `_VAR_UINT` matches, all of which is in order."""
    value = 0
    for byte in reversed(encoded):
        value = value << 7 | byte & 0x7F
    return value


_client_value = lru_cache(maxsize=4096)(_var_uint_value)


class PartsReader(Reader):
    """A reader that counts the parts of an update before it reads them."""

    __slots__ = ("parts_left", "parts_max")

    def __init__(self, data: bytes, parts_max: int | None) -> None:
        super().__init__(data)
        self.parts_max = self.parts_left = len(data) if parts_max is None else parts_max

    def count(self, *, item_bytes_min: int = 1) -> int:
        number = Reader.count(self, item_bytes_min=item_bytes_min)
        self.parts_left -= number
        if self.parts_left < 0:
            raise UpdateTooLarge(self.parts_max)
        return number

    def spend(self, parts: int) -> None:
        self.parts_left -= parts
        if self.parts_left < 0:
            raise UpdateTooLarge(self.parts_max)


def _decode_any_update(data: bytes, parts_max: int | None) -> Update:
    reader = PartsReader(data, parts_max)
    structs: list[Struct] = []
    spans: list[tuple[int, int]] = []
    clients: set[int] = set()
    for _ in range(reader.count(item_bytes_min=3)):
        struct_count = reader.count(item_bytes_min=2)
        if struct_count == 0:
            raise Malformed("a client is named without structs, on which yrs panics")
        client = reader.var_uint()
        if client in clients:
            raise Malformed("a client's structs are in two places")
        clients.add(client)
        _read_runs(reader, struct_count, client, structs, spans)
    deletes = read_deleted_ranges(reader)
    reader.finish()
    return Update(structs, deletes, spans)


def _read_runs(
    reader: PartsReader, count: int, client: int, structs: list[Struct], spans: list[tuple[int, int]]
) -> None:
    """Read that many structs of one client, the first one's clock before them."""
    clock = reader.var_uint()
    data = reader.data
    while count:
        begin, parts_left = reader.position, reader.parts_left
        struct = read_struct(reader, client, clock)
        end = reader.position
        count -= 1
        if count and data[begin:end] == data[end : end + end - begin] and struct[4] != (client, clock - 1):
            again = _repeats(data, begin, end, count)
            reader.position = end = end + again * (end - begin)
            reader.spend(again * (parts_left - reader.parts_left))
            count -= again
            struct = struct._replace(times=1 + again)
            clock += again * struct[2]
        clock += struct[2]
        if clock > CLOCK_MAX:
            raise Malformed("a clock is larger than 31 bits")
        structs.append(struct)
        spans.append((begin, end))


def _repeats(data: bytes, begin: int, end: int, repeats_max: int) -> int:
    """How often `data[begin:end]` comes again right behind itself, looked for in steps that double and then halve."""
    unit = data[begin:end]
    found, step = 0, 1
    while found + step <= repeats_max and data.startswith(unit * step, end + found * len(unit)):
        found += step
        step *= 2
    while step := step // 2:
        if found + step <= repeats_max and data.startswith(unit * step, end + found * len(unit)):
            found += step
    return found


def read_deleted_ranges(reader: Reader) -> list[DeletedRange]:
    """Read an id set as Yjs writes delete sets, in the order of the bytes; it need not be normalised."""
    ranges: list[DeletedRange] = []
    clients: set[int] = set()
    for _ in range(reader.count(item_bytes_min=2)):
        client = reader.var_uint()
        if client in clients:
            raise Malformed("a client's deleted ranges are in two places")
        clients.add(client)
        for _ in range(reader.count(item_bytes_min=2)):
            clock, length = reader.var_uint(), reader.var_uint()
            if length == 0:
                raise Malformed("a deleted range is empty")
            if clock + length > CLOCK_MAX:
                raise Malformed("a deleted range ends beyond 31 bits")
            ranges.append(DeletedRange(client, clock, length))
    return ranges


def read_struct(reader: Reader, client: int, clock: int) -> Struct:
    """Read one struct of a client, whose first unit has this clock. Raises: Malformed, RefusedUpdate."""
    info = reader.byte()
    ref = info & _KIND_BITS
    if ref == _GC:
        # Yjs looks at the low bits only, yrs at the whole byte: with flags they would read different updates.
        if info:
            raise Malformed("a collected struct carries flags")
        return _struct((client, clock, _deleted_length(reader), _GC, None, None, None, None, None, 1))
    if ref in _REFUSED_KINDS:
        raise RefusedUpdate(_REFUSED_KINDS[ref])
    var_uint = reader.var_uint
    origin = (var_uint(), var_uint()) if info & _HAS_ORIGIN else None
    right_origin = (var_uint(), var_uint()) if info & _HAS_RIGHT_ORIGIN else None
    parent: str | Id | None = None
    parent_key = None
    if origin is None and right_origin is None:
        parent = _read_parent(reader)
        # With an origin the flag may be set too, but then no key follows: it is inherited like the parent.
        if info & _HAS_PARENT_KEY:
            parent_key = reader.var_string()
    if ref == _STRING:
        text = reader.var_string()
        if not text:
            raise Malformed("a struct is empty")
        return _struct((client, clock, utf16_length(text), _STRING, origin, right_origin, parent, parent_key, text, 1))
    kind, length, content = _read_content(reader, ref)
    return _struct((client, clock, length, kind, origin, right_origin, parent, parent_key, content, 1))


def content_position(update: bytes, position: int) -> int:
    """Where the content begins of a struct other than `Kind.GC` that begins at `position` and was read before."""
    reader = Reader(update)
    reader.position = position
    info = reader.byte()
    for flag in (_HAS_ORIGIN, _HAS_RIGHT_ORIGIN):
        if info & flag:
            reader.var_uint()
            reader.var_uint()
    if not info & (_HAS_ORIGIN | _HAS_RIGHT_ORIGIN):
        _read_parent(reader)
        if info & _HAS_PARENT_KEY:
            reader.var_string()
    return reader.position


def without_right_origin(struct: bytes, parent: str | Id) -> bytes:
    """The bytes of a struct, which has a right origin, without it: where it has no other origin, in this parent."""
    reader = Reader(struct)
    info = reader.byte()
    if info & _HAS_ORIGIN:
        reader.var_uint()
        reader.var_uint()
        left = struct[1 : reader.position]
    elif isinstance(parent, str):
        left = var_uint(1) + var_string(parent)
    else:
        left = var_uint(0) + var_uint(parent[0]) + var_uint(parent[1])
    reader.var_uint()
    reader.var_uint()
    return bytes((info & ~_HAS_RIGHT_ORIGIN,)) + left + struct[reader.position :]


def _read_parent(reader: Reader) -> str | Id:
    flag = reader.var_uint()
    if flag == 1:
        return reader.var_string()
    if flag == 0:
        return reader.var_uint(), reader.var_uint()
    raise Malformed(f"unknown kind {flag} of a parent")


def _deleted_length(reader: Reader) -> int:
    length = reader.var_uint()
    if length == 0:
        raise Malformed("a struct is empty")
    if length > DELETED_LENGTH_MAX:
        raise RefusedUpdate(f"a deleted run is longer than {DELETED_LENGTH_MAX} units")
    return length


def _read_content(reader: Reader, ref: int) -> tuple[Kind, int, Content]:
    # In the order of how often they come; members of the enum are bound above, for a `match` looks each of them up.
    if ref == _ANY:
        length = reader.count()
        if length == 0:
            raise Malformed("a struct is empty")
        return _ANY, length, [reader.any() for _ in range(length)]
    if ref == _DELETED:
        return _DELETED, _deleted_length(reader), None
    if ref == _TYPE:
        return _TYPE, 1, _read_type(reader)
    if ref == _FORMAT:
        return _FORMAT, 1, FormatContent(reader.var_string(), _read_json(reader))
    if ref == _EMBED:
        return _EMBED, 1, _read_json(reader)
    if ref == _BINARY:
        return _BINARY, 1, reader.var_bytes()
    raise Malformed(f"unknown kind {ref} of content")


def _read_type(reader: Reader) -> TypeContent:
    ref = reader.var_uint()
    if ref == _XML_HOOK:
        raise RefusedUpdate("the update holds an XML hook, whose name yrs reads as what comes after it")
    if ref == 7:
        raise RefusedUpdate("the update holds a weak link")
    if ref >= len(_TYPE_REFS):
        raise Malformed(f"unknown shared type {ref}")
    return TypeContent(_TYPE_REFS[ref], reader.var_string()) if ref == _XML_ELEMENT else _NAMELESS_TYPES[ref]


def _read_json(reader: Reader) -> str:
    text = reader.var_string()
    if text in _PLAIN_JSON:
        return text
    try:
        value = _JSON.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # yrs does not read half a surrogate pair
    except (ValueError, RecursionError):
        raise Malformed("an embed or a format is not JSON") from None
    if text[:1] in ("{", "["):
        _check_depth(value)
    return text


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(ANY_DEPTH_MAX + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return
        level = inner
    raise Malformed(f"a value is nested deeper than {ANY_DEPTH_MAX}")


def in_causal_order(
    structs: list[Struct], known: Mapping[int, int], reached: dict[int, int]
) -> Iterator[tuple[Struct, int]]:
    """Yield each struct after all that it needs, with the clock that was its client's next one before it.

    `known` is the document's state vector; `reached` is laid over it, starts empty and is raised struct by struct.
    Clients inside one update may depend on each other. Raises: MissingDependency, after what can be yielded."""
    # Most updates are in such an order already; what comes from the first struct on that is not has to queue.
    ready_count = 0
    for struct in structs:
        client = struct[0]
        have = reached.get(client) or known.get(client, 0)
        if _needed_by(struct, have, known, reached) is not None:
            break
        yield struct, have
        reached[client] = max(have, struct[1] + struct[2] * struct[9])
        ready_count += 1
    queues: dict[int, list[Struct]] = {}
    for struct in structs[ready_count:]:
        queues.setdefault(struct[0], []).append(struct)
    places = dict.fromkeys(queues, 0)
    # By client, (clock, waiting client) as a heap: who waits is looked at again when that clock is there, not before.
    # Going over all of them again and again took a minute for 80 KB of clients that build on each other.
    waiting: dict[int, list[Id]] = {}
    ready = deque(queues)
    while ready:
        client = ready.popleft()
        queue = queues[client]
        place = places[client]
        have = reached.get(client) or known.get(client, 0)
        while place < len(queue):
            struct = queue[place]
            need = _needed_by(struct, have, known, reached)
            if need is not None:
                heappush(waiting.setdefault(need[0], []), (need[1], client))
                break
            yield struct, have
            stop = struct[1] + struct[2] * struct[9]
            reached[client] = have = max(have, stop)
            place += 1
        places[client] = place
        waiters = waiting.get(client, ())
        while waiters and waiters[0][0] < reached.get(client, 0):
            ready.append(heappop(waiters)[1])
    rests = {client: queue[places[client] :] for client, queue in queues.items() if places[client] < len(queue)}
    if rests:
        needs = [
            need
            for client, rest in rests.items()
            if (need := _needed_by(rest[0], reached.get(client) or known.get(client, 0), known, reached))
        ]
        # What the update itself holds only waits for something else: name what is really missing.
        raise MissingDependency(*next((need for need in needs if not _holds(rests.get(need[0]), need[1])), needs[0]))


def _needed_by(struct: Struct, have: int, known: Mapping[int, int], reached: Mapping[int, int]) -> Id | None:
    """The first unit that a struct needs and that is not there; of its own client there are `have`."""
    client, clock, _, _, origin, right_origin, parent, _, _, _ = struct
    if clock > have:
        return client, have
    if origin and origin[1] >= (have if origin[0] == client else reached.get(origin[0]) or known.get(origin[0], 0)):
        return origin
    if right_origin and right_origin[1] >= (reached.get(right_origin[0]) or known.get(right_origin[0], 0)):
        return right_origin
    if isinstance(parent, tuple) and parent[1] >= (reached.get(parent[0]) or known.get(parent[0], 0)):
        return parent
    return None


def _holds(rest: list[Struct] | None, clock: int) -> bool:
    """Whether one client's structs, which have no gap between them, hold its unit `clock`."""
    return rest is not None and rest[0].clock <= clock < rest[-1].stop


def check_deletes(deletes: list[DeletedRange], known: Mapping[int, int], reached: Mapping[int, int]) -> None:
    """Raises: MissingDependency when units are deleted that neither `known` nor `reached` holds."""
    for client, clock, length in deletes:
        have = reached.get(client) or known.get(client, 0)
        if clock + length > have:
            raise MissingDependency(client, max(clock, have))


def missing_dependency(update: Update, known: Mapping[int, int]) -> Id | None:
    """Return the first (client, clock) that the update needs and a document with state vector `known` lacks.

    Needed are the clocks before its own, origins, right origins, parents and what it deletes."""
    reached: dict[int, int] = {}
    try:
        for _ in in_causal_order(update.structs, known, reached):
            pass
        check_deletes(update.deletes, known, reached)
    except MissingDependency as missing:
        return missing.client, missing.clock
    return None


def advance(known: dict[int, int], update: Update) -> None:
    """Raise a document's state vector in place to include an update that it has taken."""
    for struct in update.structs:
        if struct.stop > known.get(struct.client, 0):
            known[struct.client] = struct.stop


def claim(clocks: dict[int, int], update: Update) -> None:
    """Raise clocks in place to all that an update speaks of, what it deletes included. A document that was given the
    update and knows less than this holds something back until other updates come, and shows nothing of it."""
    advance(clocks, update)
    for client, clock, length in update.deletes:
        if clock + length > clocks.get(client, 0):
            clocks[client] = clock + length


_COUNTED = frozenset({Kind.STRING, Kind.ANY, Kind.EMBED, Kind.BINARY, Kind.TYPE})


def extent(update: Update) -> tuple[int, int]:
    """Count the units of content that an update brings, and those that it deletes.

    A unit is a UTF-16 unit of text, a value, an embed or a shared type; deleted are formatting marks too, and values
    that others overwrite. Content that comes as deleted already counts as deleted alone."""
    inserted = sum(struct.length * struct.times for struct in update.structs if struct.kind in _COUNTED)
    return inserted, sum(deleted.length for deleted in update.deletes)


def extent_in(data: bytes) -> tuple[int, int]:
    """As `extent` of what these bytes say, in half the time where they are a keystroke. Raises: Malformed."""
    typed = _keystroke_in(data)
    return extent(decode_update(data)) if typed is None else (len(typed[-1]), 0)
