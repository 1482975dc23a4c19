"""What the log did not take: kept for a while where its sender and the document's owners can fetch it.

Nothing here is a truth: it is offline work that is not thrown away, and the trace of whoever tried what they may not.
The updates are as they came; only whoever fetches them applies them anywhere."""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Length
from django.utils import timezone

from documents.conf import conf
from documents.models import Document, Role
from documents.roles import User, role_once_recovered
from history.crdt.lib0 import Reader, var_bytes
from history.fates import Reason
from history.models import Refusal
from history.sessions import WriteSession

CLIENTS_NOTED_MAX = 100
"""Client ids that one row names."""

KEEP: LiteralString = """
INSERT INTO history_refusal
    (document_id, session_id, reason, user_id, ip, first_at, last_at, updates, payload, clients)
SELECT %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp(), %s, %s, %s
WHERE EXISTS (SELECT 1 FROM documents_document WHERE id = %s)
ON CONFLICT (document_id, session_id, reason) DO UPDATE SET
    last_at = EXCLUDED.last_at,
    updates = history_refusal.updates + EXCLUDED.updates,
    payload = history_refusal.payload || EXCLUDED.payload
"""

# Of one person's rows on one document, the oldest that no longer fit beside the newer ones; never the newest itself.
THIN: LiteralString = """
DELETE FROM history_refusal WHERE (document_id, session_id, reason) IN (
    SELECT document_id, session_id, reason FROM (
        SELECT *, SUM(octet_length(payload)) OVER newest_first AS bytes, ROW_NUMBER() OVER newest_first AS place
        FROM history_refusal WHERE document_id = %s AND user_id IS NOT DISTINCT FROM %s
        WINDOW newest_first AS (ORDER BY last_at DESC, session_id)
    ) own WHERE bytes > %s AND place > 1
)
"""

FORGET = "DELETE FROM history_refusal WHERE document_id = %s AND session_id = %s AND reason = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedUpdate:
    """One update (v1) that one session sent; `clients` are those because of whom it was refused, if it was that."""

    session: WriteSession
    update: bytes
    reason: Reason
    clients: AbstractSet[int] = frozenset()


def keep_refused(refused: Sequence[RefusedUpdate]) -> None:
    """Keep updates that were refused, durably; one row for each session and reason.

    A document keeps REFUSED_BYTES_MAX for each person and as much for all without an account; the oldest go first.
    Raises: DatabaseError; nothing is kept then."""
    gathered: dict[tuple[WriteSession, Reason], list[RefusedUpdate]] = {}
    for each in refused:
        gathered.setdefault((each.session, each.reason), []).append(each)
    with transaction.atomic(), connection.cursor() as cursor:
        # In one order in every process, so that two of them never wait for each other.
        for (session, reason), mine in sorted(gathered.items(), key=lambda item: (item[0][0].id, item[0][1].name)):
            clients = sorted(set[int]().union(*(each.clients for each in mine)))[:CLIENTS_NOTED_MAX]
            user_pk = None if session.user is None else session.user.pk
            cursor.execute(
                KEEP,
                [
                    session.document_id,
                    session.id,
                    reason.name.lower(),
                    user_pk,
                    session.ip,
                    len(mine),
                    b"".join(var_bytes(each.update) for each in mine),
                    json.dumps(clients),
                    session.document_id,
                ],
            )
            cursor.execute(THIN, [session.document_id, user_pk, conf().refused_bytes_max])


def refusals_for(user: User, document: Document) -> QuerySet[Refusal]:
    """The rows that the user may fetch, the last first: an owner's all, anybody else's own. No role is needed for
    those: who has lost a right may still fetch what was not taken because of it."""
    rows = Refusal.objects.filter(document=document).order_by("-last_at", "-session_id")
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
    old = Refusal.objects.filter(last_at__lt=timezone.now() - timedelta(days=conf().refused_days))
    rows = list(old.order_by("last_at").values_list("document_id", "session_id", "reason")[:limit])
    with connection.cursor() as cursor:
        cursor.executemany(FORGET, rows)
    return len(rows)
