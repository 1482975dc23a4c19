"""What a restore or an undo would do: planned on the document as it is now, tried on a copy of it, nothing written.

`history.writes` carries plans out. Whoever calls has passed the gate (`documents.roles`) before."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from secrets import randbits
from typing import Any

from documents.conf import conf
from history.crdt.changes import Changes, changes_by
from history.crdt.content import RootContent, content_of
from history.crdt.places import Piece
from history.crdt.ranges import Span, Stretch
from history.crdt.restoring import TakenBack, restored
from history.crdt.splits import NO_SPLITS
from history.crdt.undoing import Act, Row, undone
from history.errors import NoSuchSeq
from history.folds import document_at, full_ydoc
from history.heavy_reads import heavy_read
from history.log import consistent_read, head_of, read_blocks, read_log, seq_at
from history.models import ACT_KINDS, Session


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose edits: those of an account, or of one session (of somebody without one)."""

    user_key: Any | None = None
    session_id: int | None = None

    def sessions(self, document_id: int) -> frozenset[int]:
        found = Session.objects.filter(document_id=document_id)
        named = found.filter(user=self.user_key) if self.session_id is None else found.filter(id=self.session_id)
        return frozenset() if self == Whose() else frozenset(named.values_list("id", flat=True))

    def as_detail(self) -> dict[str, Any]:
        return {"session": self.session_id} if self.session_id is not None else {"user": str(self.user_key)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An update for the log, or None where the document says it already; `detail` is for the session that writes it.

    `updates` counts the rows that are undone, 0 for a restore; `inserted` and `deleted` count characters of texts."""

    head_seq: int
    updates: int
    detail: dict[str, Any]
    taken_back: TakenBack | None = None

    @property
    def update(self) -> bytes | None:
        return self.taken_back.update if self.taken_back else None

    @property
    def inserted(self) -> int:
        return self.taken_back.inserted if self.taken_back else 0

    @property
    def deleted(self) -> int:
        return self.taken_back.deleted if self.taken_back else 0


@heavy_read()
def content_after(document_id: int, plan: Plan) -> dict[str, RootContent]:
    """What the document would say, for readers. Raises: ContentTooDeep, Busy."""
    if plan.taken_back is None:
        return content_of(document_at(document_id, seq=plan.head_seq).doc)
    return content_of(plan.taken_back.after(), plan.taken_back.kinds)


@heavy_read()
def plan_restore(document_id: int, seq: int, *, piece: Piece | None = None, span: Span | None = None) -> Plan:
    """Make the document, a piece of it, or a range of a text say what it said at `seq`. A range is one at `seq`.

    Costs two folds, from the snapshots before `seq` and before the head, and 0.2 s for a document of 180,000 units; a
    range as much again. Memory goes with the document, not with its log. Raises: NoSuchSeq, NoSuchPiece, NoSuchRange,
    RestoreFailed, LogHole, ContentTooDeep, Busy; Malformed, MissingDependency where the log is damaged."""
    with consistent_read():
        then = document_at(document_id, seq=seq)
        head = full_ydoc(document_id)
    taken = restored(
        state_at=then.doc.get_update(),
        head_state=head.doc.get_update(),
        client_id=randbits(32),
        piece=piece,
        span=span,
    )
    detail: dict[str, Any] = {"source_seq": seq}
    if piece is not None:
        detail |= {"root": piece.root, "path": list(piece.path)}
    if span is not None:
        detail |= {"range": list(span), "stretch": taken.stretch}
    return Plan(head_seq=head.seq, updates=0, detail=detail, taken_back=taken)


@heavy_read()
def plan_undo(document_id: int, whose: Whose, *, first_seq: int, last_seq: int) -> Plan:
    """Take back what somebody did in the rows first_seq to last_seq, both included; what lives of others stays.

    What they wrote goes, but for types that hold what others wrote. What they alone deleted comes back, unless a
    restore or an undo gave it back already. What an undo of an undo gave back is an edit of who made that. Costs and
    errors as `plan_restore`; the rows from first_seq on are read besides, 10 µs each in the span. TooManyRows."""
    with consistent_read():
        head_seq = head_of(document_id).seq
        if not 1 <= first_seq <= last_seq <= head_seq:
            raise NoSuchSeq(document_id, first_seq if first_seq < 1 else last_seq, head_seq)
        detail = {"undone": {**whose.as_detail(), "first_seq": first_seq, "last_seq": last_seq}}
        sessions = whose.sessions(document_id)
        if not sessions:
            return Plan(head_seq=head_seq, updates=0, detail=detail)
        before = document_at(document_id, seq=first_seq - 1)
        acts: list[tuple[int, int]] = []

        def rows() -> Iterator[Row]:
            for block in read_blocks(document_id, after=first_seq - 1, until=head_seq):
                columns = block.session_ids, block.kinds, block.folded_payloads(NO_SPLITS)
                for seq, (session_id, kind, payload) in enumerate(zip(*columns, strict=True), block.first_seq):
                    if kind in ACT_KINDS:
                        acts.append((seq, session_id))
                    yield Row(seq, session_id, payload)

        taken, updates = undone(
            state_before=before.doc.get_update(),
            head_state=full_ydoc(document_id).doc.get_update(),
            rows=rows(),
            sessions=sessions,
            first_seq=first_seq,
            last_seq=last_seq,
            acts=lambda: _acts(document_id, acts),
            client_id=randbits(32),
            rows_max=conf().undo_rows_max,
        )
    return Plan(head_seq=head_seq, updates=updates, detail=detail, taken_back=taken)


def what_changes(plan: Plan) -> Changes:
    """What a plan would change, by node. Raises: ContentTooDeep."""
    if plan.taken_back is None or plan.update is None:
        return {}
    return changes_by(plan.taken_back.before(), plan.update, kinds=plan.taken_back.kinds)


def seqs_between(document_id: int, begin: int | datetime, end: int | datetime | None) -> tuple[int, int]:
    """The first and the last seq of a span of seqs or times, both included, to the head without an end. The first is
    behind the last where nothing was written then. Raises: NoSuchSeq."""
    with consistent_read():
        head_seq = head_of(document_id).seq
        end = head_seq if end is None else end
        first_seq = begin if isinstance(begin, int) else first_seq_since(document_id, begin)
        last_seq = end if isinstance(end, int) else last_seq_until(document_id, end)
    for asked in (begin, end):
        if isinstance(asked, int) and not 1 <= asked <= max(head_seq, 1):
            raise NoSuchSeq(document_id, asked, head_seq)
    return first_seq, last_seq


def span_undone(document_id: int, seq: int) -> dict[str, int]:
    """`from_seq` and `to_seq` of the undo that is in the log at `seq`; nothing for what is none."""
    with consistent_read():
        row = next(read_log(document_id, after=seq - 1, until=seq))
        detail = Session.objects.filter(document_id=document_id, id=row.session_id).values_list("detail", flat=True)
        match detail.first():
            case {"undone": {"first_seq": int(first_seq), "last_seq": int(last_seq)}}:
                return {"from_seq": first_seq, "to_seq": last_seq}
    return {}


def first_seq_since(document_id: int, since: datetime) -> int:
    """The first seq at that time or later; behind the head where there is none."""
    with consistent_read():
        return seq_at(document_id, since - timedelta(microseconds=1)) + 1


def last_seq_until(document_id: int, until: datetime) -> int:
    """The last seq at that time or earlier; 0 where there is none."""
    with consistent_read():
        return seq_at(document_id, until)


def _acts(document_id: int, rows: Sequence[tuple[int, int]]) -> list[Act]:
    """The restores and undos at these (seq, session); one whose session does not say what it did took back nothing."""
    sessions = Session.objects.filter(document_id=document_id, id__in={session_id for _, session_id in rows})
    details = dict(sessions.values_list("id", "detail"))
    sessions_of = cache(lambda whose: whose.sessions(document_id))
    found = (_act(seq, session_id, details.get(session_id), sessions_of) for seq, session_id in rows)
    return [act for act in found if act is not None]


def _act(seq: int, session_id: int, detail: Any, sessions_of: Callable[[Whose], frozenset[int]]) -> Act | None:
    match detail:
        case {"undone": {"first_seq": int(first_seq), "last_seq": int(last_seq), **whose}}:
            session = whose.get("session")
            named = Whose(whose.get("user"), session if isinstance(session, int) else None)
            return Act(
                seq=seq,
                session_id=session_id,
                first_seq=first_seq,
                last_seq=last_seq,
                sessions=sessions_of(named),
            )
        case {"source_seq": int(source)}:
            ends = detail.get("stretch")
            return Act(
                seq=seq,
                session_id=session_id,
                first_seq=source + 1,
                last_seq=seq - 1,
                piece=Piece(detail["root"], tuple(detail["path"])) if "root" in detail else None,
                stretch=Stretch(*map(tuple, ends)) if ends else None,
            )
        case _:
            return None
