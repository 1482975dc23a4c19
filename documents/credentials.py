"""Whom a socket stands for, and whether that still holds: the account, its password, the session of the browser.

The database is asked for what it holds at the moment, in one query for all accounts and one for all sessions; nothing
that a socket has held since it came is believed. The admission, the append and the watch all ask here."""

import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import DEFAULT_DB_ALIAS, connection, models, router
from django.db.models import F, Func
from django.dispatch import Signal
from django.utils.crypto import constant_time_compare

logger = logging.getLogger(__name__)

Rows: TypeAlias = Sequence[tuple[Any, ...]]

accounts_changed = Signal()
"""Sent on commit with `user_key`: this account is no longer what it was, or somebody signs out of it just now."""

DECIDING_FIELDS = ("password", "is_active", "is_superuser")
"""Of these, what a user model has decides about its sockets."""

NOT_DECIDING_FIELDS = ("last_login",)
"""Where a user model has a `get_session_auth_hash` of its own, every field decides but these."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a socket, or an act of the server, came with: it must hold for as long as that is let in.

    `password_stamp` is None where no password let it in (a host's own middleware), `session_key` where no session of
    Django's did: then the account alone is looked at, and of nobody nothing."""

    user_key: Any = None
    password_stamp: str | None = field(default=None, repr=False)
    session_key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, user: Any) -> "Credential":
        """By the account alone."""
        return cls(user.pk) if user is not None and user.is_authenticated else ANONYMOUS

    @classmethod
    def by_password(cls, user: Any, *, session_key: str | None = None) -> "Credential":
        """By a ticket or a session: both end when the password changes."""
        if not user.is_authenticated or not hasattr(user, "get_session_auth_hash"):
            return cls.of(user)
        return cls(user.pk, password_stamp(user.get_session_auth_hash()), session_key)

    @classmethod
    def by_session(cls, user: Any, session: Any) -> "Credential":
        """By Django's session, if it was what signed this user in: a host's own middleware may know another way."""
        if session is None or not user.is_authenticated or not _is_of(session, user):
            return cls.of(user)
        return cls.by_password(user, session_key=session.session_key)


ANONYMOUS = Credential()


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the database has it. Another stamp, and something that decides has changed in it."""

    user: Any
    stamp: int

    def lets_in(self, credential: Credential) -> bool:
        """Whether it is active, and its password the one that the credential came with."""
        if not getattr(self.user, "is_active", True):
            return False
        return credential.password_stamp is None or is_stamp_of(self.user, credential.password_stamp)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says of credentials at one moment: stamps by user key, and the sessions that there are."""

    stamps: dict[Any, int]
    sessions: frozenset[str]

    def has_session(self, credential: Credential) -> bool:
        """False only where the session is one that the database keeps, and it is not there."""
        key = credential.session_key
        return key is None or key in self.sessions or not sessions_are_in_database()


class Inquiry:
    """The questions whose answers are a `Standing`, for whoever asks them: the append does so in its own pipeline."""

    def __init__(self, credentials: Iterable[Credential], *, accounts: bool = True) -> None:
        known = {each for each in credentials if each.user_key is not None}
        self._users = {each.user_key for each in known} if accounts else set()
        keys = {each.session_key for each in known} - {None}
        self._sessions = list(keys) if keys and sessions_are_in_database() else []

    def statements(self) -> list[tuple[str, list[Any]]]:
        """SQL and parameters of none, one or two statements; their rows, in this order, are for `standing`."""
        asked: list[tuple[str, list[Any]]] = []
        if self._users:
            model = get_user_model()
            keys = [model._meta.pk.get_db_prep_value(key, connection) for key in self._users]  # noqa: SLF001
            asked.append((_accounts_sql(model), [keys]))
        if self._sessions:
            asked.append((_sessions_sql(settings.SESSION_ENGINE), [self._sessions]))
        return asked

    def standing(self, answers: Sequence[Rows]) -> Standing:
        stamps = {_key_from_database(key): stamp for key, stamp in answers[0]} if self._users else {}
        return Standing(stamps, frozenset(key for (key,) in answers[-1]) if self._sessions else frozenset())


def read_standing(credentials: Iterable[Credential], *, accounts: bool = True) -> Standing:
    """Ask the database now, in a query for each kind; without `accounts` of sessions alone."""
    inquiry = Inquiry(credentials, accounts=accounts)
    answers: list[Rows] = []
    with connection.cursor() as cursor:
        for sql, params in inquiry.statements():
            cursor.execute(sql, params)
            answers.append(cursor.fetchall())
    return inquiry.standing(answers)


def read_accounts(credentials: Iterable[Credential]) -> dict[Any, Account]:
    """The accounts that exist, by user key; one query."""
    keys = {each.user_key for each in credentials} - {None}
    if not keys:
        return {}
    return {user.pk: Account(user, user.palimpsest_stamp) for user in _stamped(get_user_model()).filter(pk__in=keys)}


