"""People with accounts, and the sessions that a browser of theirs would hold."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore

from documents.models import Document, Membership, Role
from documents.opening import create_document


@dataclass(frozen=True, slots=True)
class Cast:
    """A document with its owner Olga, the editor Ed and the viewer Vic; a stranger has an account and no more.

    `cookies` are request headers and `user_ids` primary keys, by name in small letters."""

    room: str
    document: Document
    cookies: dict[str, dict[str, str]]
    user_ids: dict[str, int]


def a_cast(room: str) -> Cast:
    """Make the document of this room name and its people, all signed in."""
    users = {name: User.objects.create_user(f"{name} of {room}") for name in ("olga", "ed", "vic", "stranger")}
    document = create_document(users["olga"], title="Minutes", name=room)
    Membership.objects.create(document=document, user=users["ed"], role=Role.EDITOR)
    Membership.objects.create(document=document, user=users["vic"], role=Role.VIEWER)
    cookies = {name: cookie_of(user) for name, user in users.items()}
    return Cast(room, document, cookies, {name: user.pk for name, user in users.items()})


def an_editor(cast: Cast, name: str) -> dict[str, str]:
    """Make one more editor, whose account has exactly this name; return the request headers."""
    user = User.objects.create_user(name)
    Membership.objects.create(document=cast.document, user=user, role=Role.EDITOR)
    return cookie_of(user)


def cookie_of(user: User) -> dict[str, str]:
    """The request header that a browser signed in to this account sends."""
    return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session_of(user)}"}


def session_of(user: User) -> str:
    """The key of a new session of somebody who has signed in."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    assert session.session_key is not None
    return session.session_key
