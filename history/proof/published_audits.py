"""Audits against what manifests published of them: the hash of each published entry must be that of the entry still.

That the entries lead from one to the next is `audit.verify_audit`'s to prove; retention may have taken the oldest."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import connection

from history.proof.claims import AuditClaim

CLAIMS_PER_QUERY = 500

READ_PUBLISHED = """
SELECT head.key, head.n, head.removed_n, CASE head.removed_n WHEN claimed.n THEN head.removed_hash ELSE entry.hash END
FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS claimed (document_id, n, place)
LEFT JOIN history_audithead head ON head.document_id = claimed.document_id
LEFT JOIN history_auditentry entry ON entry.document_id = claimed.document_id AND entry.n = claimed.n
ORDER BY claimed.place
"""


def contradictions(claims: Iterable[AuditClaim]) -> Iterator[tuple[AuditClaim, str]]:
    """The claims that the audits do not bear out, and why. One query for CLAIMS_PER_QUERY of them."""
    waiting = iter(claims)
    while page := list(islice(waiting, CLAIMS_PER_QUERY)):
        with connection.cursor() as cursor:
            cursor.execute(READ_PUBLISHED, [[each.audit.document_id for each in page], [each.audit.n for each in page]])
            found = cursor.fetchall()
        for claim, row in zip(page, found, strict=True):
            what = _contradiction(claim, row)
            if what is not None:
                yield claim, what


def _contradiction(claim: AuditClaim, row: Sequence[Any]) -> str | None:
    key: UUID | None
    key, n, removed_n, hash_ = row
    published = claim.audit
    if key is None:
        return f"the audit is missing; {claim.manifest} published entry {published.n}"
    if key != published.key:
        return f"the audit is of {key}; {claim.manifest} published it as of {published.key}"
    if n < published.n:
        return f"the audit ends at {n}, but {claim.manifest} published {published.n}"
    if published.n < max(removed_n, 1):
        return None  # gone by retention; or there was none yet
    if hash_ is None or bytes(hash_) != published.hash:
        return f"{claim.manifest} published another hash of {published.n}: the audit was rewritten at or before it"
    return None
