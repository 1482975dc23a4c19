"""Groups: a document's life as people think of it. What one author did through any tabs and doors, without a pause of
RUN_GAP_SECONDS; a version and a restore end what stands before them, and a restore is a group of its own.

Runs are per session and know nothing of the others: this joins them, and cuts them where something happened between."""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from documents.conf import conf
from documents.models import Document
from history.authors import Author, author_of
from history.log import LogRow, consistent_read, head_of, read_log
from history.models import Kind, Version
from history.runs import RunSummary, runs_reaching
from history.timeline import PLAIN_KINDS, source_seqs

LOOK_AROUND_SEQS = 64
"""How far around a cut the next row of a run is looked for first; each further look goes 16 times as far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`user` is None for acts of nobody and of accounts that are gone; without one, each session stands alone. Seqs are
    inclusive; others may have written in between. `kind` is that of the last update, `session_ids` rise."""

    user: Any | None
    session_ids: tuple[int, ...]
    kind: Kind
    first_seq: int
    last_seq: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLine:
    """One group as a line of the list. `source_seq` is the seq that a restore went back to."""

    group: Group
    author: Author
    source_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPage:
    """Lines, the one that ended last first; `next_before` asks for the page after it, None on the last."""

    lines: list[GroupLine]
    next_before: int | None


def group_page(document: Document, *, before: int | None, limit: int) -> GroupPage:
    """The groups that ended before seq `before` (the newest when None), at most `limit`. Raises: LogHole."""
    groups = groups_of(document.pk, until=None if before is None else before - 1, limit=limit + 1)
    shown = groups[:limit]
    sources = source_seqs(document, [group.session_ids[0] for group in shown if group.kind == Kind.RESTORE])
    lines = [
        GroupLine(group=group, author=author_of(group.user), source_seq=sources.get(group.session_ids[0]))
        for group in shown
    ]
    return GroupPage(lines=lines, next_before=shown[-1].last_seq if len(groups) > limit else None)


def groups_of(
    document_id: int, *, until: int | None = None, limit: int = 30, cuts: Collection[int] | None = None
) -> list[Group]:
    """A document's groups, the one that ended last first; with `until`, those that ended at that seq or before.

    `cuts` are seqs behind which a group ends: without them those of the versions that people named. The next page
    starts at `until=groups[-1].last_seq - 1`. Cost grows with the runs read: all of a time without a common pause.
    Raises: LogHole."""
    with consistent_read():
        head = head_of(document_id)
        until = head.seq if until is None else min(until, head.seq)
        if cuts is None:
            named = Version.objects.filter(document_id=document_id, automatic=False)
            cuts = list(named.values_list("seq", flat=True))
        ended = (group for group in _groups(document_id, until, sorted(cuts)) if group.last_seq <= until)
        return list(islice(ended, limit))


def _groups(document_id: int, until: int, cuts: Sequence[int]) -> Iterator[Group]:
    gap = timedelta(seconds=conf().run_gap_seconds)
    together: list[RunSummary] = []
    first_at = datetime.max.replace(tzinfo=UTC)
    for run in runs_reaching(document_id, until=until):
        if together and first_at - run.last_at > gap:
            yield from _grouped(together, cuts, gap)
            together, first_at = [], run.first_at
        together.append(run)
        first_at = min(first_at, run.first_at)
    yield from _grouped(together, cuts, gap)


def _grouped(runs: list[RunSummary], cuts: Sequence[int], gap: timedelta) -> Iterator[Group]:
    """The groups of all runs of a time that no common pause cuts, the one that ended last first."""
    seqs = list(cuts)
    for run in runs:
        if run.kind not in PLAIN_KINDS:
            insort(seqs, run.first_seq - 1)
            insort(seqs, run.last_seq)
    pieces = sorted((piece for run in runs for piece in _cut(run, seqs)), key=lambda piece: piece.first_seq)
    groups: list[Group] = []
    open_groups: dict[Any, int] = {}
    for piece in pieces:
        author = ("user", piece.user.pk) if piece.user is not None else ("session", piece.session_ids)
        last = open_groups.get(author)
        if last is not None and _goes_on(groups[last], piece, seqs, gap):
            groups[last] = _joined(groups[last], piece)
            continue
        open_groups[author] = len(groups)
        groups.append(piece)
    yield from sorted(groups, key=lambda group: group.last_seq, reverse=True)


def _goes_on(group: Group, piece: Group, cuts: Sequence[int], gap: timedelta) -> bool:
    is_plain = group.kind in PLAIN_KINDS and piece.kind in PLAIN_KINDS
    return is_plain and piece.first_at - group.last_at <= gap and not _between(cuts, group.first_seq, piece.first_seq)


def _between(cuts: Sequence[int], first: int, stop: int) -> Sequence[int]:
    """The cuts that part a row at seq `first` from one at `stop`."""
    return cuts[bisect_left(cuts, first) : bisect_left(cuts, stop)]


def _joined(group: Group, piece: Group) -> Group:
    later = max(group, piece, key=lambda each: each.last_seq)
    return replace(
        group,
        session_ids=tuple(sorted({*group.session_ids, *piece.session_ids})),
        kind=later.kind,
        last_seq=later.last_seq,
        last_at=max(group.last_at, piece.last_at),
    )


def _cut(run: RunSummary, cuts: Sequence[int]) -> Iterator[Group]:
    """A run in pieces, none of which a cut goes through."""
    piece = Group(
        user=run.user,
        session_ids=(run.session_id,),
        kind=run.kind,
        first_seq=run.first_seq,
        last_seq=run.last_seq,
        first_at=run.first_at,
        last_at=run.last_at,
    )
    if run.kind in PLAIN_KINDS:
        for cut in _between(cuts, run.first_seq, run.last_seq):
            if cut < piece.first_seq:
                continue  # nothing of the run stands between it and the cut before
            end, start = _row_before(run, cut), _row_behind(run, cut)
            yield replace(piece, last_seq=end.seq, last_at=end.at)
            piece = replace(piece, first_seq=start.seq, first_at=start.at)
    yield piece


def _row_before(run: RunSummary, cut: int) -> LogRow:
    """The last row of a run that begins at or before `cut` and ends behind it: at most `cut`."""
    return _own(run, lambda far: (max(cut - far, run.first_seq - 1), cut))[-1]


def _row_behind(run: RunSummary, cut: int) -> LogRow:
    return _own(run, lambda far: (cut, min(cut + far, run.last_seq)))[0]


def _own(run: RunSummary, span: Callable[[int], tuple[int, int]]) -> list[LogRow]:
    """The run's rows in the first span that has some, ever wider; the run's ends bound it."""
    far = LOOK_AROUND_SEQS
    while True:
        after, until = span(far)
        rows = read_log(run.document_id, after=after, until=until)
        own = [row for row in rows if row.session_id == run.session_id]
        if own:
            return own
        far *= 16
