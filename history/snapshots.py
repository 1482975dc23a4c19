"""Snapshots: a cache of folds, so that opening costs a bounded replay. Deleting them all changes nothing but time."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils import timezone
from pycrdt import Doc

from documents.conf import conf
from history.crdt.state_vectors import decode_state_vector
from history.models import Snapshot


def is_due(tail_rows: int, tail_bytes: int, snapshot_bytes: int) -> bool:
    """Whether a tail of this size is worth a new snapshot after one of `snapshot_bytes`."""
    limits = conf()
    share = snapshot_bytes * limits.snapshot_tail_percent // 100
    return tail_rows > limits.snapshot_rows or tail_bytes > max(limits.snapshot_bytes_min, share)


def store_snapshot(document_id: int, seq: int, full: "Doc[Any]", *, claims: Mapping[int, int]) -> None:
    """Store the fold at `seq` once, and thin the older ones. `full` holds all that was deleted; `claims` is what the
    rows since the last snapshot speak of (`updates.claim`).

    A state that does not load again to the same state vector is not stored: it would make the document unopenable.
    Nor is one of a document that holds a row back because another is missing before it: the state would be without it.
    Raises: ValueError in both cases."""
    known = decode_state_vector(full.get_state())
    for client, clock in claims.items():
        if clock > known.get(client, 0):
            raise ValueError(f"document {document_id}: at {seq} something of client {client} is pending")
    full_state = full.get_update()
    served: Doc[Any] = Doc()
    served.apply_update(full_state)
    state = served.get_update()
    reloaded: Doc[Any] = Doc()
    reloaded.apply_update(state)
    # Decoded: pycrdt writes the clients of equal state vectors in any order.
    if decode_state_vector(reloaded.get_state()) != known:
        raise ValueError(f"document {document_id}: the snapshot at {seq} does not load to the same state vector")
    Snapshot.objects.bulk_create(
        [
            Snapshot(
                document_id=document_id,
                seq=seq,
                state=state,
                full_state=full_state,
                sha256=digest(state, full_state),
                created_at=timezone.now(),
            )
        ],
        ignore_conflicts=True,
    )
    thin(document_id)


def digest(state: bytes, full_state: bytes) -> bytes:
    return hashlib.sha256(state + full_state).digest()


def thin(document_id: int) -> None:
    """Delete snapshots that stand too close for their age."""
    seqs = list(Snapshot.objects.filter(document_id=document_id).order_by("-seq").values_list("seq", flat=True))
    kept = set(spaced(seqs))
    Snapshot.objects.filter(document_id=document_id, seq__in=[seq for seq in seqs if seq not in kept]).delete()


def spaced(seqs: Sequence[int]) -> list[int]:
    """Of seqs in falling order, the newest two and then each that lies at least half its distance from the newest
    behind the last one kept: about log2(n) of n remain, dense where people look most."""
    kept: list[int] = []
    for seq in seqs:
        if len(kept) < 2 or kept[-1] - seq >= (seqs[0] - seq) // 2:
            kept.append(seq)
    return kept
