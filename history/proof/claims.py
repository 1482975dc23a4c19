"""What a manifest says of one document, as values: `manifests` reads them, `verify` holds logs to them and
`published_audits` audits."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

CLOCKS_APART_MAX = timedelta(minutes=15)
"""How long before a manifest was made what it does not have may say that it was written: as far as the clocks of the
worker that signs and of the database may be apart, and as long as a host's transaction around an edit may take.
`offline_verify.py` says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedHead:
    """Where a document's log ended. `hash` is empty at seq 0. `is_deleted`: it could still be recovered then."""

    key: UUID
    epoch: int
    seq: int
    hash: bytes
    at_microseconds: int
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """What one manifest says of one document."""

    manifest: str
    created_at: datetime
    head: PublishedHead

    @property
    def later_from(self) -> datetime:
        """What it does not have was written from then on."""
        return self.created_at - CLOCKS_APART_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAudit:
    """Where the audit of a document ended: its n-th entry, from 1; 0 is none yet. The document may be gone since."""

    document_id: int
    key: UUID
    n: int
    hash: bytes
    at_microseconds: int


@dataclass(frozen=True, slots=True)
class AuditClaim:
    """What one manifest says of one audit."""

    manifest: str
    created_at: datetime
    audit: PublishedAudit

    @property
    def later_from(self) -> datetime:
        """What it does not have was written from then on."""
        return self.created_at - CLOCKS_APART_MAX
