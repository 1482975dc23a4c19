"""Who wrote what of a document, at any seq, with accounts and times.

Which session brought each unit is read from the log once and kept warm, for as many documents as BLAME_ENTRIES_MAX
allows: it is derived from the log, so that dropping it costs time alone. Callers have passed the gate before."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from documents.conf import conf
from documents.models import Document
from history.authors import Author, author_of
from history.crdt.blame import UNKNOWN, Blame, DeletionNumbers, Numbers, blame
from history.crdt.roots import root_kinds
from history.crdt.updates import decode_update
from history.errors import NoSuchSeq
from history.fates import Base
from history.folds import document_at
from history.log import LogRow, consistent_read, has_base, head_of, read_log
from history.models import Head, Kind, Session, Via

ENTRIES_PER_DOCUMENT = 15
"""What a document costs by itself, in entries of BLAME_ENTRIES_MAX: 1.3 KB."""

ENTRIES_PER_CLIENT = 3
"""What each of its client ids costs besides what is counted of it: 0.3 KB."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Rows of one session and kind that came within BLAME_STRETCH_SECONDS of the first, which is told."""

    session_id: int
    kind: int
    seq: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What one session wrote from `seq` and `at` on, for at most BLAME_STRETCH_SECONDS. `via` is None where the session
    left no row."""

    author: Author
    via: Via | None
    kind: Kind
    seq: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Blamed:
    """`content` by numbers that are keys of `writings`; `crdt.blame.UNKNOWN` is of no row that the log has."""

    seq: int
    head_seq: int
    epoch: int
    content: Blame
    writings: dict[int, Writing]


@dataclass(slots=True)
class _Attribution:
    """Which stretch of the log brought and deleted each unit of a document, up to `base`."""

    base: Base = field(default_factory=lambda: Base(0, 0))
    stretches: list[_Stretch] = field(default_factory=list)
    written: Numbers = field(default_factory=Numbers)
    deletions: DeletionNumbers = field(default_factory=DeletionNumbers)
    open: dict[tuple[int, int], int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        clients = ENTRIES_PER_CLIENT * (self.written.clients + self.deletions.clients)
        return ENTRIES_PER_DOCUMENT + clients + self.written.size + self.deletions.size + len(self.stretches)

    def read_on(self, head: Head) -> None:
        """Take in the log up to its head. Call inside `consistent_read()`. Raises: LogHole, Malformed."""
        if self.base.seq and not has_base(head, self.base):
            self._forget()
        try:
            for row in read_log(head.document_id, after=self.base.seq, until=head.seq):
                self._take(row)
        except BaseException:
            self._forget()  # it may have taken in half of something
            raise
        self.base = Base(head.epoch, head.seq, bytes(head.hash))

    def _take(self, row: LogRow) -> None:
        if row.kind == Kind.SPLIT:
            return  # its payload is no update, and it changes no unit
        update = decode_update(row.payload)
        number = self._number(row)
        self.written.add(update.structs, number)
        self.deletions.add(update.deletes, number)

    def _number(self, row: LogRow) -> int:
        number = self.open.get((row.session_id, row.kind))
        stretch_length = timedelta(seconds=conf().blame_stretch_seconds)
        if number is None or row.at - self.stretches[number - 1].at > stretch_length:
            self.stretches.append(_Stretch(row.session_id, row.kind, row.seq, row.at))
            number = self.open[row.session_id, row.kind] = len(self.stretches)
        return number

    def _forget(self) -> None:
        self.base, self.stretches = Base(0, 0), []
        self.written, self.deletions, self.open = Numbers(), DeletionNumbers(), {}


class _Warm:
    """The attributions of the documents that were asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[int, _Attribution] = OrderedDict()

    @contextmanager
    def attribution(self, document_id: int) -> Iterator[_Attribution]:
        """One asks for a document at a time; others are not kept waiting."""
        with self._lock:
            attribution = self._of.setdefault(document_id, _Attribution())
            self._of.move_to_end(document_id)
        try:
            with attribution.lock:
                yield attribution
        finally:
            self._shrink()

    def _shrink(self) -> None:
        """Drop what was asked for longest ago, and the last one too where it alone is too large."""
        with self._lock:
            sizes = {document_id: attribution.size for document_id, attribution in self._of.items()}
            total = sum(sizes.values())
            for document_id, size in sizes.items():
                if total <= conf().blame_entries_max:
                    break
                del self._of[document_id]
                total -= size


_warm = _Warm()


def blame_of(document: Document, *, seq: int | None = None, deleted: bool = False) -> Blamed:
    """Tell who wrote all that a document says at a seq (the head without one), with `deleted` what was deleted too.

    Warm it costs an opening and a few loads of the state (with `deleted` that of a full fold: see `document_at`); cold
    the whole log is read once, 5 µs a row. Raises: NoSuchSeq, LogHole; Malformed where the log is damaged."""
    with _warm.attribution(document.pk) as attribution:
        with consistent_read():
            head = head_of(document.pk)
            place = head.seq if seq is None else seq
            if not 0 <= place <= head.seq:
                raise NoSuchSeq(document.pk, place, head.seq)
            attribution.read_on(head)
            state = document_at(document.pk, seq=place, full=deleted).doc.get_update()
        content = blame(state, root_kinds(state), attribution.written, attribution.deletions if deleted else None)
        stretches = {number: attribution.stretches[number - 1] for number in _numbers_in(content) - {UNKNOWN}}
    return Blamed(
        seq=place, head_seq=head.seq, epoch=head.epoch, content=content, writings=_writings(document, stretches)
    )


def _numbers_in(content: Blame) -> set[int]:
    found: set[int] = set()
    for nodes in content.values():
        for node in nodes:
            for told in (*node.get("runs", ()), *node.get("keys", {}).values()):
                found.add(told["by"])
                if "deleted_by" in told:
                    found.add(told["deleted_by"])
    return found


def _writings(document: Document, stretches: dict[int, _Stretch]) -> dict[int, Writing]:
    """Add the accounts; all sessions in one query."""
    ids = {stretch.session_id for stretch in stretches.values()}
    sessions = {
        session.id: session for session in Session.objects.select_related("user").filter(document=document, id__in=ids)
    }
    writings: dict[int, Writing] = {}
    for number, stretch in sorted(stretches.items()):
        session = sessions.get(stretch.session_id)
        writings[number] = Writing(
            author=author_of(session.user if session else None),
            via=Via(session.via) if session else None,
            kind=Kind(stretch.kind),
            seq=stretch.seq,
            at=stretch.at,
        )
    return writings
