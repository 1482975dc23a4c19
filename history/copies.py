"""Copies: a new document that begins as another one was at a seq, without its history or with it.

A copy with its history has the same rows under the same sessions, times and kinds, chained anew under its own key; the
source is proven on the way, so that a log that was tampered with does not become one that holds. One transaction: a
copy is there whole or not at all. Memory is that of one segment or batch of rows, and of the folded document."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg
from django.db import IntegrityError, connection, models, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from documents.acts import current_actor
from documents.conf import conf
from documents.models import Document, Role
from documents.opening import NAME_ENTROPY_BYTES, TITLE_LENGTH_MAX, NameTaken, NotSignedIn, create_document
from documents.roles import User, document_for
from history.append import INSERT_UPDATES
from history.audit.entries import record
from history.crdt.chain import GENESIS, row_hash
from history.crdt.state_vectors import decode_state_vector
from history.errors import HistoryError, LogUnavailable, NoSuchSeq
from history.folds import document_at
from history.imported_authors import copy_authors
from history.log import LogRow, consistent_read, head_of, read_log, rows_of
from history.models import (
    Action,
    Client,
    Head,
    Kind,
    Request,
    Run,
    Segment,
    Session,
    Snapshot,
    Split,
    Update,
    Version,
    Via,
)
from history.sessions import WriteSession
from history.signals import document_copied, tell_of_change
from history.squash import hold_squash
from history.times import microseconds
from history.writes import append_update

ROWS_PER_BATCH = 2000
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Of one INSERT; a larger row by itself."""

SESSIONS_KEPT_MAX = 50_000
"""Commitments held in memory while a log is copied."""


class SourceDamaged(HistoryError):
    """Raised when the log to copy is not what its hashes say: nothing is copied."""

    def __init__(self, document_id: int, seq: int) -> None:
        super().__init__(f"document {document_id}: up to {seq} the log is not what its hashes say; run verify_history")


