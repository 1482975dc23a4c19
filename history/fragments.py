"""Fragments: runs as far as they lie in one block of the log. Those of live rows are computed by the query that squash
writes with, those of squashed rows are in `history_run`, cut at the edges of segments.

A log is read from its end, block by block; the last blocks of many documents are read together."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeAlias

from django.db import connection

from documents.conf import conf
from history.crdt.lib0 import Malformed
from history.crdt.updates import extent_in
from history.log import LogRow, Span, consistent_read, read_live
from history.models import Kind, Segment, Update

TAIL_BLOCK_ROWS = 2000
"""Live rows that one query groups: a page of the newest runs never reads a whole tail."""

FRAGMENTS_WARM_MAX = 100_000
"""Runs of whole blocks of live rows that a process keeps, some 300 bytes each: counting what rows hold takes 5 µs each,
and a page may be of a hundred thousand."""

SEGMENT_BLOCK = 10
"""Segments whose runs one query reads."""

OF_SESSIONS = "(SELECT * FROM unnest(%(session_documents)s::bigint[], %(session_ids)s::bigint[]))"

# The fragments of some live rows, in no order. A `split` row belongs to the edit right behind it, in its block or not.
RUNS_OF_ROWS = f"""
WITH acts AS (
    SELECT live.document_id, live.seq, session_id, at, octet_length(payload) AS bytes, inserted, deleted,
           CASE WHEN kind <> {Kind.SPLIT.value} THEN kind ELSE COALESCE(LEAD(kind) OVER own, (
               SELECT edit.kind FROM history_update edit
               WHERE edit.document_id = live.document_id AND edit.seq = live.seq + 1
                 AND edit.session_id = live.session_id
           ), {Kind.SYNC.value}) END AS kind
    FROM unnest(%(document_ids)s::bigint[], %(first_seqs)s::bigint[], %(last_seqs)s::bigint[])
      AS span (document_id, first_seq, last_seq)
    JOIN history_update live ON live.document_id = span.document_id
     AND live.seq BETWEEN span.first_seq AND span.last_seq
    LEFT JOIN unnest(%(counted_ids)s::bigint[], %(seqs)s::bigint[], %(inserted)s::bigint[], %(deleted)s::bigint[])
      AS counted (document_id, seq, inserted, deleted)
      ON counted.document_id = live.document_id AND counted.seq = live.seq
    WHERE %(session_ids)s::bigint[] IS NULL
       OR (live.document_id, session_id) IN {OF_SESSIONS}
    WINDOW own AS (PARTITION BY live.document_id, session_id ORDER BY live.seq)
), marked AS (
    SELECT *, (kind IS DISTINCT FROM LAG(kind) OVER own
               OR at - LAG(at) OVER own > make_interval(secs => %(gap_seconds)s))::int AS opens
    FROM acts WINDOW own AS (PARTITION BY document_id, session_id ORDER BY seq)
), numbered AS (
    SELECT *, SUM(opens) OVER (PARTITION BY document_id, session_id ORDER BY seq) AS number FROM marked
)
SELECT document_id, session_id, MIN(seq) AS first_seq, MAX(seq) AS last_seq,
       MIN(at) AS first_at, MAX(at) AS last_at, kind, COUNT(*) AS updates, SUM(bytes)::bigint AS bytes,
       COALESCE(SUM(inserted), 0)::bigint AS inserted, COALESCE(SUM(deleted), 0)::bigint AS deleted
FROM numbered GROUP BY document_id, session_id, number, kind
"""

INSERT_RUNS = f"""
INSERT INTO history_run (document_id, session_id, first_seq, last_seq, first_at, last_at, kind, updates, bytes,
                         inserted, deleted)
{RUNS_OF_ROWS}
"""

# Each document's last seq up to `until`, or one behind it in the same segment; the end of its segments; and where the
# segment begins that this seq is in, or the one before it.
ENDS = """
SELECT asked.document_id, reached.seq, COALESCE(newest.last_seq, 0), COALESCE((
           SELECT first_seq FROM history_segment
           WHERE document_id = asked.document_id AND first_seq <= reached.seq ORDER BY first_seq DESC LIMIT 1
       ), 0)
