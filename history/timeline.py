"""What people are shown of a document's history: moments and runs.

Read models only: nothing here writes or asks for rights. Callers have passed the gate (`documents.roles`) before."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model

from documents.models import Document
from documents.naming import has_control_characters
from history.authors import Author, author_of
from history.crdt.content import RootContent, content_of
from history.errors import NoSuchSeq
from history.folds import document_at
from history.log import LogRow, consistent_read, head_of, read_log, seq_at
from history.models import Kind, Session, Via
from history.runs import RunSummary, runs_of

RUNS_PER_PAGE = 30

PLAIN_KINDS = (Kind.SYNC, Kind.EDIT)
"""What people call an edit; every other kind is said."""

STEP_WINDOW_SEQS = 256
"""How far ahead the end of the next run is looked for first; each further look goes 64 times as far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A seq that the log has (0 is before the first edit), and where the log ended when it was looked up."""

    seq: int
    head_seq: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Who wrote a seq, when and through what. All None at 0."""

    seq: int
    head_seq: int
    at: datetime | None
    author: Author | None
    via: Via | None
    kind: Kind | None
    source_seq: int | None

    @property
    def act(self) -> str:
        return act_of(self.kind, self.source_seq) if self.kind else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment(Facts):
    """A document as it was right after `seq`; empty at 0."""

    content: dict[str, RootContent]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One run as a line of the list. `source_seq` is the seq that a restore went back to."""

    run: RunSummary
    author: Author
    source_seq: int | None

    @property
    def act(self) -> str:
        return act_of(self.run.kind, self.source_seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Lines, the one that ended last first; `next_before` asks for the page after it, None on the last."""

    lines: list[RunLine]
    next_before: int | None


def act_of(kind: Kind, source_seq: int | None = None) -> str:
    """What an update did, in a word or three; empty for a plain edit."""
    if kind in PLAIN_KINDS:
        return ""
    return kind.label if source_seq is None else f"restored seq {source_seq}"


def place_of(document: Document, *, seq: int | None = None, at: datetime | None = None) -> Place:
    """Find a seq, or the last one at a time; the head when neither is given. Folds nothing.

    Raises: NoSuchSeq."""
    with consistent_read():
        head = head_of(document.pk)
        if seq is None:
            seq = head.seq if at is None else min(seq_at(document.pk, at), head.seq)
        if not 0 <= seq <= head.seq:
            raise NoSuchSeq(document.pk, seq, head.seq)
        return Place(seq=seq, head_seq=head.seq, epoch=head.epoch)


def moment_of(document: Document, seq: int) -> Moment:
    """Read a document as it was at a seq.

    Raises: NoSuchSeq, LogHole, ContentTooDeep; Malformed, MissingDependency where the log is damaged."""
    with consistent_read():
        folded = document_at(document.pk, seq=seq)
        facts = _facts(document, seq, folded.row)
    told = {field.name: getattr(facts, field.name) for field in fields(facts)}
    return Moment(**told, content=content_of(folded.doc))


def facts_of(document: Document, seq: int) -> Facts:
    """Who wrote a seq; folds nothing. Raises: NoSuchSeq, LogHole; Malformed where the log is damaged."""
    with consistent_read():
        place_of(document, seq=seq)
        return _facts(document, seq, None)


def _facts(document: Document, seq: int, row: LogRow | None) -> Facts:
    if row is None and seq:
        row = next(read_log(document.pk, after=seq - 1, until=seq))
    sessions = Session.objects.select_related("user").filter(document=document)
    session = sessions.filter(id=row.session_id).first() if row else None
    return Facts(
        seq=seq,
        head_seq=head_of(document.pk).seq,
        at=row.at if row else None,
        author=author_of(session.user if session else None) if row else None,
        via=Via(session.via) if session else None,
        kind=Kind(row.kind) if row else None,
        source_seq=_source_seq(session.detail) if session and row and row.kind == Kind.RESTORE else None,
    )


def run_page(document: Document, *, before: int | None = None, limit: int = RUNS_PER_PAGE) -> RunPage:
    """The runs that ended before seq `before` (the newest when None), at most `limit`. Raises: LogHole."""
    runs = runs_of(document.pk, until=None if before is None else before - 1, limit=limit + 1)
    shown = runs[:limit]
    sources = source_seqs(document, [run.session_id for run in shown if run.kind == Kind.RESTORE])
    lines = [RunLine(run=run, author=author_of(run.user), source_seq=sources.get(run.session_id)) for run in shown]
    return RunPage(lines=lines, next_before=shown[-1].last_seq if len(runs) > limit else None)


def previous_run_end(document: Document, seq: int) -> int:
    """The last seq before `seq` at which a run ended; 0 when there is none. Raises: LogHole."""
    runs = runs_of(document.pk, until=seq - 1, limit=1)
    return runs[0].last_seq if runs else 0


def next_run_end(document: Document, seq: int) -> int:
    """The first seq after `seq` at which a run ended; the head when there is none. Raises: LogHole."""
    with consistent_read():
        head_seq = head_of(document.pk).seq
        window = STEP_WINDOW_SEQS
        while True:
            until = min(seq + window, head_seq)
            ends = _run_ends_between(document, seq, until)
            if ends or until >= head_seq:
                return min(ends, default=head_seq)
            window *= 64


def _run_ends_between(document: Document, after: int, until: int) -> list[int]:
    ends: list[int] = []
    while until > after:
        runs = runs_of(document.pk, until=until, limit=RUNS_PER_PAGE)
        ends += [run.last_seq for run in runs if run.last_seq > after]
        if len(runs) < RUNS_PER_PAGE or runs[-1].last_seq <= after:
            break
        until = runs[-1].last_seq - 1
    return ends


def source_seqs(document: Document, restores: Sequence[int]) -> dict[int, int | None]:
    """What each restore went back to, by the session that it is."""
    if not restores:
        return {}
    sessions = Session.objects.filter(document=document, id__in=restores)
    return {session_id: _source_seq(detail) for session_id, detail in sessions.values_list("id", "detail")}


def _source_seq(detail: Any) -> int | None:
    source = detail.get("source_seq") if isinstance(detail, dict) else None
    return source if isinstance(source, int) else None


def user_named(name: str) -> Any | None:
    """The account of that name in any case; of names that differ in case alone only the one that is spelt so. None
    where there is none, or several and nobody could say which."""
    if has_control_characters(name):
        return None  # the database takes neither NUL nor half a surrogate pair
    model: Any = get_user_model()
    alike = list(model.objects.filter(**{f"{model.USERNAME_FIELD}__iexact": name}))
    exact = next((each for each in alike if each.get_username() == name), None)
    return alike[0] if len(alike) == 1 else exact
