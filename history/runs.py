"""Runs: what a person reads as one edit. All updates of one session and one kind, none further than RUN_GAP_SECONDS
from the session's one before; others may write in between, so the spans of two people's runs overlap.

Squashed rows have their runs in `history_run`, cut at the edges of segments; those of live rows are computed by the
same query that squash writes with (`fragments`). Readers join them again at every edge: squash changes nothing."""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db.models import Case, Exists, F, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Coalesce

from documents.conf import conf
from documents.models import Document
from history.fragments import Fragment, OpenedLog, fragments_of, open_logs
from history.log import consistent_read, head_of, read_log, seq_at
from history.models import Head, Kind, Run, Segment, Session, Update, Via

SUMMARIES_PER_QUERY = 64
"""Runs whose sessions one query reads: a little more than a page of the audit, which so opens no document in vain."""

OPENED_TOGETHER_MAX = 32
"""Documents whose last edits are read together. One alone at first, then twice as many each time: a document that has
the whole page needs no other."""


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


def runs_of(document_id: int, *, until: int | None = None, limit: int = 100) -> list[RunSummary]:
    """A document's runs, the one that ended last first; with `until`, those that ended at that seq or before.

    The next page starts at `until=runs[-1].last_seq - 1`. Cost grows with the runs returned, not with the log."""
    with consistent_read():
        head = head_of(document_id)
        until = head.seq if until is None else min(until, head.seq)
        if until < 1:
            return []
        newest_first = _merged(_opened_at(document_id, _seq_past_gap(head, until)))
        ended = (run for run in newest_first if run.last_seq <= until)
        return _summaries(list(islice(ended, limit)))


def runs_reaching(document_id: int, *, until: int) -> Iterator[RunSummary]:
    """The runs that have rows at or before seq `until`, the last ended first; each is told as far as it goes within
    RUN_GAP_SECONDS behind that seq. They are read as they are asked for: call inside `consistent_read()`."""
    head = head_of(document_id)
    if until < 1:
        return
    fragments = _merged(_opened_at(document_id, _seq_past_gap(head, min(until, head.seq))))
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
    heads = _heads(user=user, document=document, since=since, until=until, documents_visible=documents_visible)
    newest_first = _newest_first(heads, user=user, since=since, until=until)
    while page := list(islice(newest_first, SUMMARIES_PER_QUERY)):
        yield from _summaries(page)


def _heads(
    *,
    user: Any | None,
    document: Document | None,
    since: datetime | None,
    until: datetime | None,
    documents_visible: QuerySet[Document] | None,
) -> QuerySet[Head, tuple[int, int, datetime]]:
    """Documents with their last seq, and a time after which none of their wanted runs ended; the latest first."""
    heads = Head.objects.filter(seq__gt=0)
    if document is not None:
        heads = heads.filter(document=document)
    if documents_visible is not None:
        heads = heads.filter(document__in=documents_visible.order_by().values("pk"))
    if user is not None:
        heads = heads.filter(document_id__in=Session.objects.filter(user=user).values("document_id"))
    if since is not None:
        heads = heads.filter(at__gte=since)
    heads = heads.annotate(ended_at=F("at") if until is None else _last_edit(until=until))
    if until is not None:
        heads = heads.filter(ended_at__gte=since) if since is not None else heads.filter(ended_at__isnull=False)
    return heads.order_by("-ended_at").values_list("document_id", "seq", "ended_at")


def _last_edit(*, until: datetime) -> Case:
    """Of a head: when the last edit up to that time was stored; None before the first.

    Live rows are looked through only where no segment ends later: they have no index by time."""
    of_head = {"document_id": OuterRef("document_id")}
    live = Update.objects.filter(**of_head, at__lte=until).order_by("-seq").values("at")[:1]
    squashed = Run.objects.filter(**of_head, last_at__lte=until).order_by("-last_at").values("last_at")[:1]
    return Case(
        When(at__lte=until, then=F("at")),
        When(Exists(Segment.objects.filter(**of_head, last_at__gt=until)), then=Subquery(squashed)),
        default=Coalesce(Subquery(live), Subquery(squashed)),
    )


