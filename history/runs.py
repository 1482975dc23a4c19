"""Runs: what a person reads as one edit. All updates of one session and one kind, none further than RUN_GAP_SECONDS
from the session's one before; others may write in between, so the spans of two people's runs overlap.

Squashed rows have their runs in `history_run`, cut at the edges of segments; those of live rows are computed by the
same query that squash writes with. Readers join them again at every edge, so that squash changes nothing."""

import heapq
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter
from typing import Any, TypeAlias

from django.db import connection
from django.db.models import QuerySet

from documents.conf import conf
from documents.models import Document
from history.crdt.lib0 import Malformed
from history.crdt.updates import extent_in
from history.log import LogRow, consistent_read, head_of, read_log, seq_at
from history.models import Head, Kind, Run, Segment, Session, Update, Via

TAIL_BLOCK_ROWS = 2000
"""Live rows that one query groups: a page of the newest runs never reads a whole tail."""

FRAGMENTS_WARM_MAX = 100_000
"""Runs of whole blocks of live rows that a process keeps, some 300 bytes each: counting what rows hold takes 5 µs each,
and a page may be of a hundred thousand."""

SUMMARIES_PER_QUERY = 100
"""Runs whose sessions one query reads."""

SEGMENT_BLOCK = 10
"""Segments whose runs one query reads."""

SUMMARIES_PER_QUERY = 100
"""Runs whose sessions one query reads."""

# The runs of one block of live rows, in no order. A `split` row belongs to the edit right behind it.
RUNS_OF_ROWS = f"""
WITH acts AS (
    SELECT seq, session_id, at, octet_length(payload) AS bytes, inserted, deleted,
           CASE kind WHEN {Kind.SPLIT.value} THEN COALESCE(LEAD(kind) OVER own, {Kind.SYNC.value}) ELSE kind END AS kind
    FROM history_update
    LEFT JOIN unnest(%(seqs)s::bigint[], %(inserted)s::bigint[], %(deleted)s::bigint[])
      AS counted (seq, inserted, deleted) USING (seq)
    WHERE document_id = %(document_id)s AND seq BETWEEN %(first_seq)s AND %(last_seq)s
      AND (%(session_ids)s::bigint[] IS NULL OR session_id = ANY(%(session_ids)s::bigint[]))
    WINDOW own AS (PARTITION BY session_id ORDER BY seq)
), marked AS (
    SELECT *, (kind IS DISTINCT FROM LAG(kind) OVER own
               OR at - LAG(at) OVER own > make_interval(secs => %(gap_seconds)s))::int AS opens
    FROM acts WINDOW own AS (PARTITION BY session_id ORDER BY seq)
), numbered AS (
    SELECT *, SUM(opens) OVER (PARTITION BY session_id ORDER BY seq) AS number FROM marked
)
SELECT %(document_id)s::bigint AS document_id, session_id, MIN(seq) AS first_seq, MAX(seq) AS last_seq,
       MIN(at) AS first_at, MAX(at) AS last_at, kind, COUNT(*) AS updates, SUM(bytes)::bigint AS bytes,
       COALESCE(SUM(inserted), 0)::bigint AS inserted, COALESCE(SUM(deleted), 0)::bigint AS deleted
FROM numbered GROUP BY session_id, number, kind
"""

INSERT_RUNS = f"""
INSERT INTO history_run (document_id, session_id, first_seq, last_seq, first_at, last_at, kind, updates, bytes,
                         inserted, deleted)
{RUNS_OF_ROWS}
"""


@dataclass(frozen=True, slots=True)
class _Fragment:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run. `user` is None for acts of nobody and of accounts that are gone; seqs are inclusive, and `updates`
    says how many of them are this run's own. `inserted` and `deleted` count units: see `updates.extent`."""

    document_id: int
    session_id: int
    user: Any | None
    via: Via | None
    ip: str | None
    kind: Kind
    first_seq: int
    last_seq: int
    first_at: datetime
    last_at: datetime
    updates: int
    bytes: int
    inserted: int
    deleted: int


