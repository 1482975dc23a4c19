"""A document folded from its log: newest snapshot, then the tail. All reading of content starts here."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import DatabaseError
from pycrdt import Doc

from documents.conf import conf
from history.crdt.folding import fold
from history.crdt.splits import with_splits
from history.crdt.updates import claim, decode_update
from history.errors import NoSuchSeq
from history.log import consistent_read, head_of, read_log, read_splits, read_updates, seq_at
from history.models import Snapshot
from history.snapshots import is_due, store_snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A document at `seq`. `doc` is the caller's own. `at` is when that seq was stored; None for an empty log."""

    doc: "Doc[Any]"
    seq: int
    epoch: int
    hash: bytes
    """The head's hash when `seq` is the head, else empty."""
    at: datetime | None
    snapshot_seq: int
    snapshot_bytes: int
    tail_rows: int
    tail_bytes: int


def make_ydoc(document_id: int, *, doc: "Doc[Any] | None" = None) -> Folded:
    """The document at its head, for serving: gc'd. `doc` may bring observers; it must be empty.

    Where the tail has grown past SNAPSHOT_ROWS or SNAPSHOT_TAIL_PERCENT, the log is compacted into a new snapshot.
    Raises: LogHole."""
    served: Doc[Any] = Doc() if doc is None else doc
    if _tail_is_long(document_id):
        claims: dict[int, int] = {}
        full = _full_with(claims, document_id)
        is_stored = _is_stored(document_id, full, claims)
        served.apply_update(full.doc.get_update())
        return replace(full, doc=served, snapshot_seq=full.seq if is_stored else full.snapshot_seq)
    folded = _fold(document_id, until=None, full=False, doc=served)
    if is_due(folded.tail_rows, folded.tail_bytes, folded.snapshot_bytes):
        claims = {}
        _is_stored(document_id, _full_with(claims, document_id), claims)
    return folded


def _is_stored(document_id: int, full: Folded, claims: Mapping[int, int]) -> bool:
    """Store a snapshot where it can be had: it is a cache, and a document opens without."""
    try:
        store_snapshot(document_id, full.seq, full.doc, claims=claims)
    except (ValueError, DatabaseError):
        logger.exception("no snapshot: document=%s seq=%s", document_id, full.seq)
        return False
    return True


def _tail_is_long(document_id: int) -> bool:
    """Whether folding the tail once for the snapshot as well saves reading it twice."""
    last = Snapshot.objects.filter(document_id=document_id).order_by("-seq").values_list("seq", flat=True).first()
    return head_of(document_id).seq - (last or 0) > conf().snapshot_rows


def full_ydoc(document_id: int) -> Folded:
    """The document at its head with all that was ever deleted (`skip_gc`): what updates for the log are made on."""
    return _fold(document_id, until=None, full=True, doc=Doc(skip_gc=True))


def compact(document_id: int) -> Folded:
    """Store a snapshot at the head; return the full fold that it was made of. Two at once store one.

    Raises: LogHole; ValueError for what must not be stored: see `store_snapshot`."""
    claims: dict[int, int] = {}
    folded = _full_with(claims, document_id)
    if folded.tail_rows:
        store_snapshot(document_id, folded.seq, folded.doc, claims=claims)
    return folded


def _full_with(claims: dict[int, int], document_id: int) -> Folded:
    """As `full_ydoc`; `claims` is raised to all that the rows of the tail speak of."""
    return _fold(document_id, until=None, full=True, doc=Doc(skip_gc=True), claims=claims)


def document_at(document_id: int, *, seq: int | None = None, at: datetime | None = None, full: bool = False) -> Folded:
    """The document as it was at a seq or at a time (the head when neither is given).

    Raises: NoSuchSeq, LogHole."""
    doc: Doc[Any] = Doc(skip_gc=True) if full else Doc()
    with consistent_read():
        if at is not None:
            seq = seq_at(document_id, at)
        return _fold(document_id, until=seq, full=full, doc=doc)


def _fold(
    document_id: int,
    *,
    until: int | None,
    full: bool,
    doc: "Doc[Any]",
    claims: dict[int, int] | None = None,
) -> Folded:
    with consistent_read():
        head = head_of(document_id)
        seq = head.seq if until is None else until
        if not 0 <= seq <= head.seq:
            raise NoSuchSeq(document_id, seq, head.seq)
        column = "full_state" if full else "state"
        snapshots = Snapshot.objects.filter(document_id=document_id, seq__lte=seq).order_by("-seq")
        start, state = snapshots.values_list("seq", column).first() or (0, b"")
        splits = read_splits(document_id, until=seq)
        if state:
            doc.apply_update(with_splits(bytes(state), splits))
        at: datetime | None = None
        tail_bytes = 0

        def tail() -> Any:
            nonlocal at, tail_bytes
            for row in read_updates(document_id, after=start, until=seq, splits=splits):
                at = row.at
                tail_bytes += len(row.payload)
                if claims is not None:
                    claim(claims, decode_update(row.payload))
                yield row.payload

        tail_rows = fold(
            doc,
            tail(),
            rows_per_transaction=conf().fold_rows_per_transaction,
            bytes_per_transaction=conf().fold_bytes_per_transaction,
        )
        if at is None and seq:
            at = head.at if seq == head.seq else next(read_log(document_id, after=seq - 1, until=seq)).at
    return Folded(
        doc=doc,
        seq=seq,
        epoch=head.epoch,
        hash=bytes(head.hash) if seq == head.seq else b"",
        at=at,
        snapshot_seq=start,
        snapshot_bytes=len(state),
        tail_rows=tail_rows,
        tail_bytes=tail_bytes,
    )
