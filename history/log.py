"""Reading the log: rows and packed segments as one gapless sequence.

A reader never sees a hole: all tables are read in one snapshot of the database, and a missing seq raises `LogHole`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction

from history.crdt.packing import unpack
from history.errors import LogHole
from history.models import Head, Segment, Update

PAGE_ROWS = 5000
"""Rows fetched by one query."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LogRow:
    """One update of the log, whether it lies in a row or in a segment."""

    seq: int
    session_id: int
    kind: int
    at: datetime
    payload: bytes


@contextmanager
def consistent_read() -> Iterator[None]:
    """Read everything inside in one snapshot of the database, which a squash in between cannot tear.

    Inside the caller's `atomic()` the caller's isolation holds; a torn read then raises LogHole, never lies."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def head_of(document_id: int) -> Head:
    return Head.objects.get(document_id=document_id)


def read_log(document_id: int, *, after: int = 0, until: int) -> Iterator[LogRow]:
    """The rows after+1..until, in order. Call inside `consistent_read()`.

    Raises: LogHole when one of them is missing."""
    expected = after + 1
    for row in _rows_of_segments(document_id, after=after, until=until):
        if row.seq != expected:
            raise LogHole(document_id, expected)
        yield row
        expected += 1
    while expected <= until:
        page = Update.objects.filter(document_id=document_id, seq__gte=expected, seq__lte=until).order_by("seq")
        found = page.values_list("seq", "session_id", "kind", "at", "payload")[:PAGE_ROWS]
        if not found:
            raise LogHole(document_id, expected)
        for seq, session_id, kind, at, payload in found:
            if seq != expected:
                raise LogHole(document_id, expected)
            yield LogRow(seq, session_id, kind, at, bytes(payload))
            expected += 1


def read_payloads(document_id: int, *, after: int = 0, until: int) -> Iterator[bytes]:
    """As `read_log`, the updates alone."""
    return (row.payload for row in read_log(document_id, after=after, until=until))


def seq_at(document_id: int, at: datetime) -> int:
    """The last seq that was in the log at that time; 0 before the first. Times never fall as seqs rise."""
    rows = Update.objects.filter(document_id=document_id, at__lte=at).order_by("-seq")
    seq = rows.values_list("seq", flat=True).first()
    if seq is not None:
        return seq
    segment = Segment.objects.filter(document_id=document_id, first_at__lte=at).order_by("-first_seq").first()
    if segment is None:
        return 0
    return max(row.seq for row in _unpacked(segment) if row.at <= at)


def _rows_of_segments(document_id: int, *, after: int, until: int) -> Iterator[LogRow]:
    segments = Segment.objects.filter(document_id=document_id, last_seq__gt=after, first_seq__lte=until)
    for segment in segments.order_by("first_seq").iterator(chunk_size=10):
        for row in _unpacked(segment):
            if after < row.seq <= until:
                yield row


def _unpacked(segment: Segment) -> Iterator[LogRow]:
    for place, row in enumerate(unpack(bytes(segment.payload))):
        at = EPOCH + timedelta(microseconds=row.at_microseconds)
        yield LogRow(segment.first_seq + place, row.session_id, row.kind, at, row.payload)
