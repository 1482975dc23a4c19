"""What the wire carries: Hypothesis strategies, and a state vector's bytes."""

import json
from collections.abc import Mapping

from hypothesis import strategies as st

from history.crdt.lib0 import var_uint
from realtime.protocols.awareness import AWARENESS_CLOCK_MAX, AwarenessEntry

client_ids = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1), st.integers(0, 2**53 - 1))

state_vectors = st.dictionaries(client_ids, st.integers(0, 2**31 - 1), max_size=20)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)

states = st.dictionaries(st.text(max_size=10), json_values, max_size=3).map(json.dumps)

awareness_entry = st.builds(AwarenessEntry, client_ids, st.integers(0, AWARENESS_CLOCK_MAX), st.none() | states)

awareness_entries = st.lists(awareness_entry, max_size=6, unique_by=lambda entry: entry.client_id).map(tuple)


def encode_state_vector(clocks: Mapping[int, int]) -> bytes:
    """Encode {client id: next clock} with the highest client first, as Yjs does."""
    falling = sorted(clocks, reverse=True)
    return var_uint(len(clocks)) + b"".join(var_uint(client) + var_uint(clocks[client]) for client in falling)
