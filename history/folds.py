"""A document folded from its log: newest snapshot, then the tail. All reading of content starts here."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import DatabaseError
from pycrdt import Doc

from documents.conf import conf
from history.crdt.cutting import cut
from history.crdt.folding import fold
from history.crdt.idsets import encoded_delete_set_of
from history.crdt.splits import Splits, with_splits
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import claim, decode_update
from history.errors import NoSuchSeq
from history.log import LogBlock, LogRow, consistent_read, head_of, read_blocks, read_log, read_splits, seq_at
from history.models import Snapshot
from history.snapshots import full_state_behind, is_due, newest_state, store_snapshot

logger = logging.getLogger(__name__)

STATE_BYTES_A_ROW = 20
"""Of a full state, which take as long to cut out as one row takes to be replayed: 3 µs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A document at `seq`. `doc` is the caller's own. `at` is when that seq was stored; None for an empty log."""

    doc: "Doc[Any]"
    seq: int
    epoch: int
    hash: bytes
    """The head's hash when `seq` is the head, else empty."""
    at: datetime | None
    row: LogRow | None
    """The row at `seq`, where it was read: not where a snapshot stands at the head."""
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


def fold_for_rung(document_id: int, seq: int) -> tuple[Folded, dict[int, int]]:
    """The document at `seq` as it is served, and all that the rows since the snapshot before it speak of.

    Raises: NoSuchSeq, LogHole."""
    claims: dict[int, int] = {}
    return _fold(document_id, until=seq, full=False, doc=Doc(), claims=claims), claims


def document_at(document_id: int, *, seq: int | None = None, at: datetime | None = None, full: bool = False) -> Folded:
    """The document as it was at a seq or at a time (the head when neither is given).

    Replays at most about SNAPSHOT_DISTANCE_ROWS once squash and the ladder have gone by, more where the document is as
    large as its log (SNAPSHOTS_LOG_PERCENT). With `full`, all that was ever deleted is there: only the newest snapshot
    has it, out of which earlier moments are cut.
    Raises: NoSuchSeq, LogHole."""
    with consistent_read():
        if at is not None:
            seq = seq_at(document_id, at)
        if not full:
            return _fold(document_id, until=seq, full=False, doc=Doc())
        cut_out = None if seq is None else _cut_out(document_id, seq)
        return cut_out or _fold(document_id, until=seq, full=True, doc=Doc(skip_gc=True))


def _cut_out(document_id: int, seq: int) -> Folded | None:
    """The full fold at `seq`, cut out of a later full state instead of replaying all rows before it; None where there
    is none, where replaying takes no longer, and where something was split in between, which changes what was said."""
    if seq <= conf().snapshot_distance_rows:
        return None
    later = full_state_behind(document_id, seq, until=head_of(document_id).seq)
    if later is None:
        return None
    later_seq, state = later
    if seq * STATE_BYTES_A_ROW < len(state):
        return None
    if read_splits(document_id, until=seq) != read_splits(document_id, until=later_seq):
        return None
    then = _fold(document_id, until=seq, full=False, doc=Doc())
    known = decode_state_vector(then.doc.get_state())
    doc: Doc[Any] = Doc(skip_gc=True)
    try:
        doc.apply_update(cut(state, known=known, delete_set=encoded_delete_set_of(then.doc)))
    except ValueError:
        logger.exception("snapshot passed over: document=%s seq=%s", document_id, later_seq)
        return None
    if decode_state_vector(doc.get_state()) != known:
        logger.error("snapshot passed over: document=%s seq=%s", document_id, later_seq)
        return None
    return replace(then, doc=doc)


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
        start, state = newest_state(document_id, until=seq, full=full)
        splits = read_splits(document_id, until=seq)
        if state:
            doc.apply_update(with_splits(state, splits))
        tail = _Tail(read_blocks(document_id, after=start, until=seq), splits, claims)
        tail_rows = fold(
            doc,
            tail,
            rows_per_transaction=conf().fold_rows_per_transaction,
            bytes_per_transaction=conf().fold_bytes_per_transaction,
        )
        row = tail.last_row
        if row is None and 0 < seq < head.seq:
            row = next(read_log(document_id, after=seq - 1, until=seq))
    return Folded(
        doc=doc,
        seq=seq,
        epoch=head.epoch,
        hash=bytes(head.hash) if seq == head.seq else b"",
        at=row.at if row else head.at if seq else None,
        row=row,
        snapshot_seq=start,
        snapshot_bytes=len(state),
        tail_rows=tail_rows,
        tail_bytes=tail.bytes,
    )


class _Tail:
    """The updates of blocks as they are folded, which remembers what went by."""

    def __init__(self, blocks: Iterable[LogBlock], splits: Splits, claims: dict[int, int] | None) -> None:
        self.blocks = blocks
        self.splits = splits
        self.claims = claims
        self.bytes = 0
        self.last_row: LogRow | None = None

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            payloads = block.folded_payloads(self.splits)
            self.bytes += sum(map(len, payloads))
            if self.claims is not None:
                for payload in payloads:
                    claim(self.claims, decode_update(payload))
            self.last_row = block.last_row
            yield from payloads
