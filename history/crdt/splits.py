"""Characters beyond U+FFFF that somebody's edit cut in two, and how the log is read because of them.

Yjs turns both halves of a surrogate pair that is split into U+FFFD; yrs keeps the character, counts it wrongly and may
write a state that does not load. So a split is a row of the log, and from there on both halves are read as U+FFFD.
Source: yjs src/structs/ContentString.js, `splice`."""

import re
from collections.abc import Collection, Iterable
from typing import TypeAlias

from history.crdt.lib0 import Reader, var_string, var_uint
from history.crdt.updates import Id, Kind, read_struct

Splits: TypeAlias = frozenset[Id]
"""(client, clock) of low surrogates: the second halves of what was cut."""

NO_SPLITS: Splits = frozenset()

EMPTY_UPDATE = b"\0\0"
"""The update that says nothing, which is what a row of `Kind.SPLIT` says to a document."""

_HALVES = "\ufffd\ufffd"
_ASTRAL = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")


def encode_splits(splits: Iterable[Id]) -> bytes:
    """The payload of a `split` row: how many, then client and clock of each, all as var_uint, rising."""
    ordered = sorted(splits)
    return b"".join([var_uint(len(ordered)), *(var_uint(client) + var_uint(clock) for client, clock in ordered)])


def decode_splits(payload: bytes) -> Splits:
    """Raises: Malformed when these are not exactly the bytes of a `split` row."""
    reader = Reader(payload)
    found = frozenset((reader.var_uint(), reader.var_uint()) for _ in range(reader.count(item_bytes_min=2)))
    reader.finish()
    return found


def with_splits(update: bytes, splits: Collection[Id]) -> bytes:
    """The update (v1, or a document's whole state) with these characters read as U+FFFD U+FFFD.

    Lengths, clocks and all else stay. The same object is returned where nothing is touched; doing it twice is doing it
    once. Raises: Malformed, RefusedUpdate for bytes that the log cannot hold."""
    if not splits or _ASTRAL.search(update) is None:
        return update
    reader = Reader(update)
    pieces: list[bytes] = []
    copied = 0
    for _ in range(reader.count(item_bytes_min=3)):
        struct_count, client, clock = reader.var_uint(), reader.var_uint(), reader.var_uint()
        for _ in range(struct_count):
            struct = read_struct(reader, client, clock)
            if struct.kind is Kind.STRING:
                assert isinstance(struct.content, str)
                text = _with_halves(struct.content, client, clock, splits)
                if text is not struct.content:
                    # A string is the last thing of its struct.
                    pieces += update[copied : reader.position - len(var_string(struct.content))], var_string(text)
                    copied = reader.position
            clock += struct.length
    return b"".join([*pieces, update[copied:]]) if pieces else update


def _with_halves(text: str, client: int, clock: int, splits: Collection[Id]) -> str:
    if text.isascii():
        return text
    read: list[str] = []
    is_touched = False
    for character in text:
        if character > "\uffff":
            clock += 1
            if (client, clock) in splits:
                character, is_touched = _HALVES, True
        clock += 1
        read.append(character)
    return "".join(read) if is_touched else text