def _newest_first(
    heads: QuerySet[Head, tuple[int, int, datetime]],
    *,
    user: Any | None,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[Fragment]:
    """Merge the documents' runs by time. A document is opened only when the list has come down to its last edit, and
    a few of those behind it with it."""
    waiting: list[tuple[float, int, int, Fragment, Iterator[Fragment]]] = []

    def push(runs: Iterator[Fragment]) -> None:
        run = next(runs, None)
        if run is not None:
            heapq.heappush(waiting, (-run.last_at.timestamp(), run.document_id, -run.last_seq, run, runs))

    def pop() -> Fragment:
        *_, run, runs = heapq.heappop(waiting)
        push(runs)
        return run

    for ended_at, log in _opened(heads, user=user, until=until):
        while waiting and waiting[0][3].last_at > ended_at:
            yield pop()
        push(_ended_between(log, since=since, until=until))
    while waiting:
        yield pop()


def _opened(
    heads: QuerySet[Head, tuple[int, int, datetime]], *, user: Any | None, until: datetime | None
) -> Iterator[tuple[datetime, OpenedLog]]:
    past_gap = None if until is None else until + timedelta(seconds=conf().run_gap_seconds)
    in_order = heads.iterator(chunk_size=100)
    together = 1
    while some := list(islice(in_order, together)):
        sessions = None
        if user is not None:
            of_user = Session.objects.filter(document_id__in=[document_id for document_id, _, _ in some], user=user)
            sessions = list(of_user.values_list("document_id", "id"))
        seqs = {document_id: seq for document_id, seq, _ in some}
        logs = {log.document_id: log for log in open_logs(seqs, until=past_gap, sessions=sessions)}
        yield from ((ended_at, logs[document_id]) for document_id, _, ended_at in some)
        together = min(2 * together, OPENED_TOGETHER_MAX)


def _ended_between(log: OpenedLog, *, since: datetime | None, until: datetime | None) -> Iterator[Fragment]:
    for run in _merged(log):
        if since is not None and run.last_at < since:
            return
        if until is None or run.last_at <= until:
            yield run


def _opened_at(document_id: int, seq: int) -> OpenedLog:
    (log,) = open_logs({document_id: seq})
    return log


def _seq_past_gap(head: Head, seq: int) -> int:
    """The last seq that could belong to a run with rows at or before `seq`: reading from there tells which runs went
    on. Any row of such a run that comes next lies within the gap."""
    if seq == head.seq:
        return seq
    at = next(read_log(head.document_id, after=seq - 1, until=seq)).at
    return seq_at(head.document_id, at + timedelta(seconds=conf().run_gap_seconds))


def _merged(log: OpenedLog) -> Iterator[Fragment]:
    """The runs of a log, the last ended first, joined over the edges of blocks.

    A run is given out once nothing that comes later in this order can still belong to it or stand before it."""
    gap = timedelta(seconds=conf().run_gap_seconds)
    growing: deque[_Growing] = deque()
    of_session: dict[int, _Growing] = {}
    for each in fragments_of(log):
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

    run: Fragment
    whole: bool = False


def _joined(earlier: Fragment, later: Fragment) -> Fragment:
    return replace(
        later,
        first_seq=earlier.first_seq,
        first_at=earlier.first_at,
        updates=earlier.updates + later.updates,
        bytes=earlier.bytes + later.bytes,
        inserted=earlier.inserted + later.inserted,
        deleted=earlier.deleted + later.deleted,
    )


def _summaries(runs: Sequence[Fragment]) -> list[RunSummary]:
    """Add who, whence and through what; all sessions in one query."""
    sessions = Session.objects.select_related("user").filter(
        document_id__in={run.document_id for run in runs}, id__in={run.session_id for run in runs}
    )
    known = {(session.document_id, session.id): session for session in sessions}
    return [_summary(run, known.get((run.document_id, run.session_id))) for run in runs]


def _summary(run: Fragment, session: Session | None) -> RunSummary:
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