def query_parameters(
    document_id: int, rows: Iterable[LogRow], *, first_seq: int, last_seq: int, session_ids: list[int] | None = None
) -> dict[str, Any]:
    """What RUNS_OF_ROWS and INSERT_RUNS ask for. `rows` are the live ones from first_seq to last_seq: SQL cannot count
    what they hold, so that each is read here, which takes 2 µs for a keystroke."""
    counted = [
        (row.seq, *extent_of(row))
        for row in rows
        if row.kind != Kind.SPLIT and (session_ids is None or row.session_id in session_ids)
    ]
    return {
        "document_id": document_id,
        "first_seq": first_seq,
        "last_seq": last_seq,
        "session_ids": session_ids,
        "gap_seconds": conf().run_gap_seconds,
        "seqs": _array(seq for seq, _, _ in counted),
        "inserted": _array(inserted for _, inserted, _ in counted),
        "deleted": _array(deleted for _, _, deleted in counted),
    }


def _array(numbers: Iterable[int]) -> str:
    """An array as SQL writes it: psycopg takes ten times as long, as it looks at what each number is."""
    return f"{{{','.join(map(str, numbers))}}}"


def extent_of(row: LogRow) -> tuple[int, int]:
    """What a row inserts and deletes (`updates.extent`). What cannot be read counts as nothing: a run tells people how
    much, the log itself is proven elsewhere."""
    try:
        return extent_in(row.payload)
    except Malformed:
        return 0, 0


def runs_of(document_id: int, *, until: int | None = None, limit: int = 100) -> list[RunSummary]:
    """A document's runs, the one that ended last first; with `until`, those that ended at that seq or before.

    The next page starts at `until=runs[-1].last_seq - 1`. Cost grows with the runs returned, not with the log."""
    with consistent_read():
        head = head_of(document_id)
        until = head.seq if until is None else min(until, head.seq)
        if until < 1:
            return []
        newest_first = _merged(document_id, from_seq=_seq_past_gap(head, until))
        ended = (run for run in newest_first if run.last_seq <= until)
        return _summaries(list(islice(ended, limit)))


def runs_reaching(document_id: int, *, until: int) -> Iterator[RunSummary]:
    """The runs that have rows at or before seq `until`, the last ended first; each is told as far as it goes within
    RUN_GAP_SECONDS behind that seq. They are read as they are asked for: call inside `consistent_read()`."""
    head = head_of(document_id)
    if until < 1:
        return
    fragments = _merged(document_id, from_seq=_seq_past_gap(head, min(until, head.seq)))
    while page := _summaries(list(islice(fragments, SUMMARIES_PER_QUERY))):
        yield from page


def edits(
    *,
    user: Any | None = None,
    document: Document | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    documents_visible: QuerySet[Document] | None = None,
) -> Iterator[RunSummary]:
    """Who edited what: runs of all documents, the one that ended last first, that ended in since..until (inclusive).

    `documents_visible` says of which documents the reader may know; None of all. Documents are opened in the order of
    their last edit and only as far as they are asked for: memory grows with these (some KB each, and outside of a
    transaction the runs that are not squashed yet), not with the edits told. Inside `consistent_read()` all are of one
    moment; outside, where a read goes on for long, each document is, and a squash in between changes nothing."""
    heads = _heads(user=user, document=document, since=since, documents_visible=documents_visible)
    newest_first = _newest_first(heads, user=user, since=since, until=until)
    while page := list(islice(newest_first, SUMMARIES_PER_QUERY)):
        yield from _summaries(page)


def _heads(
    *,
    user: Any | None,
    document: Document | None,
    since: datetime | None,
    documents_visible: QuerySet[Document] | None,
) -> QuerySet[Head]:
    heads = Head.objects.filter(seq__gt=0).order_by("-at")
    if document is not None:
        heads = heads.filter(document=document)
    if documents_visible is not None:
        heads = heads.filter(document__in=documents_visible.order_by().values("pk"))
    if user is not None:
        heads = heads.filter(document_id__in=Session.objects.filter(user=user).values("document_id"))
    if since is not None:
        heads = heads.filter(at__gte=since)
    return heads


