"""What a manifest says of one document, as values: `manifests` reads them, `verify` holds logs to them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


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
