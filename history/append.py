"""The append: the only code that writes to the log.

One short transaction locks the heads of all documents of a batch in order, compares rights, numbers and hashes in
Python, and inserts. The lock makes seqs gapless and commit order equal to seq order; nobody is told before COMMIT."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, LiteralString, TypeAlias

import psycopg
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection
from django.db.models import F
from django.db.utils import DatabaseError, DataError, IntegrityError, InterfaceError, InternalError, OperationalError
from psycopg.types.json import Jsonb

from documents.conf import conf
from documents.credentials import Inquiry, Standing
from documents.models import Document
from documents.roles import admit_again
from history.crdt.splits import Splits
from history.errors import LogUnavailable, OutcomeUnknown, WrongIsolation
from history.fates import Base, Fate, PendingUpdate, Reason, Refused
from history.models import Head, Request
from history.sequencer import ClientKey, LockedHead, Rights, Sequencer, unclaimed
from history.sessions import WriteSession

logger = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

READMISSIONS_MAX = 3
"""How often in one append roles are read anew; where rights change faster than that, the update is turned back."""

LOCK_HEADS = """
SELECT document_id, seq, hash, at, epoch FROM history_head WHERE document_id = ANY(%s) ORDER BY document_id FOR UPDATE
"""
LOCK_FREE_HEADS = LOCK_HEADS + " SKIP LOCKED"
# A statement of its own: it sees what was committed while LOCK_HEADS waited, which a join there would not.
READ_ACCESS = """
SELECT access.document_id, document.key, access.version, document.deleted_at IS NOT NULL, clock_timestamp()
FROM documents_access access JOIN documents_document document ON document.id = access.document_id
WHERE access.document_id = ANY(%s)
"""
INSERT_SESSION = """
INSERT INTO history_session
    (document_id, id, user_id, via, ip, user_agent, salt, commitment, opened_at, detail)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
INSERT_UPDATES = """
INSERT INTO history_update (document_id, seq, session_id, kind, at, payload, hash)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::timestamptz[], %s::bytea[],
                     %s::bytea[])
"""
MOVE_HEADS = """
UPDATE history_head SET seq = head.seq, hash = head.hash, at = head.at
FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::timestamptz[]) AS head (document_id, seq, hash, at)
WHERE history_head.document_id = head.document_id
"""
LIMIT_WAITS = "SELECT current_setting('transaction_isolation'), set_config('lock_timeout', %s, true)"
FIND_OWNERS = """
SELECT document_id, client_id, actor FROM history_client
JOIN unnest(%s::bigint[], %s::bigint[]) AS asked (document_id, client_id) USING (document_id, client_id)
"""
CLAIM_CLIENTS = """
INSERT INTO history_client (document_id, client_id, actor) SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[])
ON CONFLICT (document_id, client_id) DO UPDATE SET actor = EXCLUDED.actor
"""
READ_HASHES = """
SELECT document_id, seq, hash FROM history_update
JOIN unnest(%s::bigint[], %s::bigint[]) AS asked (document_id, seq) USING (document_id, seq)
"""
RAISE_EPOCHS = "UPDATE history_head SET epoch = epoch + 1 WHERE document_id = ANY(%s)"
FIND_REQUEST = "SELECT seq FROM history_request WHERE document_id = %s AND actor = %s AND key = %s"
FIND_SPLITS = """
SELECT client, clock FROM history_split
WHERE document_id = %s AND (client, clock) IN (SELECT * FROM unnest(%s::bigint[], %s::bigint[]))
"""
INSERT_SPLITS = """
INSERT INTO history_split (document_id, client, clock, seq)
SELECT %s::bigint, * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[])
"""
INSERT_REQUEST = "INSERT INTO history_request (document_id, actor, key, seq) VALUES (%s, %s, %s, %s)"


def append(batch: Sequence[PendingUpdate], *, lock_timeout_ms: int | None = None) -> list[Fate]:
    """Append updates of any documents in one transaction; return each one's fate, in the order given.

    Seqs are 1-based and gapless per document. Inside the caller's `atomic()` the rows become durable with the caller's
    commit and the heads stay locked until then; outside of one they are durable on return. Heads are waited for
    `lock_timeout_ms` (APPEND_LOCK_TIMEOUT_MS where not given); then those that are held are passed over as BUSY, and so
    is a document whose author's account is held. Where the database refuses a batch for another reason (a full disk),
    each document is tried alone: one document's trouble is no other's; inside the caller's `atomic()` the error is
    raised as it is. Raises: LogUnavailable (nothing is stored), OutcomeUnknown (the commit's answer was lost),
    WrongIsolation (nothing is stored)."""
    return _append(batch, _Locking(lock_timeout_ms or conf().append_lock_timeout_ms))


