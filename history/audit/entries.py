"""The audit: what people did with a document besides editing it, one chained entry for each act.

An entry is written in the transaction of its act, so that neither is there without the other. It locks a row of its
own, never the head of the log: no edit waits for it. Edits, restores and undoings are in the log, not copied here."""

import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from documents.acts import Actor, acted, current_actor
from documents.conf import conf
from documents.models import Document
from history.crdt.chain import GENESIS, commitment, entry_hash
from history.log import consistent_read
from history.models import Action, AuditEntry, AuditHead, Via
from history.sessions import SALT_BYTES, WriteSession, canonical_ip
from history.standing_accounts import StandingAccounts
from history.times import microseconds

logger = logging.getLogger(__name__)

NO_DOCUMENT = 0
"""The document id of acts on no one document, such as an export of many."""

NO_DOCUMENT_KEY = UUID(int=0)

DETAIL_FIELDS_MAX = 20
DETAIL_CHARACTERS_MAX = 300
"""Of one text in a detail; longer ones are cut. With DETAIL_FIELDS_MAX it bounds an entry to some kilobytes."""

LOCK_SECONDS_MAX = 1

Detail: TypeAlias = Mapping[str, "str | int | bool | None"]

REMOVE_ROWS_MAX = 10_000
"""Entries that one transaction removes."""

OPEN_HEAD = """
INSERT INTO history_audithead (document_id, key, n, hash, at, removed_n, removed_hash)
VALUES (%s, %s, 0, '', clock_timestamp(), 0, '') ON CONFLICT DO NOTHING
"""
LOCK_HEAD = """
SELECT key, n, hash, at, clock_timestamp() FROM history_audithead WHERE document_id = %s FOR UPDATE
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act on one document, before it has a place in the audit. `detail` holds no content."""

    action: Action
    user: Any | None
    via: Via
    ip: str | None
    detail: Detail = field(default_factory=dict)


def connect() -> None:
    acted.connect(_acted)


def _acted(document: Document, act: str, detail: Detail, **_: Any) -> None:
    record(Action[act.upper()], document=document, detail=detail)


def record(
    action: Action,
    *,
    document: Document | None,
    detail: Detail | None = None,
    actor: Actor | None = None,
    user: Any | None = None,
) -> None:
    """Write down one act on a document (None: on no one document) by `actor`, or whoever acts now (`documents.acts`);
    with a `user` given, by that account, through the door and from the address of whoever acts now.

    In the caller's transaction: it is kept exactly if the act is, and the document's audit waits for it till then."""
    actor = actor or current_actor()
    if user is not None and user.is_authenticated:
        actor = replace(actor, user=user)
    act = Act(action=action, user=actor.user, via=Via[actor.door.upper()], ip=actor.ip, detail=detail or {})
    document_id, key = (NO_DOCUMENT, NO_DOCUMENT_KEY) if document is None else (document.pk, document.key)
    with transaction.atomic():
        head = _locked_head(document_id, key)
        if head is not None:
            _append(head, [act])


def record_opening(document: Document, actor: Actor | None = None) -> None:
    """Write down that somebody opened a document; see `record_once`. After the caller's transaction, if it is in one:
    that may go on for long, and who shares the document meanwhile shall not wait for it."""
    actor = actor or current_actor()
    act = Act(action=Action.OPENED, user=actor.user, via=Via[actor.door.upper()], ip=actor.ip)
    transaction.on_commit(lambda: _record_opening(document.pk, act))


def _record_opening(document_id: int, act: Act) -> None:
    try:
        record_once([(document_id, act)])
    except DatabaseError as error:  # a page that can be read is no reason to turn its reader away
        logger.error("an opening is not in the audit: document=%s error=%s", document_id, type(error).__name__)


def act_of_session(action: Action, session: WriteSession, detail: Detail | None = None) -> tuple[int, Act]:
    act = Act(action=action, user=session.user, via=session.via, ip=session.ip, detail=detail or {})
    return session.document_id, act


def record_once(acts: Sequence[tuple[int, Act]]) -> None:
    """Write down acts by document id, except those that the same person did through the same door, with the same
    detail, in the last AUDIT_OPENED_SECONDS; somebody without an account is told by the address.

    One short transaction for each document, so that two of these never wait for each other; it waits LOCK_SECONDS_MAX
    for one that writes into the same audit and goes on for long. Raises: DatabaseError; it may be called again."""
    of_document: dict[int, dict[tuple[Any, ...], Act]] = {}
    for document_id, act in acts:
        of_document.setdefault(document_id, {})[_likeness(act)] = act
    for document_id, mine in sorted(of_document.items()):
        if not _new(document_id, mine):  # most often: nothing is locked then
            continue
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_SECONDS_MAX}s"])
            head = _locked_head(document_id, None)
            if head is not None:
                _append(head, list(_new(document_id, mine).values()))


