"""Proof that a log is what was appended: every hash recomputed, every seq in its place, every snapshot equal to the
fold. One pass in one snapshot of the database, in memory bounded by a segment and the document itself.

It names the first place that differs. It changes nothing; `manage.py verify_history` and a Celery task call it."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Literal
from uuid import UUID

from django.db.models import Max
from pycrdt import Doc

from documents.conf import conf
from documents.models import Document
from history.crdt.chain import GENESIS, commitment, row_hash
from history.crdt.content import canonical
from history.crdt.folding import fold
from history.crdt.idsets import IdSet, delete_set_of
from history.crdt.lib0 import Malformed
from history.crdt.packing import CODEC, unpack
from history.crdt.roots import root_kinds
from history.crdt.sameness import first_difference
from history.crdt.splits import NO_SPLITS, Splits, decode_splits, with_splits
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import Id
from history.fragments import extent_of
from history.imported_authors import ImportedAuthors
from history.log import LogRow, consistent_read, read_splits
from history.models import Head, Kind, Request, Run, Segment, Session, Snapshot, Split, Update, Version
from history.proof.claims import Claim
from history.sessions import canonical_ip
from history.snapshots import digest, state_of, unpack_state
from history.standing_accounts import StandingAccounts
from history.times import EPOCH, microseconds

ROWS_PER_FETCH = 500
"""Live rows held at a time; one may be UPDATE_BYTES_MAX."""

SESSIONS_KEPT_MAX = 50_000
"""Commitments held in memory; the chain needs a session's again at each of its rows."""

Progress = Callable[[int, int], None]
"""Called with the last seq proven and the head's."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All of a document's history holds. `authors_unknown` counts sessions whose account was deleted or made
    pseudonymous: their rows are proven, who wrote them cannot be; `acts_unknown` entries of its audit of which that is
    true, and `details_erased` those that do not say what was done, where the audit was proven too.
    `manifests` is how many published heads it was held to, and agrees with."""

    document_id: int
    head_seq: int
    head_hash: bytes
    rows: int
    segments: int
    snapshots: int
    authors_unknown: int
    manifests: int
    acts_unknown: int = 0
    details_erased: int = 0