class TooLongToCopy(HistoryError):
    """Raised for more rows of history than COPY_ROWS_MAX."""

    def __init__(self, document_id: int, rows: int) -> None:
        super().__init__(f"document {document_id}: {rows} rows of history are more than COPY_ROWS_MAX")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A new document, and the seq of the source that it begins as. `repeated`: it was made before, under the same
    request key."""

    document: Document
    seq: int
    repeated: bool = False


def copy_moment(
    source: Document,
    *,
    seq: int | None = None,
    title: str | None = None,
    name: str | None = None,
    actor: User,
    via: Via,
    ip: str | None = None,
    user_agent: str = "",
    request_key: str | None = None,
) -> Copy:
    """A new document of `actor` that says what `source` said at a seq (the head without one), and nothing more: its
    log is one row of `Kind.IMPORT`, whose session says from where; what had been deleted is not in it.

    Readers of the source may. The row has to pass UPDATE_BYTES_MAX and UPDATE_STRUCTS_MAX. With a `request_key`, the
    same asked for again is made once.
    Raises: NotSignedIn, NoSuchSeq, ValidationError, NameTaken, LogHole, UpdateRefused, LogUnavailable, OutcomeUnknown;
    Http404, PermissionDenied."""
    made = partial(_copy_moment, source, seq=seq, title=title, actor=actor, via=via, ip=ip, user_agent=user_agent)
    return _once(made, source, actor, name=name, request_key=request_key)


def copy_history(
    source: Document,
    *,
    seq: int | None = None,
    title: str | None = None,
    name: str | None = None,
    actor: User,
    request_key: str | None = None,
) -> Copy:
    """A new document of `actor` with rows 1..seq of `source` (to the head without one), its sessions, versions, splits
    and who owns which client id; equal to it at each of these seqs.

    Owners of the source may: it hands all that was ever deleted, and who wrote when from where, to whomever the copy is
    shared with. Segments are taken over as they are packed. Squash passes the source by meanwhile; edits go on. With a
    `request_key`, the same asked for again is made once.
    Raises: NotSignedIn, NoSuchSeq, TooLongToCopy, ValidationError, NameTaken, SourceDamaged, LogHole, LogUnavailable;
    Http404, PermissionDenied."""
    made = partial(_copy_history, source, seq=seq, title=title, actor=actor)
    return _once(made, source, actor, name=name, request_key=request_key)


@dataclass(frozen=True, slots=True)
class _Called:
    """The room name that a copy is to have, and the key of the request that it answers."""

    name: str | None
    request_key: str | None


def _once(
    made: Callable[[_Called], Copy], source: Document, actor: User, *, name: str | None, request_key: str | None
) -> Copy:
    """Make a copy, or find the one that this request has made. Without a name of its own it gets one that follows from
    the key, for a room name is what two at once cannot both take."""
    if not actor.is_authenticated:
        raise NotSignedIn
    if request_key is None:
        return made(_Called(name, None))
    called = _Called(name or _name_of_request(source, actor, request_key), request_key)
    found = _made_before(source, actor, called)
    if found is not None:
        return found
    try:
        return made(called)
    except NameTaken:
        found = _made_before(source, actor, called)
        if found is None:
            raise
        return found


def _name_of_request(source: Document, actor: User, request_key: str) -> str:
    """A room name that nobody can guess, as one that is drawn at random."""
    keyed = salted_hmac("history.copies", f"{source.key}:{actor.pk}:{request_key}", algorithm="sha256")
    return urlsafe_b64encode(keyed.digest()[:NAME_ENTROPY_BYTES]).decode()


def _made_before(source: Document, actor: User, called: _Called) -> Copy | None:
    asked = Request.objects.filter(document=source, actor=str(actor.pk), key=called.request_key)
    seq = asked.values_list("seq", flat=True).first()
    copy = Document.objects.filter(name=called.name, created_by=actor.pk).first()
    return None if seq is None or copy is None else Copy(document=copy, seq=seq, repeated=True)


def _created(source: Document, called: _Called, *, seq: int, title: str | None, actor: User) -> Document:
    """The empty document that becomes the copy, its request remembered with the source. Inside a transaction."""
    title = f"Copy of {source.title}"[:TITLE_LENGTH_MAX] if title is None else title
    copy = create_document(actor, title=title, name=called.name)
    if called.request_key is not None:
        Request.objects.update_or_create(
            document=source, actor=str(actor.pk), key=called.request_key, defaults={"seq": seq}
        )
    return copy


def _copy_moment(
    source: Document,
    called: _Called,
    *,
    seq: int | None,
    title: str | None,
    actor: User,
    via: Via,
    ip: str | None,
    user_agent: str,
) -> Copy:
    with consistent_read():
        document_for(actor, role=Role.VIEWER, pk=source.pk)
        folded = document_at(source.pk, seq=seq)
    with transaction.atomic():
        copy = _created(source, called, seq=folded.seq, title=title, actor=actor)
        _copy_clients(source, copy, decode_state_vector(folded.doc.get_state()))
        session = WriteSession(
            document_id=copy.pk,
            user=actor,
            via=via,
            ip=ip,
            user_agent=user_agent,
            opened_at=timezone.now(),
            requires_role=False,  # it writes under the client ids of all who wrote the source
            detail={"source_document": str(source.key), "source_seq": folded.seq},
        )
        append_update(session, folded.doc.get_update(), kind=Kind.IMPORT)
        _write_down_and_tell(source, copy, folded.seq, actor, with_history=False)
    return Copy(document=copy, seq=folded.seq)


def _copy_history(source: Document, called: _Called, *, seq: int | None, title: str | None, actor: User) -> Copy:
    try:
        with transaction.atomic():
            hold_squash(source.pk)
            document_for(actor, role=Role.OWNER, pk=source.pk)
            until = _until(source.pk, seq)
            copy = _created(source, called, seq=until, title=title, actor=actor)
            if until:
                _copy_log(source, copy, until=until)
            _write_down_and_tell(source, copy, until, actor, with_history=True)
    except IntegrityError as error:
        raise LogUnavailable(f"document {source.pk}: an account went while it was copied") from error
    return Copy(document=copy, seq=until)


def _until(document_id: int, seq: int | None) -> int:
    head_seq = head_of(document_id).seq
    until = head_seq if seq is None else seq
    if not 0 <= until <= head_seq:
        raise NoSuchSeq(document_id, until, head_seq)
    if until > conf().copy_rows_max:
        raise TooLongToCopy(document_id, until)
    return until


def _write_down_and_tell(source: Document, copy: Document, seq: int, actor: User, *, with_history: bool) -> None:
    by = replace(current_actor(), user=actor)
    of_it: dict[str, str | int | bool | None] = {"seq": seq, "with_history": with_history}
    record(Action.COPIED, document=copy, actor=by, detail={**of_it, "source": str(source.key)})
    # The last thing of the transaction: from here on who else does something with the source waits for its end.
    record(Action.COPIED, document=source, actor=by, detail={**of_it, "copy": str(copy.key)})
    told = partial(
        document_copied.send_robust,
        sender=Document,
        source=source,
        copy=copy,
        seq=seq,
        actor=actor,
        with_history=with_history,
    )
    transaction.on_commit(told)
    if with_history and seq:  # without, the append tells of its row
        transaction.on_commit(partial(tell_of_change, copy.pk, seq=seq, actor=actor))


def _copy_log(source: Document, copy: Document, *, until: int) -> None:
    """All that hangs on rows 1..until. Inside a transaction in which no row of the source moves into a segment."""
    walk = _Walk(source, copy)
    packed = Segment.objects.filter(document_id=source.pk, last_seq__lte=until).order_by("first_seq")
    for segment in packed.iterator(chunk_size=1):
        walk.segment(segment)
    packed_until = walk.seq
    for batch in _batches(read_log(source.pk, after=packed_until, until=until)):
        walk.live(batch)
    walk.prove_source()
    _copy_table(Run, source, copy, "last_seq <= %s", packed_until)
    for model in (Split, Version, Snapshot):
        _copy_table(model, source, copy, "seq <= %s", until)
    _copy_clients(source, copy, decode_state_vector(document_at(source.pk, seq=until).doc.get_state()))
    copy_authors(source, copy, until=until)
    Head.objects.filter(document=copy).update(seq=walk.seq, hash=walk.copy_hash, at=walk.last.at)


class _Walk:
    """Goes through a log once, hashing each row for the source, to prove it, and for the copy."""

    def __init__(self, source: Document, copy: Document) -> None:
        self.source = source
        self.copy = copy
        self.source_hash = self.copy_hash = GENESIS
        self.seq = 0
        self.last: LogRow
        self.sessions = _Sessions(source, copy)

    def segment(self, segment: Segment) -> None:
        """Take a whole segment over: its packed rows name sessions by ids that are the same in the copy."""
        rows = list(rows_of(segment))
        start_hash = self.copy_hash
        self._hash(rows)
        segment.document_id, segment.start_hash, segment.end_hash = self.copy.pk, start_hash, self.copy_hash
        Segment.objects.bulk_create([segment])

    def live(self, rows: list[LogRow]) -> None:
        hashes = self._hash(rows)
        columns: list[list[Any]] = [
            [self.copy.pk] * len(rows),
            [row.seq for row in rows],
            [row.session_id for row in rows],
            [row.kind for row in rows],
            [row.at for row in rows],
            [row.payload for row in rows],
            hashes,
        ]
        with connection.wrap_database_errors:
            psycopg.Cursor(connection.connection).execute(INSERT_UPDATES, columns, binary=True)

    def prove_source(self) -> None:
        """Compare with the hash that the source keeps next: of this row, or of the end of the segment that it is in.

        Raises: SourceDamaged."""
        of_source = {"document_id": self.source.pk}
        stored = Update.objects.filter(**of_source, seq=self.seq).values_list("hash", flat=True).first()
        found = self.source_hash
        if stored is None:
            segment = Segment.objects.filter(**of_source, last_seq__gte=self.seq).order_by("first_seq").first()
            if segment is None:
                raise SourceDamaged(self.source.pk, self.seq)
            rest = [row for row in rows_of(segment) if row.seq > self.seq]
            commitments = self.sessions.commitments({row.session_id for row in rest})
            for row in rest:
                found = _hashed(found, self.source, row, commitments)
            stored = segment.end_hash
        if bytes(stored) != found:
            raise SourceDamaged(self.source.pk, self.seq)

    def _hash(self, rows: list[LogRow]) -> list[bytes]:
        """The hashes of the copy's rows. Raises: SourceDamaged where these are not the next rows, or of no session."""
        commitments = self.sessions.brought({row.session_id for row in rows})
        hashes: list[bytes] = []
        for row in rows:
            if row.seq != self.seq + 1 or row.session_id not in commitments:
                raise SourceDamaged(self.source.pk, row.seq)
            self.source_hash = _hashed(self.source_hash, self.source, row, commitments)
            self.copy_hash = _hashed(self.copy_hash, self.copy, row, commitments)
            hashes.append(self.copy_hash)
            self.seq, self.last = row.seq, row
        return hashes


