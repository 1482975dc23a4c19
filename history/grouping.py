"""Groups: a document's life as people think of it. What one author did through any tabs and doors, without a pause of
RUN_GAP_SECONDS; a version and a restore end what stands before them, and a restore is a group of its own.

Runs are per session and know nothing of the others: this joins them, and cuts them where something happened between."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias

from documents.conf import conf
from documents.models import Document
from history.authors import Author, author_of
from history.errors import LogHole
from history.log import consistent_read, head_of, read_log
from history.models import Head, Kind, Version
from history.runs import RunSummary, runs_reaching
from history.timeline import PLAIN_KINDS, source_seqs

BLOCK_SEQS = 4096
"""Rows that are read at once where a run is cut."""

BLOCKS_KEPT_MAX = 32
"""Blocks that one page of groups keeps, some 400 KB each, without what was written."""

_Place: TypeAlias = tuple[int, datetime]
"""The seq of a row, and when it was written."""


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
        ended = (group for group in _groups(head, until, sorted(cuts)) if group.last_seq <= until)
        return list(islice(ended, limit))


def _groups(head: Head, until: int, cuts: Sequence[int]) -> Iterator[Group]:
    rows = _Rows(head)
    gap = timedelta(seconds=conf().run_gap_seconds)
    together: list[RunSummary] = []
    first_at = datetime.max.replace(tzinfo=UTC)
    for run in runs_reaching(head.document_id, until=until):
        if together and first_at - run.last_at > gap:
            yield from _grouped(together, cuts, gap, rows)
            together, first_at = [], run.first_at
        together.append(run)
        first_at = min(first_at, run.first_at)
    yield from _grouped(together, cuts, gap, rows)


def _grouped(runs: list[RunSummary], cuts: Sequence[int], gap: timedelta, rows: "_Rows") -> Iterator[Group]:
    """The groups of all runs of a time that no common pause cuts, the one that ended last first."""
    seqs = list(cuts)
    for run in runs:
        if run.kind not in PLAIN_KINDS:
            insort(seqs, run.first_seq - 1)
            insort(seqs, run.last_seq)
    pieces = sorted((piece for run in runs for piece in _cut(run, seqs, rows)), key=lambda piece: piece.first_seq)
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


def _cut(run: RunSummary, cuts: Sequence[int], rows: "_Rows") -> Iterator[Group]:
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
            (last_seq, last_at), (first_seq, first_at) = rows.around(run.session_id, cut)
            yield replace(piece, last_seq=last_seq, last_at=last_at)
            piece = replace(piece, first_seq=first_seq, first_at=first_at)
    yield piece


class _Rows:
    """Which rows are of which session, by blocks that are kept: what many cuts part is read once."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._block = lru_cache(BLOCKS_KEPT_MAX)(self._read)

    def around(self, session_id: int, cut: int) -> tuple[_Place, _Place]:
        """The session's last row up to `cut` and its first one behind it. Raises: LogHole where there is none."""
        number = (cut - 1) // BLOCK_SEQS
        own = self._block(number).get(session_id, [])
        place = bisect_right(own, cut, key=itemgetter(0))
        before = own[place - 1] if place else self._beside(session_id, number, -1)[-1]
        behind = own[place] if place < len(own) else self._beside(session_id, number, 1)[0]
        return before, behind

    def _beside(self, session_id: int, number: int, step: int) -> list[_Place]:
        """The session's rows in the next block on that side which has some."""
        while 0 <= (number := number + step) <= (self._head.seq - 1) // BLOCK_SEQS:
            if own := self._block(number).get(session_id):
                return own
        raise LogHole(self._head.document_id, self._head.seq)  # a run tells of rows that are not there

    def _read(self, number: int) -> Mapping[int, list[_Place]]:
        """By session, of the seqs behind number * BLOCK_SEQS, as many as a block has."""
        after = number * BLOCK_SEQS
        found: dict[int, list[_Place]] = {}
        for row in read_log(self._head.document_id, after=after, until=min(after + BLOCK_SEQS, self._head.seq)):
            found.setdefault(row.session_id, []).append((row.seq, row.at))
        return found