def _newest_first(
    heads: QuerySet[Head], *, user: Any | None, since: datetime | None, until: datetime | None
) -> Iterator[_Fragment]:
    """Merge the documents' runs by time. No run of a document ended after its head, so that a document is opened only
    when the list has come down to its last edit."""
    waiting: list[tuple[float, int, int, _Fragment, Iterator[_Fragment]]] = []

    def push(runs: Iterator[_Fragment]) -> None:
        run = next(runs, None)
        if run is not None:
            heapq.heappush(waiting, (-run.last_at.timestamp(), run.document_id, -run.last_seq, run, runs))

    def pop() -> _Fragment:
        *_, run, runs = heapq.heappop(waiting)
        push(runs)
        return run

    for head in heads.iterator(chunk_size=100):
        while waiting and waiting[0][3].last_at > head.at:
            yield pop()
        push(_ended_between(head, user=user, since=since, until=until))
    while waiting:
        yield pop()


def _ended_between(
    head: Head, *, user: Any | None, since: datetime | None, until: datetime | None
) -> Iterator[_Fragment]:
    from_seq = head.seq
    if until is not None and until < head.at:
        from_seq = seq_at(head.document_id, until + timedelta(seconds=conf().run_gap_seconds))
    session_ids = None
    if user is not None:
        sessions = Session.objects.filter(document_id=head.document_id, user=user)
        session_ids = list(sessions.values_list("id", flat=True))
    for run in _merged(head.document_id, from_seq=from_seq, session_ids=session_ids):
        if since is not None and run.last_at < since:
            return
        if until is None or run.last_at <= until:
            yield run


def _seq_past_gap(head: Head, seq: int) -> int:
    """The last seq that could belong to a run with rows at or before `seq`: reading from there tells which runs went
    on. Any row of such a run that comes next lies within the gap."""
    if seq == head.seq:
        return seq
    at = next(read_log(head.document_id, after=seq - 1, until=seq)).at
    return seq_at(head.document_id, at + timedelta(seconds=conf().run_gap_seconds))


def _merged(document_id: int, *, from_seq: int, session_ids: list[int] | None = None) -> Iterator[_Fragment]:
    """The runs that have rows at or before `from_seq`, the last ended first, joined over the edges of blocks.

    A run is given out once nothing that comes later in this order can still belong to it or stand before it."""
    gap = timedelta(seconds=conf().run_gap_seconds)
    growing: deque[_Growing] = deque()
    of_session: dict[int, _Growing] = {}
    for each in _fragments(document_id, from_seq=from_seq, session_ids=session_ids):
        while growing and (growing[0].whole or growing[0].run.first_at - each.last_at > gap):
            done = growing.popleft()
            if of_session.get(done.run.session_id) is done:
                del of_session[done.run.session_id]  # a document may have a million sessions
            yield done.run
        later = of_session.get(each.session_id)
        if later is not None:
            if later.run.kind == each.kind and later.run.first_at - each.last_at <= gap:
                later.run = _joined(each, later.run)
                continue
            later.whole = True
        of_session[each.session_id] = _Growing(each)
        growing.append(of_session[each.session_id])
    yield from (grown.run for grown in growing)


@dataclass(slots=True)
class _Growing:
    """A run to whose front earlier fragments may still be joined."""

    run: _Fragment
    whole: bool = False


def _joined(earlier: _Fragment, later: _Fragment) -> _Fragment:
    return replace(
        later,
        first_seq=earlier.first_seq,
        first_at=earlier.first_at,
        updates=earlier.updates + later.updates,
        bytes=earlier.bytes + later.bytes,
        inserted=earlier.inserted + later.inserted,
        deleted=earlier.deleted + later.deleted,
    )


def _fragments(document_id: int, *, from_seq: int, session_ids: list[int] | None) -> Iterator[_Fragment]:
    """Live rows in blocks, then segments in blocks, from the end; inside a block the last ended first.

    Outside of a transaction the runs of all live rows are gathered at once, as a squash may take rows away between two
    reads; segments never change."""
    is_one_moment = connection.in_atomic_block
    segments = Segment.objects.filter(document_id=document_id)
    with consistent_read():
        squashed = segments.order_by("-first_seq").values_list("last_seq", flat=True).first() or 0
        live = _live_blocks(document_id, squashed, from_seq, session_ids=session_ids)
        if not is_one_moment:
            live = iter(list(live))
    yield from live
    last_seq = min(from_seq, squashed)
    while True:
        page = segments.filter(first_seq__lte=last_seq).order_by("-first_seq")[:SEGMENT_BLOCK]
        spans = list(page.values_list("first_seq", "last_seq"))
        if not spans:
            return
        yield from _stored_runs(document_id, spans[-1][0], spans[0][1], session_ids=session_ids)
        last_seq = spans[-1][0] - 1


