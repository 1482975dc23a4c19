"""What the log did not take: kept for a while where its sender and the document's owners can fetch it.

Nothing here is a truth: it is offline work that is not thrown away, and the trace of whoever tried what they may not.
The updates are as they came; only whoever fetches them applies them anywhere."""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Length
from django.utils import timezone

from documents.conf import conf
from documents.models import Document, Role
from documents.roles import User, role_once_recovered
from history.audit.entries import act_of_session, record_once
from history.crdt.lib0 import Reader, var_bytes
from history.fates import Reason
from history.models import Action, Refusal
from history.sessions import WriteSession

CLIENTS_NOTED_MAX = 100
"""Client ids that one row names."""

PART_BYTES_MAX = 64 * 1024
"""What comes after a row of this size is a row of its own: each update more would be written with all before it."""

ROW_COST = 4096
"""Bytes that a row counts for besides its updates: many who come and go leave many."""

KEEP: LiteralString = """
INSERT INTO history_refusal
    (document_id, session_id, reason, part, user_id, ip, first_at, last_at, updates, payload, clients)
SELECT %(document_id)s, %(session_id)s, %(reason)s,
    COALESCE((
        SELECT part + (octet_length(payload) >= %(part_bytes_max)s)::int FROM history_refusal
        WHERE document_id = %(document_id)s AND session_id = %(session_id)s AND reason = %(reason)s
        ORDER BY part DESC LIMIT 1
    ), 0),
    %(user_id)s, %(ip)s, clock_timestamp(), clock_timestamp(), %(updates)s, %(payload)s, %(clients)s
WHERE EXISTS (SELECT 1 FROM documents_document WHERE id = %(document_id)s)
ON CONFLICT (document_id, session_id, reason, part) DO UPDATE SET
    last_at = EXCLUDED.last_at,
    updates = history_refusal.updates + EXCLUDED.updates,
    payload = history_refusal.payload || EXCLUDED.payload,
    clients = CASE
        WHEN history_refusal.clients @> EXCLUDED.clients THEN history_refusal.clients
        WHEN jsonb_array_length(history_refusal.clients) >= %(clients_max)s THEN history_refusal.clients
        ELSE history_refusal.clients || EXCLUDED.clients END
"""

# Of one person's rows on one document, the oldest that no longer fit beside the newer ones; never the newest itself.
THIN: LiteralString = """
DELETE FROM history_refusal WHERE (document_id, session_id, reason, part) IN (
    SELECT document_id, session_id, reason, part FROM (
        SELECT *, SUM(octet_length(payload) + %s) OVER newest_first AS bytes, ROW_NUMBER() OVER newest_first AS place
        FROM history_refusal WHERE document_id = %s AND user_id IS NOT DISTINCT FROM %s
        WINDOW newest_first AS (ORDER BY last_at DESC, session_id, part DESC)
    ) own WHERE bytes > %s AND place > 1
)
"""

FORGET = """
DELETE FROM history_refusal
WHERE document_id = %s AND session_id = %s AND reason = %s AND part = %s AND last_at < %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedUpdate:
    """One update (v1) that one session sent; `clients` are those because of whom it was refused, if it was that."""

    session: WriteSession
    update: bytes
    reason: Reason
    clients: AbstractSet[int] = frozenset()


def keep_refused(refused: Sequence[RefusedUpdate]) -> None:
    """Keep updates that were refused, durably; those of one session and reason together.

    A document keeps REFUSED_BYTES_MAX for each person and as much for all without an account; the oldest go first.
    Raises: DatabaseError; nothing is kept then."""
    gathered: dict[tuple[WriteSession, Reason], list[RefusedUpdate]] = {}
    for each in refused:
        gathered.setdefault((each.session, each.reason), []).append(each)
    with transaction.atomic():
        # In one order in every process, so that two of them never wait for each other.
        for (session, reason), mine in sorted(gathered.items(), key=lambda item: (item[0][0].id, item[0][1].name)):
            try:
                with transaction.atomic():
                    _keep(session, reason, mine, user_id=None if session.user is None else session.user.pk)
            except IntegrityError:  # the account is gone: what it sent is the owners' now
                _keep(session, reason, mine, user_id=None)
    record_once(
        [act_of_session(Action.WRITE_REFUSED, session, {"reason": reason.name.lower()}) for session, reason in gathered]
    )


def _keep(session: WriteSession, reason: Reason, refused: Sequence[RefusedUpdate], *, user_id: Any) -> None:
    clients = sorted(set[int]().union(*(each.clients for each in refused)))[:CLIENTS_NOTED_MAX]
    with connection.cursor() as cursor:
        cursor.execute(
            KEEP,
            {
                "document_id": session.document_id,
                "session_id": session.id,
                "reason": reason.name.lower(),
                "part_bytes_max": PART_BYTES_MAX,
                "user_id": user_id,
                "ip": session.ip,
                "updates": len(refused),
                "payload": b"".join(var_bytes(each.update) for each in refused),
                "clients": json.dumps(clients),
                "clients_max": CLIENTS_NOTED_MAX,
            },
        )
        cursor.execute(THIN, [ROW_COST, session.document_id, user_id, conf().refused_bytes_max])
        # The foreign key is looked at when the transaction ends, which is too late to know whose it was.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def refusals_for(user: User, document: Document) -> QuerySet[Refusal]:
    """The rows that the user may fetch, the last first: an owner's all, anybody else's own. No role is needed for
    those: who has lost a right may still fetch what was not taken because of it."""
    rows = Refusal.objects.filter(document=document).order_by("-last_at", "-session_id", "-part")
    if not user.is_authenticated:
        return rows.none()
    if role_once_recovered(user, document) == Role.OWNER:
        return rows
    return rows.filter(user=user)


def updates_of(refusal: Refusal) -> list[bytes]:
    """The refused updates (v1), in the order in which they came."""
    reader = Reader(bytes(refusal.payload))
    updates = []
    while reader.remaining:
        updates.append(reader.var_bytes())
    return updates


def without_payloads(refusals: QuerySet[Refusal]) -> QuerySet[Refusal]:
    """The same rows for a list: each with its size as `bytes`, its updates left in the database."""
    return refusals.annotate(bytes=Length("payload")).defer("payload").select_related("user")


def purge_refusals(*, limit: int) -> int:
    """Delete what is older than REFUSED_DAYS, at most `limit` rows; return how many there were."""
    before = timezone.now() - timedelta(days=conf().refused_days)
    # In one order in every worker, so that two of them never wait for each other.
    old = Refusal.objects.filter(last_at__lt=before).order_by("last_at", "document_id", "session_id", "reason", "part")
    rows = list(old.values_list("document_id", "session_id", "reason", "part")[:limit])
    with connection.cursor() as cursor:
        cursor.executemany(FORGET, [(*row, before) for row in rows])  # one that was added to meanwhile stays
        return int(cursor.rowcount) if rows else 0
