"""Hostile input, made from recorded traffic and from what stands in the room that will get it."""

import json
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from history.crdt.lib0 import AnyValue, var_bytes, var_string, var_uint
from history.crdt.updates import (
    CLOCK_MAX,
    Content,
    DeletedRange,
    FormatContent,
    Id,
    Kind,
    Struct,
    TypeContent,
    TypeRef,
    Update,
    decode_update,
    utf16_length,
)
from tests.fuzz.encoding import encode_deletes, encode_update
from tests.fuzz.hostile import HOSTILE_FRAMES, bulk_frame
from tests.fuzz.rooms import Room

_TEXTS = ["a", "😀", "é\u0301", "hello", "日本", "\0", "\ufffd", "x" * 40]
_NAMES = ["t", "a", "m", "x", "oddA", "oddM", "new", "", "日"]
_KEYS = ["k0", "k1", "sub", "level", "bold", "", "日"]
_JSON = ["null", "true", "1", '"s"', '{"e":1}', "[]", "[[1]]", "1e400", '"\\ud800"', "{", "-0", "1.5e3"]
_JSON += ['{"a":1,"a":2}', '"\\ud83d\\ude00"', "12345678901234567890", '{"":{}}', " 1 ", "0.1"]
_INTEGERS = [0, 1, 2, 127, 128, 1 << 14, CLOCK_MAX - 1, CLOCK_MAX, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) - 1]
_STATES = ['{"user":{"name":"a"}}', "{}", "null", "[]", "1", '{"a":', '{"a":1e400}', '{"é":"😀"}']


class Case(NamedTuple):
    """One input: `way` names how it was made, `owner` the connection that it comes from."""

    way: str
    frame: bytes
    owner: int


