"""Whose a commitment is that names nobody any more, among the accounts that there still are.

An account that is deleted leaves what it did without a user, which nobody can tell from tampering by itself. But the
salt stays there: where it is an account's that was never deleted, somebody took the name away."""

from functools import cached_property
from typing import Any

from django.contrib.auth import get_user_model

from history.crdt.chain import commitment
from history.sessions import canonical_ip

TRIES_MAX = 500_000
"""Hashes for one document, about a second; what would take more is counted, and not looked into."""


class StandingAccounts:
    """For one document, in one snapshot of the database."""

    def __init__(self) -> None:
        self._tries_left = TRIES_MAX

    def has_committed(self, committed: bytes, *, salt: bytes, via: int, ip: str | None) -> bool:
        """Whether one of them did this. False without a salt, which goes with the user of who is made pseudonymous."""
        if not salt or self._tries_left < len(self._keys):
            return False
        self._tries_left -= len(self._keys)
        address = canonical_ip(ip) or ""
        return any(commitment(salt=salt, user=key, via=via, ip=address) == committed for key in self._keys)

    @cached_property
    def _keys(self) -> list[str]:
        """Of all accounts, those that nothing can be tried for left out: where there are too many, none."""
        model: Any = get_user_model()
        accounts = model._base_manager  # noqa: SLF001 (public, despite its name)
        keys = [str(key) for key in accounts.order_by("pk").values_list("pk", flat=True)[: TRIES_MAX + 1]]
        return keys if len(keys) <= TRIES_MAX else []
