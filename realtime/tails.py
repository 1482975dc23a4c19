"""What is committed to a document's log, as a room takes it over: from its own commits, hints, or the log itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from documents.conf import conf
from history.crdt.splits import EMPTY_UPDATE, NO_SPLITS, Splits, decode_splits
from history.fates import Base
from history.gate import Gate
from history.log import LogRow, consistent_read, has_base, head_of, read_log
from history.models import Kind, Session
from realtime.identities import identity_of
from realtime.protocols.identities import NOBODY, Identity

if TYPE_CHECKING:
    from realtime.connections import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Committed rows first_seq..last_seq (both inclusive) as one update.

    `splits` are the characters that it cuts in two: it can be applied to a document that reads them so, and to no
    other. `gate` is the one whose intake holds it already; `origin` is the socket that sent all of it and does not
    need it. `authors` are those who wrote it, the last one last; none where that is not known."""

    first_seq: int
    last_seq: int
    update: bytes
    splits: Splits = NO_SPLITS
    gate: Gate | None = None
    origin: "Connection | None" = None
    authors: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the log ends, and its rows after some seq: all, or as many as one look takes."""

    head: Base
    rows: list[Committed]
    has_base: bool
    """Whether the log goes on from where the room saw it last; else a backup was restored."""


def read_tail(document_id: int, after: int, base: Base) -> Tail:
    """Rows after `after`, at most CATCH_UP_ROWS_MAX and about CATCH_UP_BYTES_MAX. Reads the database."""
    with consistent_read():
        head = head_of(document_id)
        is_same_log = has_base(head, base)
        until = min(head.seq, after + conf().catch_up_rows_max)
        found: list[LogRow] = []
        bytes_left = conf().catch_up_bytes_max
        for row in read_log(document_id, after=after, until=until):
            found.append(row)
            bytes_left -= len(row.payload)
            if bytes_left < 0:
                break
        authors = _authors_of(document_id, {row.session_id for row in found}) if found else {}
    rows = [_committed(row, authors.get(row.session_id, NOBODY)) for row in found]
    return Tail(Base(head.epoch, head.seq, bytes(head.hash)), rows, is_same_log)


def _authors_of(document_id: int, session_ids: set[int]) -> dict[int, Identity]:
    sessions = Session.objects.filter(document_id=document_id, id__in=session_ids).select_related("user")
    return {session.id: identity_of(session.user) for session in sessions}


def _committed(row: LogRow, author: Identity) -> Committed:
    is_split = row.kind == Kind.SPLIT
    return Committed(
        first_seq=row.seq,
        last_seq=row.seq,
        update=EMPTY_UPDATE if is_split else row.payload,
        splits=decode_splits(row.payload) if is_split else NO_SPLITS,
        authors=(author,),
    )