def _append(batch: Sequence[PendingUpdate], locking: "_Locking") -> list[Fate]:
    if not batch:
        return []
    try:
        return _append_in_one_transaction(batch, locking)
    except (OperationalError, DataError, IntegrityError, InternalError) as error:
        is_held = isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
        if is_held and not locking.skips_held:
            # The limit stays, 0 would be none: an account's row is waited for too, and not every lock is a head's.
            return _append(batch, _Locking(locking.timeout_ms, skips_held=True))
        if connection.in_atomic_block:
            raise
        documents = sorted({item.document_id for item in batch})
        if len(documents) == 1:
            logger.warning("append refused by the database: document=%s error=%s", documents[0], _name(error))
            return [Refused(Reason.BUSY if is_held else Reason.UNAVAILABLE)] * len(batch)
        fates: dict[int, Fate] = {}
        for document_id in documents:
            places = [place for place, item in enumerate(batch) if item.document_id == document_id]
            alone = _append([batch[place] for place in places], locking)
            fates.update(zip(places, alone, strict=True))
        return [fates[place] for place in range(len(batch))]


@dataclass(frozen=True, slots=True)
class _Locking:
    """How heads are locked: waited for, or passed over where another transaction holds them."""

    timeout_ms: int
    skips_held: bool = False


def _append_in_one_transaction(batch: Sequence[PendingUpdate], locking: _Locking) -> list[Fate]:
    """As `append`, all or nothing. Where rights have changed since a session was admitted, its role is read first.

    That happens with nothing locked: a host's rule is any code, and may ask in ways that a pipeline does not bear (a
    server-side cursor, an `atomic()` of its own). The heads are locked again, and the version says whether it holds."""
    doubtful: set[WriteSession] = set()
    for _ in range(READMISSIONS_MAX):
        try:
            return _append_or_reconnect(batch, locking, doubtful)
        except _RightsChanged as changed:
            for document_id in {session.document_id for session in changed.sessions}:
                doubtful |= _readmit(
                    document_id, {each for each in changed.sessions if each.document_id == document_id}
                )
    return _append_or_reconnect(batch, locking, doubtful, refuse_stale=True)


class _RightsChanged(Exception):
    """Raised under the lock when rights, accounts or their sessions are not what some were admitted under; nothing is
    stored."""

    def __init__(self, sessions: set[WriteSession]) -> None:
        super().__init__()
        self.sessions = sessions


def _readmit(document_id: int, sessions: Collection[WriteSession]) -> set[WriteSession]:
    """Read what these sessions of one document may do now; return those of which that cannot be said, because a host's
    rule fails. Their updates are refused, and their next ones have the rule asked again."""
    users = {session.applicant: session.user or AnonymousUser() for session in sessions}
    try:
        admissions = admit_again(users, Document.objects.get(pk=document_id))
    except (DatabaseError, ObjectDoesNotExist) as error:
        # They stay stale: that a database was away refuses nobody, and a document that is purged has no head.
        logger.warning("no roles can be read: document=%s error=%s", document_id, _name(error))
        return set()
    for session in sessions:
        if session.applicant in admissions:
            session.admission = admissions[session.applicant]
    return {session for session in sessions if session.applicant not in admissions}


def _append_or_reconnect(
    batch: Sequence[PendingUpdate], locking: _Locking, doubtful: set[WriteSession], *, refuse_stale: bool = False
) -> list[Fate]:
    """Append. A lost connection is told apart by when it was lost: before the rows were sent nothing can be stored, and
    one new connection is tried."""
    for attempt in ("first", "last"):
        progress = _Progress()
        try:
            with connection.wrap_database_errors:
                connection.ensure_connection()
                return _append_on(
                    connection.connection, batch, progress, locking, doubtful=doubtful, refuse_stale=refuse_stale
                )
        except (OperationalError, InterfaceError) as error:
            lost = connection.connection is None or connection.connection.closed
            if not lost or connection.in_atomic_block:
                raise
            connection.close()
            if progress.rows_sent:
                raise OutcomeUnknown(f"the connection was lost while committing: {_name(error)}") from error
            if attempt == "last" or progress.heads_asked is False:
                raise LogUnavailable(f"the database cannot be reached: {_name(error)}") from error
    raise AssertionError("unreachable")