def _new(document_id: int, acts: Mapping[tuple[Any, ...], Act]) -> dict[tuple[Any, ...], Act]:
    since = timezone.now() - timedelta(seconds=conf().audit_opened_seconds)
    users = {act.user.pk for act in acts.values() if act.user is not None}
    addresses = {canonical_ip(act.ip) for act in acts.values() if act.user is None}
    theirs = Q(user__in=users) | Q(user=None, ip__in=addresses - {None})
    if None in addresses:
        theirs |= Q(user=None, ip=None)
    actions = {act.action for act in acts.values()}
    entries = AuditEntry.objects.filter(theirs, document_id=document_id, action__in=actions, at__gt=since)
    columns = entries.values_list("action", "user_id", "via", "ip", "detail")
    known = {
        (action, user, None if user is not None else canonical_ip(ip), via, canonical_detail(detail or {}))
        for action, user, via, ip, detail in columns
    }
    return {likeness: act for likeness, act in acts.items() if likeness not in known}


def _likeness(act: Act) -> tuple[Any, ...]:
    user = None if act.user is None else act.user.pk
    ip = canonical_ip(act.ip) if user is None else None
    return act.action, user, ip, act.via, canonical_detail(_bounded(act.detail))


@dataclass(slots=True)
class _LockedHead:
    document_id: int
    key: UUID
    n: int
    hash: bytes
    at: datetime


def _locked_head(document_id: int, key: UUID | None) -> _LockedHead | None:
    """The end of a document's audit, locked until the transaction ends; None for a document that is gone and left none.
    The first act of a document makes it."""
    with connection.cursor() as cursor:
        cursor.execute(LOCK_HEAD, [document_id])
        row = cursor.fetchone()
        if row is None:
            key = key or Document.objects.filter(pk=document_id).values_list("key", flat=True).first()
            if key is None:
                return None
            cursor.execute(OPEN_HEAD, [document_id, key])
            cursor.execute(LOCK_HEAD, [document_id])
            row = cursor.fetchone()
    found_key, n, hash_, at, now = row
    return _LockedHead(document_id, found_key, n, bytes(hash_), max(at, now))


def _append(head: _LockedHead, acts: Sequence[Act]) -> None:
    entries: list[AuditEntry] = []
    for act in acts:
        head.n += 1
        entries.append(_entry(head, act))
        head.hash = bytes(entries[-1].hash)
    AuditEntry.objects.bulk_create(entries)
    AuditHead.objects.filter(document_id=head.document_id).update(n=head.n, hash=head.hash, at=head.at)


def _entry(head: _LockedHead, act: Act) -> AuditEntry:
    salt = secrets.token_bytes(SALT_BYTES)
    ip = canonical_ip(act.ip)
    user = None if act.user is None else act.user.pk
    committed = commitment(salt=salt, user="" if user is None else str(user), via=act.via, ip=ip or "")
    detail = _bounded(act.detail)
    digest = hashlib.sha256(canonical_detail(detail)).digest()
    hash_ = entry_hash(
        head.hash,
        document_key=head.key.bytes,
        n=head.n,
        action=act.action,
        at_microseconds=microseconds(head.at),
        actor_commitment=committed,
        detail_sha256=digest,
    )
    return AuditEntry(
        document_id=head.document_id,
        n=head.n,
        action=act.action,
        at=head.at,
        user_id=user,
        via=act.via,
        ip=ip,
        salt=salt,
        commitment=committed,
        detail=detail,
        detail_sha256=digest,
        hash=hash_,
    )


def _bounded(detail: Detail) -> dict[str, Any]:
    """Raises: ValueError for more fields than an entry takes: the caller's mistake, whatever anybody typed."""
    if len(detail) > DETAIL_FIELDS_MAX:
        raise ValueError(f"an entry takes {DETAIL_FIELDS_MAX} fields, not {len(detail)}")
    return {name: storable(value) if isinstance(value, str) else value for name, value in detail.items()}


def storable(text: str) -> str:
    """Postgres keeps neither NUL nor half a surrogate pair."""
    return text[:DETAIL_CHARACTERS_MAX].replace("\x00", "").encode("utf-8", "replace").decode()


def canonical_detail(detail: Mapping[str, Any]) -> bytes:
    """The one form in which a detail is hashed, however the database writes it."""
    return json.dumps(detail, sort_keys=True, separators=(",", ":")).encode()


def remove_expired_entries(*, now: datetime, limit: int = REMOVE_ROWS_MAX) -> int:
    """Remove entries older than AUDIT_DAYS, at most `limit`; return how many. The head keeps place and hash of the last
    that went, so that the rest is still proven; each document is one transaction. AUDIT_DAYS 0 removes nothing."""
    days = conf().audit_days
    if not days:
        return 0
    before = now - timedelta(days=days)
    removed = 0
    old = AuditEntry.objects.filter(at__lt=before).order_by("at", "document_id", "n")
    while removed < limit:
        document_id = old.values_list("document_id", flat=True).first()
        if document_id is None:
            break
        count = _remove(document_id, before=before, limit=limit - removed)
        if not count:
            break  # another worker is at it
        removed += count
    return removed


