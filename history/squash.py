"""Squash: cold rows become packed segments, and nothing of them is lost.

One transaction a segment: pack, read back and compare, then delete. A kill at any point leaves rows or segment, never
neither and never both. Live appends are not held up: it takes no lock that they take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models.functions import Length

from documents.conf import conf
from documents.models import Document
from history.crdt.chain import GENESIS, row_hash
from history.crdt.lib0 import Malformed
from history.crdt.packing import CODEC, PackedRow, pack, unpack
from history.errors import HistoryError, LogHole
from history.fragments import INSERT_RUNS, query_parameters
from history.log import LogRow
from history.models import Kind, Segment, Session, Snapshot, Update
from history.times import microseconds

# Two workers on one document would pack the same rows and one of them fail at the primary key; this lock lets the
# second go on to other documents at once. Not the head's row, whose lock would stall live appends, nor the
# document's, whose lock holds up changes of rights.
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('palimpsest squash ' || %s, 0))"

HOLD = "SELECT pg_advisory_xact_lock_shared(hashtextextended('palimpsest squash ' || %s, 0))"

Progress = Callable[[int], None]


class SquashRefused(HistoryError):
    """The rows to pack are not what the chain says, or do not read back: all of them stay as they are."""

    def __init__(self, document_id: int, seq: int, what: str) -> None:
        super().__init__(f"document {document_id}: not squashed at seq {seq}: {what}")
        self.document_id = document_id
        self.seq = seq


@dataclass(frozen=True, slots=True)
class _ColdRow:
    seq: int
    packed: PackedRow
    at: datetime
    hash: bytes


def squash_document(
    document_id: int, *, older_than: datetime, segments_max: int | None = None, progress: Progress | None = None
) -> int:
    """Pack the document's rows that were stored before `older_than`, the oldest first; return how many.

    A last span of fewer than SEGMENT_ROWS_MIN rows stays live. Each segment is committed by itself; `progress` is told
    its last seq. Where another worker is at this document, 0. Must not run inside `atomic()`.
    Raises: SquashRefused, LogHole; segments that were committed before stay."""
    rows = segments = 0
    while segments_max is None or segments < segments_max:
        segment = _squash_one(document_id, older_than=older_than)
        if segment is None:
            break
        rows += segment.last_seq - segment.first_seq + 1
        segments += 1
        if progress is not None:
            progress(segment.last_seq)
    return rows


def hold_squash(document_id: int) -> None:
    """Until the transaction ends, no row of the document moves into a segment; waits for a segment under way. Many may
    hold it at once."""
    with connection.cursor() as cursor:
        cursor.execute(HOLD, [document_id])


def _squash_one(document_id: int, *, older_than: datetime) -> Segment | None:
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute(TRY_LOCK, [document_id])
            if not cursor.fetchone()[0]:
                return None
        last = Segment.objects.filter(document_id=document_id).order_by("-first_seq").first()
        after, start_hash = (0, GENESIS) if last is None else (last.last_seq, bytes(last.end_hash))
        until = _last_seq_to_pack(document_id, after=after, older_than=older_than)
        if until is None:
            return None
        rows = _cold_rows(document_id, after=after, until=until)
        segment = _store(document_id, rows, start_hash=start_hash)
        _compare_what_was_stored(segment, rows)
        _replace_rows(segment, rows)
    return segment


def _last_seq_to_pack(document_id: int, *, after: int, older_than: datetime) -> int | None:
    """Where the next segment ends: at SEGMENT_ROWS_MAX, SEGMENT_BYTES_MAX or the first row that is still warm; not
    between a `split` row and its edit, which are of one run.

    None when what there is would make a segment of fewer rows than SEGMENT_ROWS_MIN, unless its bytes fill one."""
    rows = Update.objects.filter(document_id=document_id, seq__gt=after).order_by("seq")
    sizes = rows.values_list("seq", "at", "kind", Length("payload"))[: conf().segment_rows_max]
    bytes_ = 0
    until = after
    for seq, at, kind, size in sizes:
        if at >= older_than:
            break
        if until > after and bytes_ + size > conf().segment_bytes_max:
            return until
        bytes_ += size
        if kind != Kind.SPLIT:
            until = seq
    return until if until - after >= max(conf().segment_rows_min, 1) else None


def _cold_rows(document_id: int, *, after: int, until: int) -> list[_ColdRow]:
    rows = Update.objects.filter(document_id=document_id, seq__gt=after, seq__lte=until).order_by("seq")
    cold = [
        _ColdRow(seq, PackedRow(session_id, kind, microseconds(at), bytes(payload)), at, bytes(hash_))
        for seq, session_id, kind, at, payload, hash_ in rows.values_list(
            "seq", "session_id", "kind", "at", "payload", "hash"
        )
    ]
    for expected, row in enumerate(cold, after + 1):
        if row.seq != expected:
            raise LogHole(document_id, expected)
    return cold


def _store(document_id: int, rows: Sequence[_ColdRow], *, start_hash: bytes) -> Segment:
    payload = pack([row.packed for row in rows])
    return Segment.objects.create(
        document_id=document_id,
        first_seq=rows[0].seq,
        last_seq=rows[-1].seq,
        first_at=rows[0].at,
        last_at=rows[-1].at,
        codec=CODEC,
        payload=payload,
        start_hash=start_hash,
        end_hash=rows[-1].hash,
        counts={
            "rows": len(rows),
            "payload_bytes": sum(len(row.packed.payload) for row in rows),
            "packed_bytes": len(payload),
        },
    )


def _compare_what_was_stored(segment: Segment, rows: Sequence[_ColdRow]) -> None:
    """Read the segment back from the database, compare each row, and recompute the chain from it. As every row is the
    same in the same place, so is the document at the segment's end and at each seq within.

    Raises: SquashRefused; the caller's transaction then takes the segment back."""
    document_id = segment.document_id
    stored = Segment.objects.values_list("payload", flat=True).get(document_id=document_id, first_seq=segment.first_seq)
    try:
        unpacked = unpack(bytes(stored))
    except Malformed as error:
        raise SquashRefused(document_id, segment.first_seq, f"the segment does not read back: {error}") from error
    if len(unpacked) != len(rows):
        raise SquashRefused(document_id, segment.first_seq, f"{len(rows)} rows read back as {len(unpacked)}")
    key = Document.objects.values_list("key", flat=True).get(pk=document_id)
    sessions = Session.objects.filter(document_id=document_id, id__in={row.session_id for row in unpacked})
    commitments = dict(sessions.values_list("id", "commitment"))
    hash_ = bytes(segment.start_hash)
    for row, read_back in zip(rows, unpacked, strict=True):
        if read_back != row.packed:
            raise SquashRefused(document_id, row.seq, "the row does not read back as it was")
        if read_back.session_id not in commitments:
            raise SquashRefused(document_id, row.seq, "its session is missing")
        hash_ = row_hash(
            hash_,
            document_key=key.bytes,
            seq=row.seq,
            kind=read_back.kind,
            at_microseconds=read_back.at_microseconds,
            session_commitment=bytes(commitments[read_back.session_id]),
            payload=read_back.payload,
        )
        if hash_ != row.hash:
            raise SquashRefused(document_id, row.seq, "its hash is not what the chain says; run verify_history")


def _replace_rows(segment: Segment, rows: Sequence[_ColdRow]) -> None:
    """Write the segment's runs and delete its rows, exactly as many as it holds."""
    document_id = segment.document_id
    log_rows = (
        (document_id, LogRow(row.seq, row.packed.session_id, row.packed.kind, row.at, row.packed.payload))
        for row in rows
    )
    parameters = query_parameters([(document_id, segment.first_seq, segment.last_seq)], log_rows)
    # The log takes less than before, and so may its snapshots.
    Snapshot.objects.filter(document_id=document_id).update(ladder_built=False)
    with connection.cursor() as cursor:
        cursor.execute(INSERT_RUNS, parameters)
        cursor.execute(
            "DELETE FROM history_update WHERE document_id = %s AND seq BETWEEN %s AND %s",
            [document_id, segment.first_seq, segment.last_seq],
        )
        if cursor.rowcount != segment.last_seq - segment.first_seq + 1:
            raise SquashRefused(document_id, segment.first_seq, f"{cursor.rowcount} rows went")