Table = Literal["update", "segment", "session", "run", "split", "snapshot", "head", "request", "version", "manifest"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where the history is not what was appended.

    `table`, without `history_`, is where to look; of a segment only its first seq is known. `manifest`: the database
    agrees with itself, and not with what was published."""

    document_id: int
    seq: int
    what: str
    table: Table


class _Found(Exception):
    def __init__(self, seq: int, what: str, table: Table = "update") -> None:
        super().__init__(what)
        self.seq = seq
        self.what = what
        self.table: Table = table


def verify_document(
    document_id: int, *, claims: Sequence[Claim] = (), progress: Progress | None = None
) -> Verdict | Difference:
    """Prove one document's log, segments, runs and snapshots, as they are at one moment, and that what manifests claim
    of it is in that log.

    Raises: Document.DoesNotExist."""
    with consistent_read():
        document = Document.objects.get(pk=document_id)
        try:
            return _verify(document, _Claims(claims), progress)
        except _Found as found:
            return Difference(document_id, found.seq, found.what, found.table)


def _verify(document: Document, claims: "_Claims", progress: Progress | None) -> Verdict:
    head = Head.objects.filter(document_id=document.pk).first()
    if head is None:
        raise _Found(0, "the head of the log is missing", "head")
    walk = _Chain(document.pk, document.key, claims)
    snapshots = _Snapshots(document.pk)
    splits = _Splits(document.pk)
    for segment in Segment.objects.filter(document_id=document.pk).order_by("first_seq").iterator(chunk_size=1):
        for row in walk.segment(segment):
            snapshots.fold(row, splits.after(row))
        _tell(progress, walk, head)
    live = Update.objects.filter(document_id=document.pk).order_by("seq")
    columns = live.values_list("seq", "session_id", "kind", "at", "payload", "hash")
    fetched = columns.iterator(chunk_size=ROWS_PER_FETCH)
    while page := list(islice(fetched, ROWS_PER_FETCH)):
        rows = [LogRow(seq, session_id, kind, at, bytes(payload)) for seq, session_id, kind, at, payload, _ in page]
        walk.sessions.look_up(rows)
        for row, (*_, hash_) in zip(rows, page, strict=True):
            snapshots.fold(walk.live(row, bytes(hash_)), splits.after(row))
        _tell(progress, walk, head)
    _compare_head(head, walk)
    splits.finish()
    snapshots.finish()
    claims.finish(head)
    return Verdict(
        document_id=document.pk,
        head_seq=head.seq,
        head_hash=walk.hash,
        rows=walk.live_rows,
        segments=walk.segments,
        snapshots=snapshots.proven,
        authors_unknown=len(walk.sessions.unknown_authors),
        manifests=claims.held,
    )


def _tell(progress: Progress | None, walk: "_Chain", head: Head) -> None:
    if progress is not None:
        progress(walk.seq, head.seq)


def _compare_head(head: Head, walk: "_Chain") -> None:
    if walk.seq < head.seq:
        raise _Found(walk.seq + 1, f"the row is missing; the log ends at {walk.seq}, its head says {head.seq}")
    if walk.seq > head.seq:
        raise _Found(head.seq + 1, f"a row beyond the head, which says {head.seq}", "head")
    if bytes(head.hash) != walk.hash:
        raise _Found(head.seq, "the head's hash is not the last row's", "head")
    if walk.at is not None and head.at != walk.at:
        raise _Found(head.seq, "the head's time is not the last row's", "head")
    of_document = {"document_id": head.document_id}
    reach: dict[Table, int | None] = {
        "run": Run.objects.filter(**of_document).aggregate(last=Max("last_seq"))["last"],
        "request": Request.objects.filter(**of_document).aggregate(last=Max("seq"))["last"],
        "version": Version.objects.filter(**of_document).aggregate(last=Max("seq"))["last"],
    }
    for table, last in reach.items():
        if last is not None and last > head.seq:
            raise _Found(head.seq + 1, f"the log ends at {head.seq}, but a {table} of {last} is known", table)


@dataclass(slots=True)
class _Sessions:
    """The sessions' commitments, read many at a time, each proven when its first row comes by."""

    document_id: int
    found: dict[int, Session] = field(default_factory=dict)
    commitments: dict[int, bytes] = field(default_factory=dict)
    unknown_authors: set[int] = field(default_factory=set)
    standing: StandingAccounts = field(default_factory=StandingAccounts)
    imported: ImportedAuthors = field(init=False)

    def __post_init__(self) -> None:
        self.imported = ImportedAuthors.of(self.document_id)

    def look_up(self, rows: Sequence[LogRow]) -> None:
        """Make ready for these rows, which are the next ones."""
        if len(self.commitments) > SESSIONS_KEPT_MAX:
            self.commitments.clear()
        missing = {row.session_id for row in rows} - self.commitments.keys()
        sessions = Session.objects.filter(document_id=self.document_id, id__in=missing)
        self.found = {session.id: session for session in sessions}

    def commitment(self, row: LogRow) -> bytes:
        known = self.commitments.get(row.session_id)
        if known is None:
            known = self.commitments[row.session_id] = self._proven(row)
        return known

    def _proven(self, row: LogRow) -> bytes:
        session = self.found.get(row.session_id)
        if session is None:
            raise _Found(row.seq, f"its session {row.session_id} is missing", "session")
        stored = bytes(session.commitment)
        salt, address = bytes(session.salt), canonical_ip(session.ip) or ""

        def is_of(key: str) -> bool:
            return commitment(salt=salt, user=key, via=session.via, ip=address) == stored

        is_imported = row.seq <= self.imported.last_seq
        if session.user_id is None:
            is_proven = is_of("")
        elif is_imported:
            is_proven = self.imported.has_committed(session.user_id, is_of)
        else:
            is_proven = is_of(str(session.user_id))
        if not is_proven:
            # An account that is deleted leaves its sessions without a user, which nobody can tell from tampering.
            if session.user_id is not None:
                what = f"who wrote it was altered: session {session.id} is not what its commitment says"
                raise _Found(row.seq, what, "session")
            if self._is_taken_away(session, is_of, is_imported=is_imported):
                what = f"who wrote it was taken away: the account that session {session.id} commits to is still there"
                raise _Found(row.seq, what, "session")
            self.unknown_authors.add(session.id)
        return stored

    def _is_taken_away(self, session: Session, is_of: Callable[[str], bool], *, is_imported: bool) -> bool:
        """Whether an account that a commitment names is still there, though its session names nobody."""
        if is_imported:
            return bool(session.salt) and self.imported.has_standing(is_of)
        return self.standing.has_committed(
            bytes(session.commitment), salt=bytes(session.salt), via=session.via, ip=session.ip
        )


class _Chain:
    """Walks the log from its first row, recomputing each hash. `seq`, `hash` and `at` are the last proven row's."""

    def __init__(self, document_id: int, key: UUID, claims: "_Claims") -> None:
        self.document_id = document_id
        self.key = key
        self.claims = claims
        self.seq = 0
        self.hash = GENESIS
        self.at: datetime | None = None
        self.sessions = _Sessions(document_id)
        self.segments = 0
        self.live_rows = 0

    def live(self, row: LogRow, stored_hash: bytes) -> LogRow:
        """Prove one live row. Raises: _Found."""
        if row.seq <= self.seq:
            raise _Found(row.seq, "the row lies in a segment too")
        if row.seq != self.seq + 1:
            raise _Found(self.seq + 1, f"the row is missing; the next is {row.seq}")
        self._step(row, "update")
        if self.hash != stored_hash:
            raise _Found(
                row.seq, "the row was altered: its payload, time, kind, session or place is not what its hash says"
            )
        self.claims.check()
        self.live_rows += 1
        return row

    def segment(self, segment: Segment) -> Sequence[LogRow]:
        """Prove one segment; its rows are given out when all of them are. Raises: _Found."""
        place = f"segment {segment.first_seq}..{segment.last_seq}"
        if segment.first_seq != self.seq + 1:
            what = f"{place} does not follow the one before it, which ends at {self.seq}"
            raise _Found(self.seq + 1, what, "segment")
        if bytes(segment.start_hash) != self.hash:
            what = f"{place} does not start from the hash of the row before it"
            raise _Found(segment.first_seq, what, "segment")
        rows = list(_rows_of(segment, place))
        self.sessions.look_up(rows)
        for row in rows:
            self._step(row, "segment")
        if self.hash != bytes(segment.end_hash):
            what = f"{place} was altered: its rows do not lead to its end hash"
            raise _Found(segment.first_seq, what, "segment")
        if (rows[0].at, rows[-1].at) != (segment.first_at, segment.last_at):
            raise _Found(segment.first_seq, f"{place} holds rows of other times than it says", "segment")
        counted = {
            "rows": len(rows),
            "payload_bytes": sum(len(row.payload) for row in rows),
            "packed_bytes": len(segment.payload),
        }
        if segment.counts != counted:
            raise _Found(segment.first_seq, f"{place} counts other rows than it holds", "segment")
        self.claims.check()
        _compare_runs(self.document_id, rows, place)
        self.segments += 1
        return rows

    def _step(self, row: LogRow, table: Table) -> None:
        if self.at is not None and row.at < self.at:
            raise _Found(row.seq, "its time is before that of the row before it", table)
        self.hash = row_hash(
            self.hash,
            document_key=self.key.bytes,
            seq=row.seq,
            kind=row.kind,
            at_microseconds=microseconds(row.at),
            session_commitment=self.sessions.commitment(row),
            payload=row.payload,
        )
        self.seq, self.at = row.seq, row.at
        self.claims.compare(self.seq, self.hash, row.at)


class _Claims:
    """What manifests published of this document, each held to the hash that the chain has at its seq."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.waiting: dict[int, list[Claim]] = {}
        for claim in claims:
            self.waiting.setdefault(claim.head.seq, []).append(claim)
        self.newest = max(claims, key=lambda claim: claim.created_at, default=None)
        self.last_held: Claim | None = None
        self.latest: Claim | None = None
        """Of those up to here, the one that was made last."""
        self.contradicted: Claim | None = None
        self.backdated: _Found | None = None
        self.held = 0
        for claim in self.waiting.pop(0, ()):  # of an empty log there is nothing to compare
            self._hold(claim)

    def compare(self, seq: int, hash_: bytes, at: datetime) -> None:
        """The chain has this hash and this time here. What contradicts it is kept until `check`: that the row, or its
        segment, was altered under the database's own hashes is the nearer thing to say."""
        if self.latest is not None and at < self.latest.later_from and self.backdated is None:
            what = f"its time is before {self.latest.manifest} was made, which does not have it: it was dated back"
            self.backdated = _Found(seq, what, "manifest")
        for claim in self.waiting.pop(seq, ()):
            if claim.head.hash == hash_:
                self._hold(claim)
                self.last_held = claim
            elif self.contradicted is None:
                self.contradicted = claim

    def _hold(self, claim: Claim) -> None:
        self.held += 1
        if self.latest is None or claim.created_at > self.latest.created_at:
            self.latest = claim

    def check(self) -> None:
        """Raises: _Found."""
        if self.contradicted is not None:
            seq = self.contradicted.head.seq
            what = (
                f"{self.contradicted.manifest} published another hash of {seq}: the log was rewritten at or before it"
            )
            raise _Found(seq, what + self._since(), "manifest")
        if self.backdated is not None:
            raise self.backdated

    def finish(self, head: Head) -> None:
        """What was published is all in a log that ends here. Raises: _Found."""
        for seq, claims in sorted(self.waiting.items()):
            what = f"the log ends at {head.seq}, but {claims[0].manifest} published {seq}"
            if head.epoch > claims[0].head.epoch:
                what += f"; epoch {claims[0].head.epoch} became {head.epoch}, as when a backup is restored"
            raise _Found(head.seq + 1, what + self._since(), "manifest")
        if self.newest is not None and self.newest.head.epoch > head.epoch:
            what = f"{self.newest.manifest} published epoch {self.newest.head.epoch}, the head is of {head.epoch}"
            raise _Found(head.seq, what, "head")

    def _since(self) -> str:
        if self.last_held is None:
            return ""
        return f", after {self.last_held.head.seq}, which {self.last_held.manifest} proves"


def _rows_of(segment: Segment, place: str) -> Iterator[LogRow]:
    try:
        rows = unpack(bytes(segment.payload))
    except Malformed as error:
        raise _Found(segment.first_seq, f"{place} cannot be unpacked: {error}", "segment") from error
    if segment.codec != CODEC or len(rows) != segment.last_seq - segment.first_seq + 1:
        what = f"{place} holds {len(rows)} rows of codec {segment.codec}"
        raise _Found(segment.first_seq, what, "segment")
    for seq, row in enumerate(rows, segment.first_seq):
        try:
            at = EPOCH + timedelta(microseconds=row.at_microseconds)
        except OverflowError:
            raise _Found(seq, f"{place} holds a time out of range", "segment") from None
        yield LogRow(seq, row.session_id, row.kind, at, row.payload)


def _compare_runs(document_id: int, rows: Sequence[LogRow], place: str) -> None:
    """Each run must say of its session's rows what they are, and all runs together must hold each row once: one that
    reaches over another session's would hide who wrote them. Where runs are cut is the setting of the day's."""
    acts = _acts_by_session(rows)
    first, last = rows[0].seq, rows[-1].seq
    told: list[int] = []
    for run in Run.objects.filter(document_id=document_id, first_seq__gte=first, first_seq__lte=last):
        of_session = acts.get(run.session_id, [])
        begin = bisect_left(of_session, run.first_seq, key=_seq_of)
        own = of_session[begin : bisect_right(of_session, run.last_seq, key=_seq_of)]
        if not own or _said_by(run) != _said_of(own) or any(kind != run.kind for _, kind in own):
            what = f"the run {run.first_seq}..{run.last_seq} of {place} is not what its rows say"
            raise _Found(run.first_seq, what, "run")
        told += (row.seq for row, _ in own)
    if sorted(told) != list(range(first, last + 1)):
        raise _Found(first, f"the runs of {place} do not hold exactly its rows", "run")


_Act = tuple[LogRow, int]
"""A row, and the kind of its run: a split belongs to the edit right behind it."""


def _seq_of(act: _Act) -> int:
    return act[0].seq


def _acts_by_session(rows: Sequence[LogRow]) -> dict[int, list[_Act]]:
    acts: dict[int, list[_Act]] = {}
    following: dict[int, int] = {}
    for row in reversed(rows):
        kind = following.get(row.session_id, Kind.SYNC) if row.kind == Kind.SPLIT else row.kind
        acts.setdefault(row.session_id, []).append((row, kind))
        following[row.session_id] = row.kind
    for of_session in acts.values():
        of_session.reverse()
    return acts


def _said_by(run: Run) -> tuple[object, ...]:
    ends = run.first_seq, run.last_seq, run.first_at, run.last_at
    return *ends, run.updates, run.bytes, run.inserted, run.deleted


def _said_of(acts: Sequence[_Act]) -> tuple[object, ...]:
    rows = [row for row, _ in acts]
    extents = [extent_of(row) for row in rows if row.kind != Kind.SPLIT]
    ends = rows[0].seq, rows[-1].seq, rows[0].at, rows[-1].at
    bytes_ = sum(len(row.payload) for row in rows)
    return *ends, len(rows), bytes_, sum(each[0] for each in extents), sum(each[1] for each in extents)


class _Splits:
    """Gathers what the proven rows say was split, and compares it with the table that folds read."""

    def __init__(self, document_id: int) -> None:
        self.document_id = document_id
        self.known: Splits = NO_SPLITS
        self.seqs: dict[Id, int] = {}

    def after(self, row: LogRow) -> Splits:
        """The characters that are split once this row has been read. Raises: _Found."""
        if row.kind == Kind.SPLIT:
            try:
                new = decode_splits(row.payload)
            except Malformed as error:
                raise _Found(row.seq, f"it does not say what was split: {error}") from error
            self.seqs = dict.fromkeys(new, row.seq) | self.seqs
            self.known |= new
        return self.known

    def finish(self) -> None:
        table = Split.objects.filter(document_id=self.document_id).values_list("client", "clock", "seq")
        stored = {(client, clock): seq for client, clock, seq in table}
        if stored != self.seqs:
            seq = min(seq for unit, seq in (stored.items() ^ self.seqs.items()))
            raise _Found(seq, "what is known to be split is not what the log says", "split")


class _Snapshots:
    """Folds proven rows as far as the last snapshot, and compares each snapshot with the fold at its seq."""

    def __init__(self, document_id: int) -> None:
        self.document_id = document_id
        self.doc: Doc[Any] = Doc(skip_gc=True)
        self.waiting: list[bytes] = []
        seqs = Snapshot.objects.filter(document_id=document_id).order_by("-seq").values_list("seq", flat=True)
        self.seqs = list(seqs)  # the next one last
        self.proven = 0
        self.splits: Splits = NO_SPLITS
        """As what is folded so far is read. The table says what will be split up to the next snapshot: to read all anew
        at each split would be quadratic in them. Where the table says too little, it is done all the same."""
        self._look_ahead(0)

    def fold(self, row: LogRow, splits: Splits) -> None:
        """Fold a row; `splits` are those known once it has been read, itself included."""
        if not self.seqs:
            return
        if not splits <= self.splits:
            self._read_with(self.splits | splits, row.seq)
        if row.kind != Kind.SPLIT:
            self.waiting.append(with_splits(row.payload, self.splits))
        if row.seq == self.seqs[-1]:
            self._flush(row.seq)
            if self.splits != splits:
                raise _Found(row.seq, "more is known to be split before here than the log says", "split")
            self._compare(self.seqs.pop())
            self._look_ahead(row.seq)
        elif len(self.waiting) >= conf().fold_rows_per_transaction:
            self._flush(row.seq)

    def _look_ahead(self, seq: int) -> None:
        if self.seqs:
            self._read_with(self.splits | read_splits(self.document_id, until=self.seqs[-1] + 1), seq)

    def _read_with(self, splits: Splits, seq: int) -> None:
        """All that was folded so far is read anew, as a fold at a later seq reads it."""
        if splits == self.splits:
            return
        self.splits = splits
        self._flush(seq)
        held = self.doc.get_update()
        read = with_splits(held, splits)
        if read is not held:
            self.doc = Doc(skip_gc=True)
            _applied(seq, "the rows up to here", partial(self.doc.apply_update, read))

    def finish(self) -> None:
        if self.seqs:
            raise _Found(self.seqs[-1], "a snapshot stands where the log has no row", "snapshot")

    def _flush(self, seq: int) -> None:
        replay = partial(
            fold,
            self.doc,
            self.waiting,
            rows_per_transaction=conf().fold_rows_per_transaction,
            bytes_per_transaction=conf().fold_bytes_per_transaction,
        )
        _applied(seq, "the rows up to here", replay)
        self.waiting.clear()

    def _compare(self, seq: int) -> None:
        snapshot = Snapshot.objects.get(document_id=self.document_id, seq=seq)
        state, full_state = bytes(snapshot.state), bytes(snapshot.full_state)
        if digest(state, full_state) != bytes(snapshot.sha256):
            raise _Found(seq, "the snapshot was altered: its bytes are not what its sha256 says", "snapshot")
        expected = _identity(self.doc)
        full = self.doc.get_update()
        kinds = root_kinds(full)
        text = canonical(self.doc, kinds)
        stored = [
            ("state", partial(state_of, snapshot), False),
            ("full_state", partial(unpack_state, full_state), True),
        ]
        for name, unpacked, skip_gc in stored if full_state else stored[:1]:
            loaded: Doc[Any] = Doc(skip_gc=skip_gc)
            _applied(seq, f"the snapshot's {name}", partial(_load, loaded, unpacked), table="snapshot")
            if _identity(loaded) != expected or canonical(loaded, kinds) != text:
                raise _Found(seq, f"the snapshot's {name} is not the document that the log folds to", "snapshot")
            unit = first_difference(loaded.get_update(), full, expected[1])
            if unit is not None:
                what = f"the snapshot's {name} holds unit {unit[1]} of client {unit[0]} otherwise than the log"
                raise _Found(seq, what, "snapshot")
        self.proven += 1


def _load(doc: "Doc[Any]", unpacked: Callable[[], bytes]) -> None:
    doc.apply_update(unpacked())


def _identity(doc: "Doc[Any]") -> tuple[dict[int, int], IdSet]:
    """State vector and delete set, decoded: pycrdt writes equal ones in any order of clients."""
    return decode_state_vector(doc.get_state()), delete_set_of(doc)


def _applied(seq: int, what: str, apply: Callable[[], object], *, table: Table = "update") -> None:
    try:
        apply()
    except Exception as error:
        raise _Found(seq, f"{what} cannot be applied: {type(error).__name__}", table) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _Found(seq, f"{what} cannot be applied: pycrdt panicked", table) from error