class Inputs:
    """Makes the cases of one episode. The same seed, corpus and room make the same ones."""

    def __init__(
        self, rng: random.Random, corpus: Sequence[Sequence[bytes]], room: Room, *, way: str | None = None
    ) -> None:
        self.rng = rng
        self.corpus = corpus
        self.room = room
        self.ways: list[tuple[Callable[[], bytes], float]] = [
            (self.fresh_structs, 34),
            (self.altered_structs, 16),
            (self.altered_bytes, 16),
            (self.spliced, 5),
            (self.deletes, 6),
            (self.state_vector, 5),
            (self.awareness, 7),
            (self.several_messages, 4),
            (self.altered_frame, 5),
            (self.hostile_class, 2),
        ]
        if way is not None:
            self.ways = [(make, weight) for make, weight in self.ways if make.__name__ == way]

    def case(self) -> Case:
        [way] = self.rng.choices([way for way, _ in self.ways], [weight for _, weight in self.ways])
        return Case(way.__name__, way(), self.rng.randrange(1, 4))

    def bulk_case(self) -> Case:
        """One of tens of kilobytes, which shows what the cost grows with."""
        return Case("bulk", bulk_frame(self.rng, self.room.known), 1)

    # Updates

    def row(self) -> bytes:
        return self.rng.choice(self.rng.choice(self.corpus))

    def altered_bytes(self) -> bytes:
        return self._sync(self._altered(self.row()))

    def spliced(self) -> bytes:
        first, second = self.row(), self.row()
        if self.rng.random() < 0.5:
            return self._sync(first[: self.rng.randrange(len(first))] + second[self.rng.randrange(len(second)) :])
        one, other = decode_update(first), decode_update(second)
        return self._sync(encode_update(Update(one.structs + other.structs, one.deletes + other.deletes)))

    def altered_structs(self) -> bytes:
        update = decode_update(self.row())
        structs, deletes = list(update.structs), list(update.deletes)
        for _ in range(self.rng.choice([1, 1, 2, 4])):
            if structs:
                place = self.rng.randrange(len(structs))
                structs[place] = self._altered_struct(structs[place])
            if self.rng.random() < 0.2:
                self.rng.shuffle(structs)
            if self.rng.random() < 0.3:
                deletes.append(self._deleted_range())
        return self._sync(encode_update(Update(structs, deletes)))

    def fresh_structs(self) -> bytes:
        """Structs that follow on what the room has: most of these pass, unless they themselves are wrong."""
        rng = self.rng
        structs: list[Struct] = []
        for client in {self._client() for _ in range(rng.choice([1, 1, 1, 2, 3]))}:
            clock = self.room.known.get(client, 0)
            for _ in range(rng.choice([1, 1, 2, 3, 6])):
                struct = self._fresh_struct(client, clock, structs)
                structs.append(struct)
                clock += struct.length
        deletes = [self._deleted_range()] if rng.random() < 0.2 else []
        return self._sync(encode_update(Update(structs, deletes)))

    def deletes(self) -> bytes:
        ranges = [self._deleted_range() for _ in range(self.rng.choice([1, 1, 2, 5]))]
        return self._sync(b"\0" + encode_deletes(sorted(ranges)))

    def _fresh_struct(self, client: int, clock: int, before: Sequence[Struct]) -> Struct:
        rng = self.rng
        neighbour = rng.choice(before) if before and rng.random() < 0.5 else self._some_struct()
        kind, length, content = self._content_like(neighbour)
        origin: Id | None = None
        right_origin: Id | None = None
        parent: str | Id | None = None
        key: str | None = None
        choice = rng.random()
        if choice < 0.6 and neighbour is not None:
            if rng.random() < 0.8:
                origin = self._unit_of(neighbour)
            if origin is None or rng.random() < 0.5:
                # Any unit of what holds the neighbour, or of anything: most stand where no editor would have put it.
                right_origin = self._unit_of(self._sibling(neighbour) if rng.random() < 0.9 else self._some_struct())
        elif choice < 0.75 and (outer := self._some_type(before)) is not None:
            parent = outer
            key = rng.choice(_KEYS) if rng.random() < 0.4 else None
        else:
            parent = rng.choice(_NAMES)
            key = rng.choice(_KEYS) if parent in ("m", "oddM") or rng.random() < 0.1 else None
        if origin is None and right_origin is None and parent is None:
            parent = "t"
        return Struct(client, clock, length, kind, origin, right_origin, parent, key, content)

    def _content_like(self, neighbour: Struct | None) -> tuple[Kind, int, Content]:
        if neighbour is not None and neighbour.content is not None and self.rng.random() < 0.6:
            return neighbour.kind, neighbour.length, neighbour.content
        return self._content()

    def _content(self) -> tuple[Kind, int, Content]:
        rng = self.rng
        match rng.choice([4, 4, 4, 8, 8, 7, 7, 6, 6, 5, 3, 1, 0]):
            case 4:
                text = rng.choice(_TEXTS)
                return Kind.STRING, utf16_length(text), text
            case 8:
                values = [self._value() for _ in range(rng.choice([1, 1, 2, 3]))]
                return Kind.ANY, len(values), values
            case 7:
                ref = rng.choice(list(TypeRef))
                return Kind.TYPE, 1, TypeContent(ref, "p" if ref in (3, 5) else None)
            case 6:
                return Kind.FORMAT, 1, FormatContent(rng.choice(_KEYS), rng.choice(_JSON))
            case 5:
                return Kind.EMBED, 1, rng.choice(_JSON)
            case 3:
                return Kind.BINARY, 1, b"\x00\xff"
            case kind:
                return Kind(kind), rng.choice([1, 2, 1000, 1 << 20]), None

    def _value(self, depth: int = 0) -> AnyValue:
        rng = self.rng
        match rng.randrange(9 if depth < 4 else 6):
            case 0:
                return None
            case 1:
                return rng.random() < 0.5
            case 2:
                return rng.choice([*_INTEGERS, -1, -5])
            case 3:
                return rng.choice([1.5, -0.0, 1e300, float("inf"), float("nan"), 2.0**60])
            case 4:
                return rng.choice(_TEXTS)
            case 5:
                return b"\x01"
            case 6:
                return {rng.choice(_KEYS): self._value(depth + 1) for _ in range(rng.randrange(3))}
            case _:
                return [self._value(depth + 1) for _ in range(rng.randrange(3))]

    def _altered_struct(self, struct: Struct) -> Struct:
        rng = self.rng
        match rng.randrange(9):
            case 0:
                client = self._client()
                return struct._replace(client=client, clock=self.room.known.get(client, 0))
            case 1:
                return struct._replace(clock=self._near(struct.clock))
            case 2:
                return struct._replace(origin=self._unit())
            case 3:
                return struct._replace(right_origin=self._unit())
            case 4:
                return struct._replace(origin=None, right_origin=None, parent=rng.choice(_NAMES))
            case 5:
                return struct._replace(origin=None, right_origin=None, parent=self._unit())
            case 6:
                return struct._replace(parent_key=rng.choice(_KEYS))
            case 7:
                kind, length, content = self._content()
                return struct._replace(kind=kind, length=length, content=content)
            case _:
                return struct._replace(content=None, length=self._near(struct.length), kind=Kind.DELETED)

    def _near(self, number: int) -> int:
        choices = [0, number + 1, max(0, number - 1), number * 2, number + self.rng.randrange(20)]
        return self.rng.choice([*choices, self.rng.choice(_INTEGERS)])

    def _client(self) -> int:
        known = sorted(self.room.known)
        if known and self.rng.random() < 0.8:
            return self.rng.choice(known)
        return self.rng.choice([0, 1, 7, self.rng.randrange(1 << 32), *_INTEGERS[-4:]])

    def _some_struct(self) -> Struct | None:
        return self.rng.choice(self.room.structs) if self.room.structs else None

    def _sibling(self, struct: Struct) -> Struct | None:
        """A struct nearby in the log, most often of the same type."""
        structs = self.room.structs
        same = [each for each in self.rng.sample(structs, min(8, len(structs))) if each.kind == struct.kind]
        return same[0] if same else self._some_struct()

    def _some_type(self, before: Sequence[Struct]) -> Id | None:
        types = [each for each in (*self.room.structs[-60:], *before) if each.kind is Kind.TYPE]
        if not types or self.rng.random() < 0.05:
            return self._unit()
        chosen = self.rng.choice(types)
        return chosen.client, chosen.clock

    def _unit_of(self, struct: Struct | None) -> Id | None:
        if struct is None:
            return None
        return struct.client, struct.clock + self.rng.choice([0, struct.length - 1, self.rng.randrange(struct.length)])

    def _unit(self) -> Id:
        unit = self._unit_of(self._some_struct())
        if unit is None or self.rng.random() < 0.2:
            return self._client(), self.rng.choice([*_INTEGERS, self.rng.randrange(60)])
        return unit

    def _deleted_range(self) -> DeletedRange:
        client, clock = self._unit()
        return DeletedRange(client, clock, self.rng.choice([1, 1, 2, 3, 10, *_INTEGERS[:6]]))

    # Frames

    def state_vector(self) -> bytes:
        clocks = dict(self.room.known)
        for _ in range(self.rng.choice([0, 1, 3])):
            clocks[self._client()] = self._near(3)
        encoded = var_uint(len(clocks)) + b"".join(var_uint(each) + var_uint(clocks[each]) for each in clocks)
        if self.rng.random() < 0.5:
            encoded = self._altered(encoded)
        return b"\0\0" + var_bytes(encoded)

    def awareness(self) -> bytes:
        rng = self.rng
        entries = []
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            clock = rng.choice([1, 2, 3, *_INTEGERS])
            state = rng.choice(_STATES) if rng.random() < 0.9 else json.dumps({"d": self._deep(rng.choice([3, 70]))})
            entries.append(var_uint(self._client()) + var_uint(clock) + var_string(state))
        encoded = var_uint(len(entries)) + b"".join(entries)
        if rng.random() < 0.3:
            encoded = self._altered(encoded)
        return b"\1" + var_bytes(encoded)

    def _deep(self, depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return value

    def several_messages(self) -> bytes:
        ways = [self.state_vector, self.awareness, self.fresh_structs, self.altered_bytes, lambda: b"\3", self.deletes]
        return b"".join(self.rng.choice(ways)() for _ in range(self.rng.choice([2, 2, 3, 6])))

    def altered_frame(self) -> bytes:
        ways = [self.state_vector, self.awareness, self.fresh_structs, self.several_messages]
        return self._altered(self.rng.choice(ways)())

    def hostile_class(self) -> bytes:
        return self.rng.choice(list(HOSTILE_FRAMES.values()))

    def _sync(self, update: bytes) -> bytes:
        return b"\0" + self.rng.choice([b"\1", b"\2", b"\2"]) + var_bytes(update)

    def _altered(self, data: bytes) -> bytes:
        rng = self.rng
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            place = rng.randrange(len(changed) + 1)
            match rng.randrange(8):
                case 0 if place < len(changed):
                    changed[place] ^= 1 << rng.randrange(8)
                case 1 if place < len(changed):
                    changed[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
                case 2:
                    del changed[place:]
                case 3:
                    del changed[place : place + rng.randint(1, 4)]
                case 4:
                    changed[place:place] = rng.randbytes(rng.randint(1, 4))
                case 5:
                    changed[place:place] = changed[max(0, place - rng.randint(1, 8)) : place]
                case 6:
                    changed[place : place + 1] = var_uint(rng.choice(_INTEGERS))
                case _:
                    changed[place:place] = b"\xff" * rng.choice([1, 5, 9, 40])
        return bytes(changed)