@dataclass(slots=True)
class _Progress:
    heads_asked: bool = False
    rows_sent: bool = False


def _append_on(
    raw: Connection,
    batch: Sequence[PendingUpdate],
    progress: _Progress,
    locking: _Locking,
    *,
    doubtful: set[WriteSession],
    refuse_stale: bool,
) -> list[Fate]:
    """Two round trips: lock and read, then insert and COMMIT in one pipeline."""
    callers_lock_timeout = None
    if connection.in_atomic_block:
        # This also begins the caller's transaction: BEGIN is sent with its first statement, and before that
        # `raw.transaction()` would be the outermost one and COMMIT what the caller may yet roll back.
        (callers_lock_timeout,) = raw.execute("SHOW lock_timeout").fetchone() or ("0",)
    with raw.pipeline(), raw.transaction():
        progress.heads_asked = True
        sessions = {item.session for item in batch}
        inquiry = Inquiry(session.credential for session in sessions if session.requires_role)
        heads, held, standing = _lock_heads(raw, sorted({item.document_id for item in batch}), locking, inquiry)
        if callers_lock_timeout is not None:
            _limit_waits(raw, callers_lock_timeout)
        rights = Rights(sessions, standing, doubtful=doubtful)
        stale = {
            session
            for session in sessions
            if session.document_id in heads and rights.are_stale(session, heads[session.document_id])
        }
        if stale and not refuse_stale:
            raise _RightsChanged(stale)
        owners = _find_owners(raw, {(item.document_id, client) for item in batch for client in unclaimed(item)})
        sequencer = Sequencer(
            heads,
            held,
            rights,
            set_back=_set_back(raw, heads, batch),
            owners=owners,
            find_request=partial(_find_request, raw),
            find_splits=partial(_find_splits, raw),
        )
        fates = [sequencer.place(item) for item in batch]
        progress.rows_sent = bool(sequencer.rows)
        _insert(raw, sequencer)
    if not connection.in_atomic_block:
        for session in sequencer.new_sessions.values():
            session.stored = True
        for session, clients in sequencer.claimed:
            session.claims |= clients
    return fates


