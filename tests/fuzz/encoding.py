"""Writes decoded updates again, hostile ones too: nothing is checked here but what the types say."""

import struct as packing
from itertools import groupby

from history.crdt.lib0 import AnyValue, var_bytes, var_string, var_uint
from history.crdt.updates import DeletedRange, FormatContent, Kind, Struct, TypeContent, Update


def encode_update(update: Update) -> bytes:
    """Neighbouring structs of one client share a heading, which holds the clock of the first alone."""
    groups = [(client, list(structs)) for client, structs in groupby(update.structs, key=lambda struct: struct.client)]
    parts = [var_uint(len(groups))]
    for client, structs in groups:
        parts += [var_uint(len(structs)), var_uint(client), var_uint(structs[0].clock)]
        parts += [encode_struct(struct) for struct in structs]
    return b"".join((*parts, encode_deletes(update.deletes)))


def encode_deletes(deletes: list[DeletedRange]) -> bytes:
    groups = [(client, list(ranges)) for client, ranges in groupby(deletes, key=lambda each: each.client)]
    parts = [var_uint(len(groups))]
    for client, ranges in groups:
        parts += [var_uint(client), var_uint(len(ranges))]
        parts += [var_uint(each.clock) + var_uint(each.length) for each in ranges]
    return b"".join(parts)


def encode_struct(struct: Struct) -> bytes:
    kind = int(struct.kind)
    if kind == Kind.GC:
        return b"\0" + var_uint(struct.length)
    info = kind | 0x80 * (struct.origin is not None) | 0x40 * (struct.right_origin is not None)
    parts = [bytes([info | 0x20 * (struct.parent_key is not None)])]
    for unit in (struct.origin, struct.right_origin):
        if unit is not None:
            parts += [var_uint(unit[0]), var_uint(unit[1])]
    if struct.origin is None and struct.right_origin is None:
        if isinstance(struct.parent, tuple):
            parts += [b"\0", var_uint(struct.parent[0]), var_uint(struct.parent[1])]
        else:
            parts += [b"\1", var_string(struct.parent or "")]
        if struct.parent_key is not None:
            parts.append(var_string(struct.parent_key))
    return b"".join((*parts, _encode_content(struct)))


def _encode_content(struct: Struct) -> bytes:
    match struct.content:
        case None:
            return var_uint(struct.length)
        case TypeContent(ref, name):
            return var_uint(ref) + (b"" if name is None else var_string(name))
        case FormatContent(key, value):
            return var_string(key) + var_string(value)
        case str() as text:
            return var_string(text)
        case bytes() as data:
            return var_bytes(data)
        case list() as values:
            return var_uint(len(values)) + b"".join(encode_any(value) for value in values)


def encode_any(value: AnyValue) -> bytes:
    match value:
        case None:
            return b"\x7e"
        case bool():
            return b"\x78" if value else b"\x79"
        case int() if abs(value) < 1 << 53:
            return b"\x7d" + _var_int(value)
        case int():
            return b"\x7a" + packing.pack(">q", value)
        case float():
            return b"\x7b" + packing.pack(">d", value)
        case str():
            return b"\x77" + var_string(value)
        case bytes():
            return b"\x74" + var_bytes(value)
        case list():
            return b"\x75" + var_uint(len(value)) + b"".join(encode_any(item) for item in value)
        case dict():
            items = [var_string(key) + encode_any(item) for key, item in value.items()]
            return b"\x76" + var_uint(len(items)) + b"".join(items)


def _var_int(value: int) -> bytes:
    sign, rest = (0x40 if value < 0 else 0), abs(value)
    first, rest = rest & 0x3F, rest >> 6
    if not rest:
        return bytes([sign | first])
    return bytes([0x80 | sign | first]) + var_uint(rest)
