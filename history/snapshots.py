"""Snapshots: a cache of folds, so that opening costs a bounded replay. Deleting them all changes nothing but time."""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import zstandard
from django.db import connection
from django.db.models.functions import Length
from django.utils import timezone
from pycrdt import Doc

from documents.conf import conf
from history.crdt.state_vectors import decode_state_vector
from history.models import Snapshot
from history.spacing import Plan, plan_snapshots

logger = logging.getLogger(__name__)

NEWEST_LEVEL = 6
LADDER_LEVEL = 15
"""Of zstd. The state of B4 (223 KB) takes 101 KB in 2.6 ms at level 6, 94 KB in 22 ms at level 15, where it stays for
years; 92 KB in 43 ms at level 19."""

STATE_BYTES_MAX = 1 << 30
"""A frame that claims more is not unpacked; DOCUMENT_BYTES_MAX is far below."""

# What squash packed and what it has not, as bytes; what lies out of line is not read for it.
COUNT_LOG_BYTES = """
SELECT (SELECT COALESCE(SUM(octet_length(payload)), 0) FROM history_segment WHERE document_id = %(document_id)s)
     + (SELECT COALESCE(SUM(octet_length(payload)), 0) FROM history_update WHERE document_id = %(document_id)s)
"""
FORGET_FULL_STATES = """
UPDATE history_snapshot SET full_state = '', sha256 = sha256(state)
WHERE document_id = %(document_id)s AND seq < %(newest)s AND full_state <> ''
"""


def is_due(tail_rows: int, tail_bytes: int, snapshot_bytes: int) -> bool:
    """Whether a tail of this size is worth a new snapshot after one of `snapshot_bytes`."""
    limits = conf()
    share = snapshot_bytes * limits.snapshot_tail_percent // 100
    return tail_rows > limits.snapshot_rows or tail_bytes > max(limits.snapshot_bytes_min, share)


def store_snapshot(document_id: int, seq: int, full: "Doc[Any]", *, claims: Mapping[int, int]) -> None:
    """Store the fold at `seq` once, from which writing starts too, and thin the older ones. `full` holds all that was
    deleted; `claims` is what the rows since the last snapshot speak of (`updates.claim`).

    A state that does not load again to the same state vector is not stored: it would make the document unopenable.
    Nor is one of a document that holds a row back because another is missing before it: the state would be without it.
    Raises: ValueError in both cases."""
    full_state = full.get_update()
    served: Doc[Any] = Doc()
    served.apply_update(full_state)
    state = _checked_state(document_id, seq, served, known=decode_state_vector(full.get_state()), claims=claims)
    _store(
        document_id,
        seq,
        state_bytes=len(state),
        state=pack_state(state, level=NEWEST_LEVEL),
        full_state=pack_state(full_state, level=NEWEST_LEVEL),
    )
    thin(document_id)


def store_rung(document_id: int, seq: int, doc: "Doc[Any]", *, claims: Mapping[int, int]) -> None:
    """Store the fold at `seq`, older than the newest snapshot, once. `doc` is as it is served.

    Raises: ValueError, as `store_snapshot`."""
    state = _checked_state(document_id, seq, doc, known=decode_state_vector(doc.get_state()), claims=claims)
    _store(document_id, seq, state_bytes=len(state), state=pack_state(state, level=LADDER_LEVEL))


def _checked_state(
    document_id: int, seq: int, doc: "Doc[Any]", *, known: Mapping[int, int], claims: Mapping[int, int]
) -> bytes:
    for client, clock in claims.items():
        if clock > known.get(client, 0):
            raise ValueError(f"document {document_id}: at {seq} something of client {client} is pending")
    state = doc.get_update()
    reloaded: Doc[Any] = Doc()
    reloaded.apply_update(state)
    # Decoded: pycrdt writes the clients of equal state vectors in any order.
    if decode_state_vector(reloaded.get_state()) != known:
        raise ValueError(f"document {document_id}: the snapshot at {seq} does not load to the same state vector")
    return state


def _store(document_id: int, seq: int, *, state: bytes, full_state: bytes = b"", **fields: Any) -> None:
    snapshot = Snapshot(
        document_id=document_id,
        seq=seq,
        state=state,
        full_state=full_state,
        sha256=digest(state, full_state),
        created_at=timezone.now(),
        **fields,
    )
    Snapshot.objects.bulk_create([snapshot], ignore_conflicts=True)


def digest(state: bytes, full_state: bytes) -> bytes:
    """The `sha256` of a snapshot, from its states as they are stored."""
    return hashlib.sha256(state + full_state).digest()


def pack_state(state: bytes, *, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(state)


def unpack_state(stored: bytes) -> bytes:
    """Raises: ValueError for bytes that `pack_state` did not make."""
    try:
        if zstandard.get_frame_parameters(stored).content_size > STATE_BYTES_MAX:
            raise ValueError("the state of a snapshot is larger than STATE_BYTES_MAX")
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"the state of a snapshot does not decompress: {error}") from error


def newest_state(document_id: int, *, until: int, full: bool) -> tuple[int, bytes]:
    """The seq and state of the newest snapshot at or before `until`, with `full` of the newest that has a full state;
    (0, b"") where there is none. One that does not unpack is passed over: it is a cache."""
    column = "full_state" if full else "state"
    snapshots = Snapshot.objects.filter(document_id=document_id).exclude(**{column: b""}).order_by("-seq")
    while until > 0:
        seq, stored = snapshots.filter(seq__lte=until).values_list("seq", column).first() or (0, b"")
        if not seq:
            break
        try:
            return seq, unpack_state(bytes(stored))
        except ValueError:
            logger.exception("snapshot passed over: document=%s seq=%s", document_id, seq)
            until = seq - 1
    return 0, b""


def snapshot_plan(document_id: int) -> Plan:
    """What snapshots the document is to have. Reads sizes alone; the cost grows with its live rows, 6 ms for 50,000."""
    snapshots = Snapshot.objects.filter(document_id=document_id).order_by("seq")
    sizes = list(snapshots.values_list("seq", Length("state"), Length("full_state")))
    with connection.cursor() as cursor:
        cursor.execute(COUNT_LOG_BYTES, {"document_id": document_id})
        log_bytes = int(cursor.fetchone()[0])
    return plan_snapshots(
        {seq: state for seq, state, _ in sizes},
        full_bytes=sizes[-1][2] if sizes else 0,
        log_bytes=log_bytes,
        rows_between=conf().snapshot_distance_rows,
        log_percent=conf().snapshots_log_percent,
    )


def thin(document_id: int) -> None:
    """Delete the snapshots that the plan has no place for, and all full states but the newest."""
    keep = snapshot_plan(document_id).keep
    if not keep:
        return
    newest = max(keep)
    # One that came since the plan was made is none of its business.
    Snapshot.objects.filter(document_id=document_id, seq__lt=newest).exclude(seq__in=keep).delete()
    with connection.cursor() as cursor:
        cursor.execute(FORGET_FULL_STATES, {"document_id": document_id, "newest": newest})