def _execute(raw: Connection, query: LiteralString, params: Sequence[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
    """Run on the server's side: Django's own cursors bind on the client's, which knows no binary."""
    return psycopg.Cursor(raw).execute(query, params, binary=True)


def _lock_heads(
    raw: Connection, document_ids: list[int], locking: _Locking, inquiry: Inquiry
) -> tuple[dict[int, LockedHead], set[int], Standing]:
    """The heads that are locked now, by document; the documents whose heads another transaction holds; and how the
    accounts stand under these locks. Raises: WrongIsolation."""
    asked = _limit_waits(raw, f"{locking.timeout_ms}ms")
    heads = _execute(raw, LOCK_FREE_HEADS if locking.skips_held else LOCK_HEADS, [document_ids])
    rights = _execute(raw, READ_ACCESS, [document_ids])
    asked_of = [_execute(raw, sql, params) for sql, params in inquiry.statements()]
    isolation, _ = asked.fetchone() or ("unknown", "")
    if isolation != "read committed":
        raise WrongIsolation(f"an append needs READ COMMITTED, and the transaction is {isolation.upper()}")
    locked = heads.fetchall()
    access = {row[0]: row[1:] for row in rights.fetchall()}
    by_document = {
        document_id: LockedHead(document_id, access[document_id][0], seq, hash_, at, epoch, *access[document_id][1:])
        for document_id, seq, hash_, at, epoch in locked
        if document_id in access
    }
    return by_document, access.keys() - by_document.keys(), inquiry.standing([each.fetchall() for each in asked_of])


def _limit_waits(raw: Connection, lock_timeout: str) -> psycopg.Cursor[tuple[Any, ...]]:
    """Until the transaction ends, which may be the caller's and go on for long. The answer has its isolation."""
    return _execute(raw, LIMIT_WAITS, [lock_timeout])


def _find_request(raw: Connection, item: PendingUpdate) -> int | None:
    row = _execute(raw, FIND_REQUEST, [item.document_id, item.session.actor, item.request_key]).fetchone()
    return None if row is None else row[0]


def _find_splits(raw: Connection, item: PendingUpdate) -> Splits:
    """Those of the item's splits that the log knows already: others may have cut the same character."""
    clients, clocks = zip(*item.splits, strict=True)
    return frozenset(_execute(raw, FIND_SPLITS, [item.document_id, list(clients), list(clocks)]).fetchall())


def _set_back(raw: Connection, heads: dict[int, LockedHead], batch: Sequence[PendingUpdate]) -> set[tuple[int, Base]]:
    """The bases that the log does not have: a backup was restored since they were seen. Rows are looked at only where
    another process has written since; of those that are squashed by now nothing can be told."""
    bases = {(item.document_id, item.base) for item in batch if item.base is not None and item.document_id in heads}
    passed = [(pk, base) for pk, base in bases if 0 < base.seq < heads[pk].seq and base.hash]
    hashes: dict[tuple[int, int], bytes] = {}
    if passed:
        columns = [[pk for pk, _ in passed], [base.seq for _, base in passed]]
        hashes = {(pk, seq): hash_ for pk, seq, hash_ in _execute(raw, READ_HASHES, columns).fetchall()}
    return {
        (pk, base)
        for pk, base in bases
        if base.epoch != heads[pk].epoch
        or base.seq > heads[pk].seq
        or (base.seq == heads[pk].seq and base.hash and base.hash != heads[pk].hash)
        or base.hash != hashes.get((pk, base.seq), base.hash)
    }


def _find_owners(raw: Connection, clients: set[ClientKey]) -> dict[ClientKey, str]:
    """Whose these client ids are, as far as somebody has written under them. The heads are locked: nobody else binds
    one of these documents' meanwhile."""
    if not clients:
        return {}
    found = _execute(raw, FIND_OWNERS, [[document for document, _ in clients], [client for _, client in clients]])
    return {(document_id, client): actor for document_id, client, actor in found.fetchall()}


def _insert(raw: Connection, sequencer: Sequencer) -> None:
    if sequencer.rolled_back:
        _execute(raw, RAISE_EPOCHS, [list(sequencer.rolled_back)])
    if not sequencer.rows:
        return
    if claims := sequencer.claims:
        keys = claims.keys()
        columns = [[document for document, _ in keys], [client for _, client in keys], list(claims.values())]
        _execute(raw, CLAIM_CLIENTS, columns)
    for session in sequencer.new_sessions.values():
        _execute(
            raw,
            INSERT_SESSION,
            [
                session.document_id,
                session.id,
                None if session.user is None else session.user.pk,
                session.via,
                session.ip,
                session.user_agent,
                session.salt,
                session.commitment,
                session.opened_at,
                Jsonb(session.detail),
            ],
        )
    rows = sequencer.rows
    _execute(
        raw,
        INSERT_UPDATES,
        [
            [row.document_id for row in rows],
            [row.seq for row in rows],
            [row.session_id for row in rows],
            [row.kind for row in rows],
            [row.at for row in rows],
            [row.payload for row in rows],
            [row.hash for row in rows],
        ],
    )
    heads = sequencer.moved.values()
    _execute(
        raw,
        MOVE_HEADS,
        [
            [head.document_id for head in heads],
            [head.seq for head in heads],
            [head.hash for head in heads],
            [head.at for head in heads],
        ],
    )
    for document_id, splits in sequencer.splits.items():
        clients, clocks = [client for client, _ in splits], [clock for _, clock in splits]
        _execute(raw, INSERT_SPLITS, [document_id, clients, clocks, list(splits.values())])
    for name, seq in sequencer.requests.items():
        _execute(raw, INSERT_REQUEST, [*name, seq])


def raise_epoch(document_id: int, *, epoch: int) -> None:
    """End `epoch`, if it is still the document's: a backup was restored, and nobody may go on from what was there
    before. Many who notice it begin one new epoch."""
    Head.objects.filter(document_id=document_id, epoch=epoch).update(epoch=F("epoch") + 1)


def requested_seq(session: WriteSession, request_key: str) -> int | None:
    """The seq of the act that this user named so on this document, if it is in the log."""
    named = Request.objects.filter(document_id=session.document_id, actor=session.actor, key=request_key)
    return named.values_list("seq", flat=True).first()


def _name(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__} {getattr(cause, 'sqlstate', None) or ''}".strip()
