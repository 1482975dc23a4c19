"""State vectors: which clock of each client a document has reached, as SyncStep1 carries it.

Everything that reaches pycrdt as a state vector has been decoded here: it allocates by the claimed count, so that
5 bytes that claim 2^28 entries cost half a gigabyte."""

from history.crdt.lib0 import Malformed, Reader
from history.crdt.updates import CLOCK_MAX

STATE_VECTOR_CLIENTS_MAX = 1 << 18
"""Clients in one state vector. Every opened page is a client once it writes, so an old document has many."""

EMPTY_STATE_VECTOR = b"\0"


def decode_state_vector(data: bytes, *, clients_max: int = STATE_VECTOR_CLIENTS_MAX) -> dict[int, int]:
    """Decode into {client id: number of units known, so the next clock}, in the order sent; `00` is the empty one.

    Source: Yjs, readStateVector. Raises: Malformed for anything else than exactly one state vector, a client that is
    named twice, or a clock beyond 31 bits."""
    reader = Reader(data)
    count = reader.count(item_bytes_min=2)
    if count > clients_max:
        raise Malformed(f"a state vector names {count} clients, more than {clients_max}")
    clocks: dict[int, int] = {}
    for _ in range(count):
        client_id, clock = reader.var_uint(), reader.var_uint()
        if clock > CLOCK_MAX:
            raise Malformed("a clock in a state vector is longer than 31 bits")
        clocks[client_id] = clock
    if len(clocks) != count:
        raise Malformed("a state vector names a client twice")
    reader.finish()
    return clocks
