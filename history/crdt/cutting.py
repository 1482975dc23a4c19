"""A document's earlier states cut out of a later one that keeps all that was ever deleted.

Nothing of a struct ever changes but whether it is deleted: what a document held at a moment are the units below its
state vector then, with its delete set of then. To cut takes a tenth of what replaying half a log does."""

from collections.abc import Mapping

from history.crdt.lib0 import Malformed, Reader, var_string, var_uint
from history.crdt.updates import HEAD_OF_RUN, Kind, Struct, content_position, read_struct, utf16_length

_STRING = Kind.STRING.value


def cut(full_state: bytes, *, known: Mapping[int, int], delete_set: bytes) -> bytes:
    """The full state of a document when it had this state vector and this delete set (encoded), as one update.

    `full_state` is a later one (v1) that was folded with `skip_gc`, and read with the same splits.
    Raises: ValueError: Malformed for what is no state, and where the moment lies inside of a character."""
    reader = Reader(full_state)
    clients: list[bytes] = []
    for _ in range(reader.count(item_bytes_min=3)):
        count, client, clock = reader.var_uint(), reader.var_uint(), reader.var_uint()
        kept = _kept(reader, count, client, clock, known.get(client, 0))
        if kept is not None:
            clients += (var_uint(kept[0]), var_uint(client), var_uint(clock), kept[1])
    return b"".join((var_uint(len(clients) // 4), *clients, delete_set))


def _kept(reader: Reader, count: int, client: int, clock: int, stop: int) -> tuple[int, bytes] | None:
    """How many structs of a client lie before `stop`, and their bytes; all that it has are read."""
    data, begin = reader.data, reader.position
    kept: tuple[int, bytes] | None = None
    for place in range(count):
        position = reader.position
        if clock >= stop and kept is None:
            kept = place, data[begin:position]
        length = _length_of_next(reader, client, clock)
        clock += length
        if clock > stop and kept is None:
            left = stop - (clock - length)
            kept = place + 1, data[begin:position] + _first_units(data, position, client, clock - length, left)
    if kept is None:
        kept = count, data[begin : reader.position]
    return kept if kept[0] else None


def _length_of_next(reader: Reader, client: int, clock: int) -> int:
    """Read past a struct; most are runs of text, of which the length alone is looked at."""
    data = reader.data
    match = HEAD_OF_RUN.match(data, reader.position)
    if match is None:
        return read_struct(reader, client, clock).length
    is_text = data[reader.position] & 0x1F == _STRING
    reader.position = match.start(1)
    length = reader.var_uint()
    if not is_text:
        return length
    text = reader.take(length)
    return length if text.isascii() else utf16_length(text.decode())


def _first_units(data: bytes, position: int, client: int, clock: int, units: int) -> bytes:
    """The struct at a position, cut down to its first units."""
    reader = Reader(data)
    reader.position = position
    struct = read_struct(reader, client, clock)
    if struct.kind is Kind.GC:
        return bytes((Kind.GC,)) + var_uint(units)
    start = content_position(data, position)
    return data[position:start] + _content_of(struct, data, start, units)


def _content_of(struct: Struct, data: bytes, start: int, units: int) -> bytes:
    match struct.kind:
        case Kind.STRING:
            assert isinstance(struct.content, str)
            encoded = struct.content.encode("utf-16-le")[: 2 * units]
            return var_string(encoded.decode("utf-16-le"))
        case Kind.DELETED:
            return var_uint(units)
        case Kind.ANY:
            values = Reader(data)
            values.position = start
            values.var_uint()
            first = values.position
            for _ in range(units):
                values.any()
            return var_uint(units) + data[first : values.position]
        case _:
            raise Malformed("a struct of one unit is cut")