def _hashed(previous: bytes, document: Document, row: LogRow, commitments: dict[int, bytes]) -> bytes:
    return row_hash(
        previous,
        document_key=document.key.bytes,
        seq=row.seq,
        kind=row.kind,
        at_microseconds=microseconds(row.at),
        session_commitment=commitments[row.session_id],
        payload=row.payload,
    )


@dataclass(slots=True)
class _Sessions:
    """Copies each session with the first of its rows."""

    source: Document
    copy: Document
    known: dict[int, bytes] = field(default_factory=dict)

    def brought(self, session_ids: Collection[int]) -> dict[int, bytes]:
        """The commitments of these and others, all of which the copy has."""
        if len(self.known) > SESSIONS_KEPT_MAX:
            self.known.clear()
        missing = [each for each in session_ids if each not in self.known]
        if missing:
            _copy_table(Session, self.source, self.copy, "id = ANY(%s)", missing)
            self.known |= self.commitments(missing)
        return self.known

    def commitments(self, session_ids: Collection[int]) -> dict[int, bytes]:
        sessions = Session.objects.filter(document_id=self.source.pk, id__in=session_ids)
        return {session_id: bytes(value) for session_id, value in sessions.values_list("id", "commitment")}


def _batches(rows: Iterable[LogRow]) -> Iterator[list[LogRow]]:
    batch: list[LogRow] = []
    bytes_ = 0
    for row in rows:
        if batch and (len(batch) >= ROWS_PER_BATCH or bytes_ + len(row.payload) > BATCH_BYTES_MAX):
            yield batch
            batch, bytes_ = [], 0
        batch.append(row)
        bytes_ += len(row.payload)
    if batch:
        yield batch


def _copy_clients(source: Document, copy: Document, clients: Iterable[int]) -> None:
    """Client ids stay whose they are: nobody forges in the copy what somebody wrote in the source."""
    _copy_table(Client, source, copy, "client_id = ANY(%s)", list(clients))


def _copy_table(model: type[models.Model], source: Document, copy: Document, where: str, value: Any) -> None:
    """Rows of a table whose key starts with the document, inside the database; those that are there stay."""
    quote = connection.ops.quote_name
    meta = model._meta  # noqa: SLF001  (Django documents it)
    columns = ", ".join(quote(str(each.column)) for each in meta.concrete_fields if each.column != "document_id")
    table = quote(meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (document_id, {columns}) SELECT %s, {columns} FROM {table}"
            f" WHERE document_id = %s AND {where} ON CONFLICT DO NOTHING",
            [copy.pk, source.pk, value],
        )
