"""Who is mentioned in a text: `@name`, where name is an account's."""

import re
from collections.abc import Collection, Sequence
from functools import reduce
from operator import or_
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from documents.roles import User

MENTIONS_MAX = 20
"""Different names that one text may mention; those behind them are words."""

NAME_LENGTH_MAX = 254

# What Django's user names, and addresses as names, are made of; not behind such a character, as in an address.
_MENTION = re.compile(rf"(?<![\w.@+-])@([\w.@+-]{{1,{NAME_LENGTH_MAX}}})")
_ENDS_A_SENTENCE = ".-+@"


def names_in(text: str) -> list[str]:
    """The names that a text mentions, as written, each once, at most MENTIONS_MAX. Dots and the like at their ends are
    there still: they may be of the name or of the sentence."""
    names = dict.fromkeys(match.group(1) for match in _MENTION.finditer(text))
    return list(names)[:MENTIONS_MAX]


def readings_of(name: str) -> list[str]:
    """What a name as written may mean, the longest first: `ada.` is somebody of that name, or else Ada."""
    forms = [name]
    if name[-1] in _ENDS_A_SENTENCE:
        forms += [name[:-1], name.rstrip(_ENDS_A_SENTENCE)]
    return [form for form in dict.fromkeys(forms) if form]


def mentioned(text: str, *, among: Q) -> Sequence[User]:
    """The active accounts that a text mentions: exactly as they are written wherever they are, and written in another
    case those `among` whom they are looked for: a search of all accounts without regard to case has no index.

    A name that is somebody's exactly is nobody else's; in another case it may be several people's."""
    names = names_in(text)
    if not names:
        return []
    readings = {reading for name in names for reading in readings_of(name)}
    model = get_user_model()
    field = model.USERNAME_FIELD
    exact: Any = {f"{field}__in": {form for each in readings for form in (each, each.lower())}}
    alike = reduce(or_, (Q(**{f"{field}__iexact": each}) for each in readings))
    accounts = model._base_manager.all()  # noqa: SLF001  (any user model has it)
    found = {user.pk: user for query in (Q(**exact), among & alike) for user in accounts.filter(query)}
    active = [user for user in found.values() if getattr(user, "is_active", True)]
    chosen = {user.pk: user for name in names for user in _meant(name, active)}
    return list(chosen.values())


def _meant(name: str, users: Collection[User]) -> list[User]:
    for reading in readings_of(name):
        exactly = [user for user in users if user.get_username() == reading]
        alike = [user for user in users if user.get_username().casefold() == reading.casefold()]
        if exactly or alike:
            return exactly or alike
    return []