def _live_blocks(
    document_id: int, squashed: int, last_seq: int, *, session_ids: list[int] | None
) -> Iterator[_Fragment]:
    while last_seq > squashed:
        first_seq = max(squashed + 1, (last_seq - 1) // TAIL_BLOCK_ROWS * TAIL_BLOCK_ROWS + 1)
        yield from _live_runs(document_id, first_seq, last_seq, session_ids=session_ids)
        last_seq = first_seq - 1


def _stored_runs(document_id: int, first_seq: int, last_seq: int, *, session_ids: list[int] | None) -> list[_Fragment]:
    """The runs of these segments: they lie inside them, so that the primary key finds them."""
    stored = Run.objects.filter(document_id=document_id, first_seq__gte=first_seq, first_seq__lte=last_seq)
    if session_ids is not None:
        stored = stored.filter(session_id__in=session_ids)
    columns = stored.values_list(*(field.name for field in fields(_Fragment)))
    return sorted((_Fragment(*row) for row in columns), key=attrgetter("last_seq"), reverse=True)


def _live_runs(document_id: int, first_seq: int, last_seq: int, *, session_ids: list[int] | None) -> list[_Fragment]:
    if last_seq - first_seq + 1 < TAIL_BLOCK_ROWS:
        return _grouped(document_id, first_seq, last_seq, session_ids=session_ids)
    row = Update.objects.filter(document_id=document_id, seq=last_seq)
    hash_ = row.values_list("hash", flat=True).first()
    # The hash covers all rows up to it: a log that was set back and has grown again has another one.
    key = document_id, last_seq, bytes(hash_ or b""), conf().run_gap_seconds
    found = _warm.get(key)
    if found is None:
        found = _grouped(document_id, first_seq, last_seq, session_ids=None)
        _warm.put(key, found)
    return [each for each in found if session_ids is None or each.session_id in session_ids]


def _grouped(document_id: int, first_seq: int, last_seq: int, *, session_ids: list[int] | None) -> list[_Fragment]:
    rows = read_log(document_id, after=first_seq - 1, until=last_seq)
    parameters = query_parameters(document_id, rows, first_seq=first_seq, last_seq=last_seq, session_ids=session_ids)
    with connection.cursor() as cursor:
        cursor.execute(RUNS_OF_ROWS, parameters)
        found = [_Fragment(*row) for row in cursor.fetchall()]
    return sorted(found, key=attrgetter("last_seq"), reverse=True)


_BlockKey: TypeAlias = tuple[int, int, bytes, float]
"""Document, last seq, its hash, RUN_GAP_SECONDS."""


class _Warm:
    """The runs of the whole blocks that were asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[_BlockKey, list[_Fragment]] = OrderedDict()
        self._size = 0

    def get(self, key: _BlockKey) -> list[_Fragment] | None:
        with self._lock:
            found = self._of.get(key)
            if found is not None:
                self._of.move_to_end(key)
            return found

    def put(self, key: _BlockKey, fragments: list[_Fragment]) -> None:
        with self._lock:
            self._size += len(fragments) - len(self._of.pop(key, ()))
            self._of[key] = fragments
            while self._size > FRAGMENTS_WARM_MAX:
                self._size -= len(self._of.popitem(last=False)[1])


_warm = _Warm()


def _summaries(runs: Sequence[_Fragment]) -> list[RunSummary]:
    """Add who, whence and through what; all sessions in one query."""
    sessions = Session.objects.select_related("user").filter(
        document_id__in={run.document_id for run in runs}, id__in={run.session_id for run in runs}
    )
    known = {(session.document_id, session.id): session for session in sessions}
    return [_summary(run, known.get((run.document_id, run.session_id))) for run in runs]


def _summary(run: _Fragment, session: Session | None) -> RunSummary:
    return RunSummary(
        document_id=run.document_id,
        session_id=run.session_id,
        user=None if session is None else session.user,
        via=None if session is None else Via(session.via),
        ip=None if session is None else session.ip,
        kind=Kind(run.kind),
        first_seq=run.first_seq,
        last_seq=run.last_seq,
        first_at=run.first_at,
        last_at=run.last_at,
        updates=run.updates,
        bytes=run.bytes,
        inserted=run.inserted,
        deleted=run.deleted,
    )
