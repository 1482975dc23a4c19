"""Reading the log: rows and packed segments as one gapless sequence.

A reader never sees a hole: all tables are read in one snapshot of the database, and a missing seq raises `LogHole`."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest
from typing import Any, LiteralString

import psycopg
from django.db import connection, transaction

from documents.conf import conf
from documents.models import Document
from history.crdt.chain import GENESIS, row_hash
from history.crdt.packing import unpack_columns
from history.crdt.splits import EMPTY_UPDATE, Splits, with_splits
from history.errors import LogHole
from history.fates import Base
from history.models import Head, Kind, Segment, Session, Update
from history.times import microseconds, moment

READ_ROWS = """
SELECT seq, session_id, kind, at, payload FROM history_update
WHERE document_id = %s AND seq BETWEEN %s AND %s ORDER BY seq
"""
READ_SPLITS = "SELECT client, clock FROM history_split WHERE document_id = %s AND seq < %s"
# The size of a large payload stands beside it: this reads none of them.
COUNT_BYTES = """
SELECT coalesce(sum(octet_length(payload)), 0)::bigint FROM history_update
WHERE document_id = %s AND seq BETWEEN %s AND %s
"""
READ_SPANS = """
SELECT live.document_id, seq, session_id, kind, at, payload
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS span (document_id, first_seq, last_seq)
JOIN history_update live ON live.document_id = span.document_id AND seq BETWEEN first_seq AND last_seq
ORDER BY live.document_id, seq
"""
COUNT_BYTES_OF_SPANS = """
SELECT document_id, (
    SELECT coalesce(sum(octet_length(payload)), 0)::bigint FROM history_update live
    WHERE live.document_id = span.document_id AND seq BETWEEN first_seq AND last_seq
) FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS span (document_id, first_seq, last_seq)
"""

Span = tuple[int, int, int]
"""Rows of one document: its id, the first seq and the last, both included."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One update of the log, whether it lies in a row or in a segment."""

    seq: int
    session_id: int
    kind: int
    at: datetime
    payload: bytes


@dataclass(frozen=True, slots=True)
class LogBlock:
    """Neighbouring rows as they are read at once: a page of live rows, or what is asked for of a segment.

    The row at `place` (0-based) has the seq `first_seq + place`; `row_at` makes it, which a fold needs of the last
    one alone."""

    first_seq: int
    session_ids: Sequence[int]
    kinds: Sequence[int]
    payloads: Sequence[bytes]
    row_at: Callable[[int], LogRow]

    @property
    def last_row(self) -> LogRow:
        return self.row_at(len(self.payloads) - 1)

    def folded_payloads(self, splits: Splits) -> Sequence[bytes]:
        """The payloads as they are folded: with `splits` read as split, `split` rows as updates that say nothing."""
        if not splits and Kind.SPLIT not in self.kinds:
            return self.payloads
        return [
            EMPTY_UPDATE if kind == Kind.SPLIT else with_splits(payload, splits)
            for kind, payload in zip(self.kinds, self.payloads, strict=True)
        ]


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


READ_HEADS = """
SELECT head.document_id, head.seq, head.epoch, access.version, row.hash
FROM unnest(%s::bigint[], %s::bigint[]) AS asked (document_id, seq)
JOIN history_head head ON head.document_id = asked.document_id
JOIN documents_document document ON document.id = head.document_id AND document.deleted_at IS NULL
JOIN documents_access access ON access.document_id = head.document_id
LEFT JOIN history_update row ON row.document_id = asked.document_id AND row.seq = asked.seq
"""


@dataclass(frozen=True, slots=True)
class SeenHead:
    """Where a document's log ends and the version of its rights. `has_base`: the log goes on from where it was seen."""

    seq: int
    access_version: int
    has_base: bool


def read_heads(bases: Mapping[int, Base]) -> dict[int, SeenHead]:
    """The heads of documents, by document, in one query; deleted ones are left out."""
    found = _page(READ_HEADS, [list(bases), [base.seq for base in bases.values()]])
    return {
        document_id: SeenHead(seq, version, _has(bases[document_id], seq=seq, epoch=epoch, hash_=hash_))
        for document_id, seq, epoch, version, hash_ in found
    }


