"""Tickets: short-lived signed rights to connect, for front ends that cannot send the session cookie.

A ticket names one user and one document, serves until it expires, however often the network drops, and dies with the
password it was issued under. It says who connects; what they may do is asked of `role_for` at each connection."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_backends
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.utils import timezone

from documents.conf import conf
from documents.credentials import is_stamp_of, password_stamp
from documents.models import Document
from documents.roles import User

SALT = "documents.tickets.v1"
TICKET_LENGTH_MAX = 1024
"""Characters; a longer text is no ticket and is not looked at."""


class TicketInvalid(Exception):
    """Raised for a ticket that was not issued here, for this document, or under the user's present password."""


class TicketExpired(Exception):
    """Raised for a ticket that was good once: the client may come back with a fresh one."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is handed to the front end: an opaque text, and when it stops to serve (UTC), in how many seconds."""

    text: str
    expires_at: datetime
    seconds: int


def issue_ticket(user: User, document: Document, *, now: datetime | None = None) -> Ticket:
    """Sign a ticket for `user`, or for whoever holds it where the user is anonymous.

    Asks for no right: the caller has opened the document for this user. It serves for TICKET_SECONDS."""
    seconds = conf().ticket_seconds
    expires_at = (now or timezone.now()).astimezone(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    claims: dict[str, Any] = {"document": document.key.hex, "expires": int(expires_at.timestamp())}
    if user.is_authenticated:
        claims |= {"user": str(user.pk), "stamp": password_stamp(user.get_session_auth_hash())}
    return Ticket(signing.Signer(salt=SALT).sign_object(claims), expires_at, seconds)


def redeem_ticket(ticket: str, document_name: str, *, now: datetime | None = None) -> User:
    """The user to whom the ticket for this room was issued; AnonymousUser if nobody was signed in.

    Reads the user from the database, as a session would. Raises: TicketInvalid, TicketExpired."""
    claims = _claims(ticket)
    if claims["expires"] <= (now or timezone.now()).timestamp():
        raise TicketExpired
    key = Document.objects.present().filter(name=document_name).values_list("key", flat=True).first()
    if key is None or key.hex != claims["document"]:
        raise TicketInvalid
    if "user" not in claims:
        return AnonymousUser()
    user = _user(claims["user"])
    if user is None or not is_stamp_of(user, claims["stamp"]):
        raise TicketInvalid
    return user


def ticket_expiry(text: str) -> float | None:
    """When a ticket stops to serve, as Unix time; None for a text that was not signed here as one. Whose it is, and
    whether it still holds, is not asked."""
    try:
        return float(_claims(text)["expires"])
    except TicketInvalid:
        return None


def _claims(ticket: str) -> dict[str, Any]:
    if len(ticket) > TICKET_LENGTH_MAX:
        raise TicketInvalid
    try:
        claims: dict[str, Any] = signing.Signer(salt=SALT).unsign_object(ticket)
    except (signing.BadSignature, UnicodeError) as error:
        raise TicketInvalid from error
    return claims


def _user(pk: str) -> User | None:
    # By the backends, as a session is read: they know which accounts are still active.
    for backend in get_backends():
        user = backend.get_user(pk)
        if user is not None:
            return user
    return None
