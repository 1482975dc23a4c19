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

LEVEL = 9
"""Of zstd. The state of B4, 223 KB, takes 98 KB in 4 ms; 101 KB in 2.6 ms at level 6, 94 KB in 22 ms at level 15."""

WINDOW_LOG_MAX = 27
"""128 MiB: a difference must reach back over the whole state that it differs from."""

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
        state=pack_state(state),
        full_state=pack_state(full_state),
    )
    thin(document_id)


def store_rung(
    document_id: int, seq: int, doc: "Doc[Any]", *, claims: Mapping[int, int], base_seq: int | None = None
) -> None:
    """Store the fold at `seq`, older than the newest snapshot, once; as a difference to the one at `base_seq` where
    that is there and whole. `doc` is as it is served.

    Raises: ValueError, as `store_snapshot`; IntegrityError where the base is deleted meanwhile."""
    state = _checked_state(document_id, seq, doc, known=decode_state_vector(doc.get_state()), claims=claims)
    whole = Snapshot.objects.filter(document_id=document_id, base_seq=None).values_list("state", flat=True)
    base = None if base_seq is None else whole.filter(seq=base_seq).first()
    if base is None:
        _store(document_id, seq, state_bytes=len(state), state=pack_state(state))
    else:
        packed = pack_state(state, base=unpack_state(bytes(base)))
        _store(document_id, seq, state_bytes=len(state), state=packed, base_seq=base_seq)


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


def pack_state(state: bytes, *, base: bytes = b"") -> bytes:
    """With `base`, a state of the same document, only what differs takes room: 5 to 20 KB of B4 for 98."""
    size = len(state) + len(base)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(state),
        dict_size=len(base),
        window_log=min(max(size.bit_length(), zstandard.WINDOWLOG_MIN), WINDOW_LOG_MAX),
        write_checksum=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(base)).compress(state)


def unpack_state(stored: bytes, *, base: bytes = b"") -> bytes:
    """Raises: ValueError for bytes that `pack_state` did not make of this base."""
    try:
        if zstandard.get_frame_parameters(stored).content_size > STATE_BYTES_MAX:
            raise ValueError("the state of a snapshot is larger than STATE_BYTES_MAX")
        decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(base), max_window_size=1 << WINDOW_LOG_MAX)
        return decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"the state of a snapshot does not decompress: {error}") from error


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None


def state_of(snapshot: Snapshot) -> bytes:
    """The state of a snapshot, unpacked. Raises: ValueError where it does not unpack."""
    if snapshot.base_seq is None:
        return unpack_state(bytes(snapshot.state))
    base = Snapshot.objects.only("state").filter(document_id=snapshot.document_id, seq=snapshot.base_seq).first()
    if base is None:
        raise ValueError("the snapshot that it differs from has gone meanwhile")
    return unpack_state(bytes(snapshot.state), base=unpack_state(bytes(base.state)))


def newest_state(document_id: int, *, until: int, full: bool) -> tuple[int, bytes]:
    """The seq and state of the newest snapshot at or before `until`, with `full` of the newest that has a full state;
    (0, b"") where there is none. One that does not unpack is passed over: it is a cache."""
    column = "full_state" if full else "state"
    snapshots = Snapshot.objects.filter(document_id=document_id).exclude(**{column: b""}).order_by("-seq")
    while until > 0:
        snapshot = snapshots.filter(seq__lte=until).only("base_seq", column).first()
        if snapshot is None:
            break
        try:
            return snapshot.seq, unpack_state(bytes(snapshot.full_state)) if full else state_of(snapshot)
        except ValueError:
            logger.exception("snapshot passed over: document=%s seq=%s", document_id, snapshot.seq)
            until = snapshot.seq - 1
    return 0, b""


def full_state_behind(document_id: int, seq: int, *, until: int) -> tuple[int, bytes] | None:
    """The seq and the full state of the first snapshot after `seq`, up to `until`, that has one and unpacks."""
    snapshots = Snapshot.objects.filter(document_id=document_id, seq__gt=seq, seq__lte=until).exclude(full_state=b"")
    for snapshot in snapshots.order_by("seq").only("full_state"):
        try:
            return snapshot.seq, unpack_state(bytes(snapshot.full_state))
        except ValueError:
            logger.exception("snapshot passed over: document=%s seq=%s", document_id, snapshot.seq)
    return None


def snapshot_plan(document_id: int) -> Plan:
    """What snapshots the document is to have. Reads sizes alone; the cost grows with its live rows, 6 ms for 50,000."""
    snapshots = Snapshot.objects.filter(document_id=document_id).order_by("seq")
    sizes = list(snapshots.values_list("seq", Length("state"), Length("full_state"), "base_seq"))
    with connection.cursor() as cursor:
        cursor.execute(COUNT_LOG_BYTES, {"document_id": document_id})
        log_bytes = int(cursor.fetchone()[0])
    return plan_snapshots(
        {seq: state for seq, state, *_ in sizes},
        [seq for seq, *_, base_seq in sizes if base_seq is not None],
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
