"""Sessions: who writes, from where, through which door. The author is always the authenticated session."""

import ipaddress
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from documents.conf import conf
from documents.credentials import ANONYMOUS, Credential
from documents.roles import UNADMITTED, Admission, Applicant, RoleRule
from history.crdt.chain import commitment
from history.models import Via

SALT_BYTES = 16
USER_AGENT_LENGTH_MAX = 200


@dataclass(slots=True, kw_only=True, eq=False)
class WriteSession:
    """One author's connection or server-side act on one document.

    Its row is stored in the transaction of its first update: readers leave none. `requires_role` is false for acts of
    the server itself, which nobody's rights limit. `admission` is what its `credential` was last found to be allowed;
    the append looks again where that holds no more. The appending thread and the event loop both replace it: it is one
    value, so that nobody ever sees the role of one moment with the version of another. `rule` is asked instead of
    ROLE_FOR, whenever it is asked again too. `claims` are the client ids that are known to be its user's: the append
    need not look them up again."""

    document_id: int
    user: Any | None
    via: Via
    ip: str | None = None
    user_agent: str = ""
    opened_at: datetime
    requires_role: bool
    credential: Credential = ANONYMOUS
    admission: Admission = UNADMITTED
    rule: RoleRule | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    id: int = field(default_factory=lambda: secrets.randbits(52))
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(SALT_BYTES))
    commitment: bytes = field(init=False)
    stored: bool = field(default=False, init=False)
    claims: set[int] = field(default_factory=set, init=False)

    @property
    def applicant(self) -> Applicant:
        return Applicant(self.credential, self.rule)

    def owns(self, owner: str | None) -> bool:
        """Whether it may write under a client id of `owner` (an `actor`; None where nobody has written under it)."""
        return not owner or owner == self.actor or self.may_relay

    @property
    def may_relay(self) -> bool:
        """Whether it may bring what was written under anybody's client id."""
        return not self.requires_role or conf().relays

    @property
    def actor(self) -> str:
        """The user's key as text; empty for nobody."""
        return "" if self.user is None else str(self.user.pk)

    def __post_init__(self) -> None:
        # Postgres keeps no NUL in text: it would refuse the whole batch.
        self.user_agent = self.user_agent.replace("\x00", "")[:USER_AGENT_LENGTH_MAX]
        self.ip = canonical_ip(self.ip)
        self.commitment = commitment(salt=self.salt, user=self.actor, via=self.via, ip=self.ip or "")


def canonical_ip(text: str | None) -> str | None:
    """An address in the one form that the chain hashes, however the door or the database writes it; None for none.

    An IPv4 address in IPv6's clothes becomes itself; a zone (`%eth0`) is dropped, which Postgres would refuse."""
    try:
        parsed = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed)))
    return str(parsed)