FROM unnest(%(document_ids)s::bigint[], %(seqs)s::bigint[]) AS asked (document_id, seq)
LEFT JOIN LATERAL (
    SELECT last_seq FROM history_segment WHERE document_id = asked.document_id ORDER BY first_seq DESC LIMIT 1
) newest ON true
CROSS JOIN LATERAL (
    SELECT CASE WHEN %(until)s::timestamptz IS NULL THEN asked.seq ELSE LEAST(asked.seq, COALESCE(
        (SELECT seq FROM history_update
         WHERE document_id = asked.document_id AND at <= %(until)s ORDER BY seq DESC LIMIT 1),
        (SELECT last_seq FROM history_segment
         WHERE document_id = asked.document_id AND first_at <= %(until)s ORDER BY first_seq DESC LIMIT 1),
        0)) END AS seq
) reached
"""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run, or the part of one that lies in one block."""

    document_id: int
    session_id: int
    first_seq: int
    last_seq: int
    first_at: datetime
    last_at: datetime
    kind: int
    updates: int
    bytes: int
    inserted: int
    deleted: int


_COLUMNS = ", ".join(f"run.{field.name}" for field in fields(Fragment))
# They lie inside their segments, so that the primary key finds them.
STORED_RUNS = f"""
SELECT {_COLUMNS}
FROM unnest(%(document_ids)s::bigint[], %(first_seqs)s::bigint[], %(last_seqs)s::bigint[])
  AS span (document_id, first_seq, last_seq)
JOIN history_run run ON run.document_id = span.document_id AND run.first_seq BETWEEN span.first_seq AND span.last_seq
WHERE %(session_ids)s::bigint[] IS NULL
   OR (run.document_id, session_id) IN {OF_SESSIONS}
"""

SessionKeys = Sequence[tuple[int, int]]
"""Sessions, by document and id."""


@dataclass(slots=True)
class OpenedLog:
    """A document's log, read from its end as far as `first_seq`: `fragments` are what was found, inside each block the
    last ended first. Rows after `squashed` are live. With `sessions`, theirs alone."""

    document_id: int
    squashed: int
    first_seq: int
    fragments: list[Fragment]
    sessions: SessionKeys | None


def open_logs(
    seqs: Mapping[int, int], *, until: datetime | None = None, sessions: SessionKeys | None = None
) -> list[OpenedLog]:
    """Open documents, each at its seq in `seqs`; with `until` at that time, or in its segment a little behind.

    All of them together read TAIL_BLOCK_ROWS rows at most. Outside of a transaction the fragments of all live rows are
    gathered at once, as a squash may take rows away between two reads; segments never change."""
    is_one_moment = connection.in_atomic_block
    with consistent_read():
        opened = _open(seqs, until, sessions)
        for log in [] if is_one_moment else opened:
            while log.first_seq > log.squashed + 1:
                log.fragments += _block_before(log)
    return opened


def fragments_of(log: OpenedLog) -> Iterator[Fragment]:
    """Its fragments, block by block from the end; read as they are asked for."""
    yield from log.fragments
    log.fragments = []
    while log.first_seq > 1:
        yield from _block_before(log)


