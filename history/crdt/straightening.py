"""An update without the right neighbours that do not stand to the right of who names them.

Yjs' own undo makes such structs: where a paragraph or a list comes back among others that came back as well, it is put
between two that stand the other way round, or before and behind the same one. Yjs shows one where the order of arrival
has it, so that who loads the document reads another text than who saw it grow; without its right neighbour it stands
behind its left one for everybody."""

from collections.abc import Iterable

from history.crdt.joining import written_over
from history.crdt.lib0 import Reader
from history.crdt.updates import Id, read_struct, without_right_origin


def straightened(update: bytes, inserts: Iterable[tuple[int, int, str | Id]]) -> bytes:
    """The update (v1), which was read before, but that the structs with these units, (client, clock, parent), name no
    right neighbour. A struct without a left one names the parent."""
    parents: dict[int, dict[int, str | Id]] = {}
    for client, clock, parent in inserts:
        parents.setdefault(client, {})[clock] = parent
    written: list[tuple[int, int, bytes]] = []
    reader = Reader(update)
    for _ in range(reader.count()):
        count, client, clock = reader.var_uint(), reader.var_uint(), reader.var_uint()
        clocks = sorted(parents.get(client, ()), reverse=True)
        for _ in range(count):
            begin = reader.position
            clock += read_struct(reader, client, clock).length
            if clocks and clocks[-1] < clock:
                parent = parents[client][clocks.pop()]
                written.append((begin, reader.position, without_right_origin(update[begin : reader.position], parent)))
    return written_over(update, written)
