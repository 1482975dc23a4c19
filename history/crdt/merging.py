"""Merging updates byte by byte, without a document: lossless, unlike what a transaction over them would emit."""

from collections.abc import Sequence

from pycrdt import merge_updates

MERGE_UPDATES_MAX = 1000
"""Updates merged at once; beyond, merging is quadratic (259,778 at once: 200 s, by thousands: 0.6 s)."""


def merged(updates: Sequence[bytes]) -> bytes:
    """One update that says what all of them say, in pieces that merging is fast on."""
    while len(updates) > 1:
        updates = [
            merge_updates(*updates[start : start + MERGE_UPDATES_MAX])
            for start in range(0, len(updates), MERGE_UPDATES_MAX)
        ]
    return updates[0]