def _open(seqs: Mapping[int, int], until: datetime | None, sessions: SessionKeys | None) -> list[OpenedLog]:
    rows_max = max(TAIL_BLOCK_ROWS // max(len(seqs), 1), 1)
    opened = []
    live: list[Span] = []
    stored: list[Span] = []
    parameters = {"document_ids": list(seqs), "seqs": list(seqs.values()), "until": until}
    for document_id, seq, squashed, segment_first_seq in _fetched(ENDS, parameters):
        first_seq = seq + 1
        if seq > squashed:
            first_seq = max(_block_start(squashed, seq), seq - rows_max + 1)
            live.append((document_id, first_seq, seq))
        if first_seq <= squashed + 1 and segment_first_seq:
            stored.append((document_id, segment_first_seq, first_seq - 1))
            first_seq = segment_first_seq
        opened.append(OpenedLog(document_id, squashed, first_seq, [], sessions))
    of_document = {log.document_id: log.fragments for log in opened}
    for fragment in (*_live_fragments(live, sessions), *_stored_fragments(stored, sessions)):
        of_document[fragment.document_id].append(fragment)
    return opened


def _block_before(log: OpenedLog) -> list[Fragment]:
    """What is known of the block before what has been read, which is then read too."""
    if log.first_seq > log.squashed + 1:
        last_seq = log.first_seq - 1
        log.first_seq = _block_start(log.squashed, last_seq)
        return _live_fragments([(log.document_id, log.first_seq, last_seq)], log.sessions)
    segments = Segment.objects.filter(document_id=log.document_id, first_seq__lt=log.first_seq).order_by("-first_seq")
    first_seqs = list(segments.values_list("first_seq", flat=True)[:SEGMENT_BLOCK])
    last_seq = log.first_seq - 1
    log.first_seq = first_seqs[-1] if first_seqs else 1
    return _stored_fragments([(log.document_id, log.first_seq, last_seq)], log.sessions) if first_seqs else []


def _block_start(squashed: int, last_seq: int) -> int:
    """Blocks of live rows stand at fixed seqs, so that they can be kept."""
    return max(squashed + 1, (last_seq - 1) // TAIL_BLOCK_ROWS * TAIL_BLOCK_ROWS + 1)


def _live_fragments(spans: Sequence[Span], sessions: SessionKeys | None) -> list[Fragment]:
    if len(spans) == 1 and spans[0][2] - spans[0][1] + 1 == TAIL_BLOCK_ROWS:
        return _whole_block(spans[0], sessions)
    return _newest_first(RUNS_OF_ROWS, query_parameters(spans, read_live(spans), sessions=sessions)) if spans else []


def _whole_block(span: Span, sessions: SessionKeys | None) -> list[Fragment]:
    document_id, _, last_seq = span
    row = Update.objects.filter(document_id=document_id, seq=last_seq)
    hash_ = row.values_list("hash", flat=True).first()
    # The hash covers all rows up to it: a log that was set back and has grown again has another one.
    key = document_id, last_seq, bytes(hash_ or b""), conf().run_gap_seconds
    found = _warm.get(key)
    if found is None:
        found = _newest_first(RUNS_OF_ROWS, query_parameters([span], read_live([span])))
        _warm.put(key, found)
    wanted = None if sessions is None else set(sessions)
    return [each for each in found if wanted is None or (document_id, each.session_id) in wanted]


def _stored_fragments(spans: Sequence[Span], sessions: SessionKeys | None) -> list[Fragment]:
    return _newest_first(STORED_RUNS, {**_of(spans), **_by(sessions)}) if spans else []


def _newest_first(query: str, parameters: Mapping[str, Any]) -> list[Fragment]:
    return sorted((Fragment(*row) for row in _fetched(query, parameters)), key=attrgetter("last_seq"), reverse=True)


def _fetched(query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())


def query_parameters(
    spans: Sequence[Span], rows: Iterable[tuple[int, LogRow]], *, sessions: SessionKeys | None = None
) -> dict[str, Any]:
    """What RUNS_OF_ROWS and INSERT_RUNS ask for. `rows` are the live ones of `spans`, each with its document: SQL
    cannot count what they hold, so that each is read here, which takes 2 µs for a keystroke."""
    wanted = None if sessions is None else set(sessions)
    counted = [
        (document_id, row.seq, *extent_of(row))
        for document_id, row in rows
        if row.kind != Kind.SPLIT and (wanted is None or (document_id, row.session_id) in wanted)
    ]
    return {
        **_of(spans),
        **_by(sessions),
        "gap_seconds": conf().run_gap_seconds,
        "counted_ids": _array(document_id for document_id, _, _, _ in counted),
        "seqs": _array(seq for _, seq, _, _ in counted),
        "inserted": _array(inserted for _, _, inserted, _ in counted),
        "deleted": _array(deleted for _, _, _, deleted in counted),
    }


def _array(numbers: Iterable[int]) -> str:
    """An array as SQL writes it: psycopg takes ten times as long, as it looks at what each number is."""
    return f"{{{','.join(map(str, numbers))}}}"


def _of(spans: Sequence[Span]) -> dict[str, list[int]]:
    document_ids, first_seqs, last_seqs = (list(column) for column in zip(*spans, strict=True))
    return {"document_ids": document_ids, "first_seqs": first_seqs, "last_seqs": last_seqs}


def _by(sessions: SessionKeys | None) -> dict[str, list[int] | None]:
    if sessions is None:
        return {"session_documents": None, "session_ids": None}
    return {"session_documents": [pk for pk, _ in sessions], "session_ids": [id_ for _, id_ in sessions]}


def extent_of(row: LogRow) -> tuple[int, int]:
    """What a row inserts and deletes (`updates.extent`). What cannot be read counts as nothing: a run tells people how
    much, the log itself is proven elsewhere."""
    try:
        return extent_in(row.payload)
    except Malformed:
        return 0, 0


_BlockKey: TypeAlias = tuple[int, int, bytes, float]
"""Document, last seq, its hash, RUN_GAP_SECONDS."""


class _Warm:
    """The runs of the whole blocks that were asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[_BlockKey, list[Fragment]] = OrderedDict()
        self._size = 0

    def get(self, key: _BlockKey) -> list[Fragment] | None:
        with self._lock:
            found = self._of.get(key)
            if found is not None:
                self._of.move_to_end(key)
            return found

    def put(self, key: _BlockKey, fragments: list[Fragment]) -> None:
        with self._lock:
            self._size += len(fragments) - len(self._of.pop(key, ()))
            self._of[key] = fragments
            while self._size > FRAGMENTS_WARM_MAX:
                self._size -= len(self._of.popitem(last=False)[1])


_warm = _Warm()