def sessions_are_in_database() -> bool:
    """Whether a query tells which sessions live; else the session engine is asked, one session at a time."""
    return _session_model(settings.SESSION_ENGINE) is not None


def has_ended_elsewhere(credential: Credential) -> bool:
    """Ask the session engine whether a session is gone, has expired or is another user's by now. One that cannot be
    asked (its cache is away) has not ended."""
    try:
        session = import_module(settings.SESSION_ENGINE).SessionStore(credential.session_key)
        return bool(session.get(SESSION_KEY) != _key_as_text(credential.user_key))
    except Exception as error:  # noqa: BLE001  (whatever a cache or a host's own engine raises)
        logger.warning("a session cannot be looked up: %s", type(error).__name__)
        return False


def password_stamp(session_auth_hash: str) -> str:
    """A digest: tickets are seen by scripts, which a session's hash never is."""
    return hashlib.sha256(session_auth_hash.encode()).hexdigest()[:32]


def is_stamp_of(user: Any, stamp: str) -> bool:
    """Whether the stamp is of the user's present password, under SECRET_KEY or one of its fallbacks."""
    fallbacks = getattr(user, "get_session_auth_fallback_hash", tuple)
    hashes = (user.get_session_auth_hash(), *fallbacks())
    return any(constant_time_compare(password_stamp(each), stamp) for each in hashes)


def decides(model: type[models.Model], saved_fields: Collection[str] | None) -> bool:
    """Whether a save of these fields, or of all where they are not named, may change what an account may do."""
    deciding = {name for each in _deciding_fields(model) for name in (each.name, each.attname)}
    return saved_fields is None or not deciding.isdisjoint(saved_fields)


def _deciding_fields(model: type[models.Model]) -> "list[models.Field[Any, Any]]":
    fields = model._meta.concrete_fields  # noqa: SLF001  (Django documents it)
    own_hash = getattr(model, "get_session_auth_hash", None)
    if own_hash is None or own_hash is AbstractBaseUser.get_session_auth_hash:
        return [each for each in fields if each.name in DECIDING_FIELDS]
    return [each for each in fields if each.name not in NOT_DECIDING_FIELDS]


def _stamped(model: type[models.Model]) -> models.QuerySet[Any]:
    """All accounts with their stamps: one number, hashed by Postgres, of whatever columns decide."""
    stamp = Func(
        *(F(each.name) for each in _deciding_fields(model)),
        template="hashtextextended(ROW(%(expressions)s)::text, 0)",
        output_field=models.BigIntegerField(),
    )
    accounts = model._base_manager.order_by()  # noqa: SLF001  (any user model has it)
    return cast("models.QuerySet[Any]", accounts.annotate(palimpsest_stamp=stamp))


@cache
def _accounts_sql(model: type[models.Model]) -> str:
    # Written by Django, which knows how a user model that inherits from another is joined; put together once.
    meta, quote = model._meta, connection.ops.quote_name  # noqa: SLF001  (Django documents it)
    sql, _ = _stamped(model).values_list("pk", "palimpsest_stamp").query.sql_with_params()
    return f"{sql} WHERE {quote(meta.db_table)}.{quote(cast(str, meta.pk.column))} = ANY(%s)"


@cache
def _session_model(engine: str) -> type[models.Model] | None:
    """Django's sessions, or a host's own kind of them, where the documents' database keeps them."""
    store = import_module(engine).SessionStore
    if not issubclass(store, DatabaseStore):
        return None
    model: type[models.Model] = store.get_model_class()
    return model if router.db_for_read(model) == DEFAULT_DB_ALIAS else None


@cache
def _sessions_sql(engine: str) -> str:
    model, quote = _session_model(engine), connection.ops.quote_name
    if model is None:
        raise LookupError(f"{engine} does not keep its sessions in this database")
    table = quote(model._meta.db_table)  # noqa: SLF001  (Django documents it)
    return f"SELECT session_key FROM {table} WHERE session_key = ANY(%s) AND expire_date > clock_timestamp()"


def _is_of(session: Any, user: Any) -> bool:
    return getattr(session, "session_key", None) is not None and session.get(SESSION_KEY) == _key_as_text(user.pk)


def _key_as_text(user_key: Any) -> str:
    """As Django's `login` writes it into a session."""
    model = get_user_model()
    return str(model._meta.pk.value_to_string(model(pk=user_key)))  # noqa: SLF001  (Django documents it)


def _key_from_database(key: Any) -> Any:
    field = get_user_model()._meta.pk  # noqa: SLF001  (Django documents it)
    for convert in field.get_db_converters(connection):
        key = convert(key, None, connection)
    return field.to_python(key)
