"""Audits against what manifests published of them: the hash of each published entry must be that of the entry still,
and what follows it no older than the manifest.

That the entries lead from one to the next is `audit.verify_audit`'s to prove; retention may have taken the oldest."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import connection

from documents.conf import conf
from history.proof.claims import AuditClaim
from history.times import microseconds

CLAIMS_PER_QUERY = 500

READ_PUBLISHED = """
SELECT head.key, head.n, head.removed_n, CASE head.removed_n WHEN claimed.n THEN head.removed_hash ELSE entry.hash END,
    following.n, following.at
FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS claimed (document_id, n, place)
LEFT JOIN history_audithead head ON head.document_id = claimed.document_id
LEFT JOIN history_auditentry entry ON entry.document_id = claimed.document_id AND entry.n = claimed.n
LEFT JOIN LATERAL (
    SELECT later.n, later.at FROM history_auditentry later
    WHERE later.document_id = claimed.document_id AND later.n > claimed.n
    ORDER BY later.n LIMIT 1
) following ON true
ORDER BY claimed.place
"""


def contradictions(claims: Iterable[AuditClaim], *, now: datetime) -> Iterator[tuple[AuditClaim, str]]:
    """The claims that the audits do not bear out, and why. One query for CLAIMS_PER_QUERY of them.

    Entries may be gone that AUDIT_DAYS, as it is set now, has taken by now."""
    kept_since = _kept_since(now)
    waiting = iter(claims)
    while page := list(islice(waiting, CLAIMS_PER_QUERY)):
        with connection.cursor() as cursor:
            cursor.execute(READ_PUBLISHED, [[each.audit.document_id for each in page], [each.audit.n for each in page]])
            found = cursor.fetchall()
        for claim, row in zip(page, found, strict=True):
            what = _contradiction(claim, row, kept_since)
            if what is not None:
                yield claim, what


def _kept_since(now: datetime) -> int:
    """Microseconds: what was written from then on is kept."""
    return microseconds(now - timedelta(days=days)) if (days := conf().audit_days) else 0


def _contradiction(claim: AuditClaim, row: Sequence[Any], kept_since: int) -> str | None:
    key: UUID | None
    key, n, removed_n, hash_, next_n, next_at = row
    published = claim.audit
    if key is None:
        return f"the audit is missing; {claim.manifest} published entry {published.n}"
    if key != published.key:
        return f"the audit is of {key}; {claim.manifest} published it as of {published.key}"
    if n < published.n:
        return f"the audit ends at {n}, but {claim.manifest} published {published.n}"
    if next_at is not None and next_at < claim.later_from:  # times do not fall behind it
        return f"entry {next_n} is of before {claim.manifest} was made, which does not have it: it was dated back"
    if published.n == 0:
        return None
    if published.n <= removed_n and published.at_microseconds >= kept_since:
        # The head alone says what retention took, and whoever can write to the database can write that too.
        return f"the entries up to {removed_n} are gone, though AUDIT_DAYS keeps {published.n} of {claim.manifest}"
    if published.n < removed_n:
        return None  # gone by retention
    if hash_ is None or bytes(hash_) != published.hash:
        return f"{claim.manifest} published another hash of {published.n}: the audit was rewritten at or before it"
    return None
