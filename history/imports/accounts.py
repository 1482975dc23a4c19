"""Which account here is the one that a foreign history names: by its user name, which no hash covers."""

from enum import Enum
from typing import Any

from django.contrib.auth import get_user_model

from documents.roles import User


class Users(Enum):
    """`match`: who has the same user name here; `create` also makes the others, who cannot sign in; `none`: nobody."""

    MATCH = "match"
    CREATE = "create"
    NONE = "none"


class Accounts:
    """Looks accounts up once for each name; `made` are those that were not there."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._found: dict[str, User | None] = {}
        self.made: list[str] = []

    def of(self, username: str) -> User | None:
        if not username or self._users is Users.NONE:
            return None
        if username not in self._found:
            self._found[username] = self._look_up(username)
        return self._found[username]

    @property
    def missing(self) -> list[str]:
        """The names that nobody has here."""
        return sorted(name for name, account in self._found.items() if account is None)

    def _look_up(self, username: str) -> User | None:
        model: Any = get_user_model()
        accounts = model._base_manager  # noqa: SLF001 (public, despite its name)
        account: User | None = accounts.filter(**{model.USERNAME_FIELD: username}).first()
        if account is not None or self._users is Users.MATCH:
            return account
        account = model(**{model.USERNAME_FIELD: username})
        account.is_active = False
        account.set_unusable_password()
        account.save()
        self.made.append(username)
        return account