def has_base(head: Head, base: Base) -> bool:
    """Whether the log goes on from where it was seen. A squashed row is not looked for: its segment is a day old."""
    rows = Update.objects.filter(document_id=head.document_id, seq=base.seq)
    hash_ = rows.values_list("hash", flat=True).first()
    return _has(base, seq=head.seq, epoch=head.epoch, hash_=None if hash_ is None else bytes(hash_))


def _has(base: Base, *, seq: int, epoch: int, hash_: bytes | None) -> bool:
    return epoch == base.epoch and seq >= base.seq and (not base.hash or hash_ is None or hash_ == base.hash)


def head_of(document_id: int) -> Head:
    return Head.objects.get(document_id=document_id)


def read_log(document_id: int, *, after: int = 0, until: int) -> Iterator[LogRow]:
    """The rows after+1..until, in order. Call inside `consistent_read()`.

    Raises: LogHole when one of them is missing."""
    for block in read_blocks(document_id, after=after, until=until):
        yield from map(block.row_at, range(len(block.payloads)))


def read_blocks(document_id: int, *, after: int = 0, until: int) -> Iterator[LogBlock]:
    """As `read_log`, many rows at a time: none larger than a segment, or than PAGE_ROWS and PAGE_BYTES_MAX.

    Raises: LogHole when a row is missing; all that stands before it in its block is then not given out."""
    expected = after + 1
    for block in _blocks_of_segments(document_id, after=after, until=until):
        if block.first_seq != expected:
            raise LogHole(document_id, expected)
        yield block
        expected += len(block.payloads)
    while expected <= until:
        block = _live_block(document_id, expected, _last_of_page(document_id, expected, until))
        yield block
        expected += len(block.payloads)


def read_live(spans: Sequence[Span]) -> Iterator[tuple[int, LogRow]]:
    """The live rows of some spans, each with its document: as many spans at once as PAGE_ROWS and PAGE_BYTES_MAX allow.

    One span of each document, not empty, and none reaches into a segment. Raises: LogHole when a row is missing."""
    sizes = dict(_page(COUNT_BYTES_OF_SPANS, _columns(spans))) if len(spans) > 1 else {}
    together: list[Span] = []
    rows = bytes_ = 0
    for span in spans:
        document_id, first_seq, last_seq = span
        rows += last_seq - first_seq + 1
        bytes_ += sizes.get(document_id, 0)
        if together and (rows > conf().page_rows or bytes_ > conf().page_bytes_max):
            yield from _live_rows(together)
            together, rows, bytes_ = [], last_seq - first_seq + 1, sizes.get(document_id, 0)
        together.append(span)
    yield from _live_rows(together)


def _live_rows(spans: Sequence[Span]) -> Iterator[tuple[int, LogRow]]:
    if len(spans) == 1:
        ((document_id, expected, until),) = spans
        while expected <= until:
            block = _live_block(document_id, expected, _last_of_page(document_id, expected, until))
            yield from ((document_id, block.row_at(place)) for place in range(len(block.payloads)))
            expected += len(block.payloads)
    elif spans:
        page = _page(READ_SPANS, _columns(spans))
        expected_rows = [(span[0], seq) for span in sorted(spans) for seq in range(span[1], span[2] + 1)]
        for expected_row, row in zip_longest(expected_rows, page):
            if row is None or row[:2] != expected_row:
                raise LogHole(*expected_row)
            yield row[0], LogRow(*row[1:])


def _columns(spans: Sequence[Span]) -> list[list[int]]:
    return [list(column) for column in zip(*spans, strict=True)]


def read_updates(document_id: int, *, after: int = 0, until: int, splits: Splits) -> Iterator[LogRow]:
    """As `read_log`, as rows are folded: with `splits` read as split, and `split` rows as updates that say nothing."""
    for block in read_blocks(document_id, after=after, until=until):
        for place, payload in enumerate(block.folded_payloads(splits)):
            row = block.row_at(place)
            yield row if payload is row.payload else replace(row, payload=payload)


def read_splits(document_id: int, *, until: int) -> Splits:
    """The characters that are split in the document at `until`: their rows stand before it, as a `split` row itself
    changes nothing. Call inside `consistent_read()`."""
    return frozenset(_page(READ_SPLITS, [document_id, until]))