def _remove(document_id: int, *, before: datetime, limit: int) -> int:
    """Times never fall as n rises, so that what is old is the first entries."""
    with transaction.atomic():
        head = AuditHead.objects.select_for_update().get(document_id=document_id)
        entries = AuditEntry.objects.filter(document_id=document_id)
        old = entries.filter(at__lt=before, n__lte=head.removed_n + limit).order_by("-n")
        last = old.values_list("n", "hash").first()
        if last is None:
            return 0
        head.removed_n, head.removed_hash = last[0], bytes(last[1])
        head.save(update_fields=["removed_n", "removed_hash"])
        removed, _ = entries.filter(n__lte=last[0]).delete()
        return removed


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """A document's audit holds. `entries` are left, `removed` went by retention; `authors_unknown` counts those whose
    account is gone: that they were written so is proven, who did it cannot be; `details_erased` those without
    detail."""

    document_id: int
    entries: int
    removed: int
    authors_unknown: int
    details_erased: int = 0


@dataclass(frozen=True, slots=True)
class AuditDifference:
    """The first entry that is not what was written."""

    document_id: int
    n: int
    what: str


class _Found(Exception):
    def __init__(self, n: int, what: str) -> None:
        super().__init__(what)
        self.n = n
        self.what = what


ENTRIES_PER_FETCH = 1000


def verify_audit(document_id: int) -> AuditVerdict | AuditDifference:
    """Prove one document's audit, as it is at one moment, in bounded memory; a document of which nothing was written
    has an audit of no entries. NO_DOCUMENT is that of acts on no one document. Some 20 µs an entry."""
    with consistent_read():
        try:
            return _verify(document_id)
        except _Found as found:
            return AuditDifference(document_id, found.n, found.what)


def audits_of_no_document() -> Iterator[int]:
    """The ids of audits whose document is gone, and NO_DOCUMENT's: they are proven too."""
    heads = AuditHead.objects.exclude(document_id__in=Document.objects.values("pk")).order_by("document_id")
    yield from heads.values_list("document_id", flat=True).iterator(chunk_size=1000)


def _verify(document_id: int) -> AuditVerdict:
    head = AuditHead.objects.filter(document_id=document_id).first()
    entries = AuditEntry.objects.filter(document_id=document_id).order_by("n")
    if head is None:
        first = entries.values_list("n", flat=True).first()
        if first is not None:
            raise _Found(first, "the head of the audit is missing")
        return AuditVerdict(document_id, 0, 0, 0)
    key = Document.objects.filter(pk=document_id).values_list("key", flat=True).first()
    if key is not None and key != head.key:
        raise _Found(0, "the head of the audit is another document's")
    n, hash_, at, authors_unknown = head.removed_n, bytes(head.removed_hash) or GENESIS, None, 0
    details_erased, standing = 0, StandingAccounts()
    for entry in entries.iterator(chunk_size=ENTRIES_PER_FETCH):
        n += 1
        if entry.n != n:
            raise _Found(n, f"the entry is missing; the next is {entry.n}" if entry.n > n else "it should be gone")
        if at is not None and entry.at < at:
            raise _Found(n, "its time is before that of the entry before it")
        hash_ = _proven(entry, hash_, head.key)
        at = entry.at
        authors_unknown += not _is_author_known(entry, standing)
        details_erased += entry.detail is None
    if n != head.n:
        raise _Found(min(n, head.n) + 1, f"the audit ends at {n}, its head says {head.n}")
    if hash_ != bytes(head.hash) or (at is not None and at != head.at):
        raise _Found(n, "the head of the audit is not what its last entry says")
    return AuditVerdict(document_id, n - head.removed_n, head.removed_n, authors_unknown, details_erased)


def _proven(entry: AuditEntry, previous: bytes, key: UUID) -> bytes:
    digest = bytes(entry.detail_sha256)
    if entry.detail is not None and hashlib.sha256(canonical_detail(entry.detail)).digest() != digest:
        raise _Found(entry.n, "the entry's detail was altered")
    hash_ = entry_hash(
        previous,
        document_key=key.bytes,
        n=entry.n,
        action=entry.action,
        at_microseconds=microseconds(entry.at),
        actor_commitment=bytes(entry.commitment),
        detail_sha256=digest,
    )
    if hash_ != bytes(entry.hash):
        raise _Found(entry.n, "the entry was altered: its action, time, actor, detail or place is not what it says")
    return hash_


def _is_author_known(entry: AuditEntry, standing: StandingAccounts) -> bool:
    """Raises: _Found where another account, door or address stands there than did it, or none though the account is
    still there."""
    user = "" if entry.user_id is None else str(entry.user_id)
    committed = commitment(salt=bytes(entry.salt), user=user, via=entry.via, ip=canonical_ip(entry.ip) or "")
    if committed == bytes(entry.commitment):
        return True
    if entry.user_id is not None:
        raise _Found(entry.n, "who did it was altered: the entry is not what its commitment says")
    if standing.has_committed(bytes(entry.commitment), salt=bytes(entry.salt), via=entry.via, ip=entry.ip):
        raise _Found(entry.n, "who did it was taken away: the account that its commitment names is still there")
    return False  # an account that is deleted leaves its entries without a user, which nobody can tell from tampering