def seq_at(document_id: int, at: datetime) -> int:
    """The last seq that was in the log at that time; 0 before the first. Times never fall as seqs rise."""
    rows = Update.objects.filter(document_id=document_id, at__lte=at).order_by("-seq")
    seq = rows.values_list("seq", flat=True).first()
    if seq is not None:
        return seq
    segment = Segment.objects.filter(document_id=document_id, first_at__lte=at).order_by("-first_seq").first()
    if segment is None:
        return 0
    times = unpack_columns(bytes(segment.payload)).at_microseconds
    return segment.first_seq + bisect_right(times, microseconds(at)) - 1


def _last_of_page(document_id: int, first: int, until: int) -> int:
    """Where a page ends that begins at `first`: by PAGE_ROWS and PAGE_BYTES_MAX. It has at least one row."""
    last = min(until, first + max(conf().page_rows, 1) - 1)
    while last > first and _page(COUNT_BYTES, [document_id, first, last])[0][0] > conf().page_bytes_max:
        last = first + (last - first) // 2
    return last


def _page(query: LiteralString, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows in psycopg's binary form: the ORM takes four times as long for them."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        return psycopg.Cursor(connection.connection).execute(query, params, binary=True).fetchall()


def _live_block(document_id: int, first: int, last: int) -> LogBlock:
    page = _page(READ_ROWS, [document_id, first, last])
    for expected, row in enumerate(page, first):
        if row[0] != expected:
            raise LogHole(document_id, expected)
    if not page:
        raise LogHole(document_id, first)
    _, session_ids, kinds, _, payloads = zip(*page, strict=True)
    return LogBlock(first, session_ids, kinds, payloads, lambda place: LogRow(*page[place]))


def _blocks_of_segments(document_id: int, *, after: int, until: int) -> Iterator[LogBlock]:
    if after >= until:
        return
    segments = Segment.objects.filter(document_id=document_id, last_seq__gt=after, first_seq__lte=until)
    for segment in segments.order_by("first_seq").iterator(chunk_size=1):  # each is up to SEGMENT_BYTES_MAX
        yield _block_of(segment, after=after, until=until)


def rows_of(segment: Segment) -> Iterator[LogRow]:
    """The rows of a segment, in order. Raises: Malformed."""
    block = _block_of(segment, after=0, until=segment.last_seq)
    yield from map(block.row_at, range(len(block.payloads)))


def _block_of(segment: Segment, *, after: int, until: int) -> LogBlock:
    start, stop = max(after + 1 - segment.first_seq, 0), until + 1 - segment.first_seq
    columns = unpack_columns(bytes(segment.payload))
    session_ids, times = columns.session_ids[start:stop], columns.at_microseconds[start:stop]
    kinds, payloads = columns.kinds[start:stop], columns.payloads[start:stop]
    first_seq = segment.first_seq + start

    def row_at(place: int) -> LogRow:
        return LogRow(first_seq + place, session_ids[place], kinds[place], moment(times[place]), payloads[place])

    return LogBlock(first_seq, session_ids, kinds, payloads, row_at)


def hash_at(document: Document, seq: int) -> bytes | None:
    """The hash of a row, live or squashed; of seq 0 that of an empty log. None for one that the log does not have."""
    if seq == 0:
        return GENESIS
    live = Update.objects.filter(document=document, seq=seq).values_list("hash", flat=True).first()
    if live is not None:
        return bytes(live)
    segment = Segment.objects.filter(document=document, first_seq__lte=seq, last_seq__gte=seq).first()
    if segment is None:
        return None
    rows = [row for row in rows_of(segment) if row.seq <= seq]
    sessions = Session.objects.filter(document=document, id__in={row.session_id for row in rows})
    commitments = {session_id: bytes(value) for session_id, value in sessions.values_list("id", "commitment")}
    found = bytes(segment.start_hash)
    for row in rows:
        found = row_hash(
            found,
            document_key=document.key.bytes,
            seq=row.seq,
            kind=row.kind,
            at_microseconds=microseconds(row.at),
            session_commitment=commitments[row.session_id],
            payload=row.payload,
        )
    return found
