"""How a document begins, is found by its room name, is renamed, goes away and comes back.

A room name names at most one document for ever, however many processes open it first at the same moment."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from documents.conf import conf
from documents.credentials import Credential
from documents.models import Document, DocumentQuerySet, Membership, Role
from documents.naming import clean_line, validate_name
from documents.roles import Admission, RoleRule, User, admit

NAME_ENTROPY_BYTES = 12
"""Of a generated room name: 96 bits cannot be guessed, in 16 characters."""
TITLE_LENGTH_MAX = 200
"""Characters of a title."""


class NoSuchDocument(Exception):
    """Raised when there is no document of that name, and identically when the user may not see it."""


class NotSignedIn(Exception):
    """Raised when nobody is signed in and the room is not open to everyone."""


class NameTaken(Exception):
    """Raised when a document of that name exists, even one that is deleted and can still be recovered."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a document of the name {name!r} already.")
        self.name = name


class NotRecoverable(Exception):
    """Raised when a document is not deleted, or was deleted too long ago."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A document, and the right under which it was opened."""

    document: Document
    admission: Admission


def open_document(
    user: User | None, name: str, *, credential: Credential | None = None, rule: RoleRule | None = None
) -> Opened:
    """Find the document that a client asks for by its room name, and admit the user to it, by `rule` where given.

    Under OPEN_ROOMS a missing document is created on first use, with no members. Reads the database at each call.
    Raises: NotSignedIn for an anonymous user (or None) who has no role, whether or not the document exists;
    NoSuchDocument for a signed-in one, and for a name that no room can have."""
    user = user or AnonymousUser()
    with transaction.atomic():  # a room that the rule then keeps the user out of is not created
        document = _present_or_created(name)
        admission = None if document is None else admit(user, document, credential=credential, rule=rule)
        if document is not None and admission is not None and admission.role is not None:
            return Opened(document, admission)
        if user.is_authenticated or not _is_room_name(name):
            raise NoSuchDocument
        raise NotSignedIn


def document_named(name_or_key: str) -> Document:
    """The document that an operator means on the command line, deleted or not. Raises: NoSuchDocument."""
    named = Q(name=name_or_key)
    with suppress(ValueError):
        named |= Q(key=UUID(name_or_key))
    document = Document.objects.filter(named).first()
    if document is None:
        raise NoSuchDocument(f"there is no document of the name or key {name_or_key!r}")
    return document


def _present_or_created(name: str) -> Document | None:
    if not _is_room_name(name):
        return None  # also keeps NUL characters, which Postgres refuses, out of the query
    if not conf().open_rooms:
        return Document.objects.present().filter(name=name).first()
    # The unique name decides between processes: who loses the insert reads the winner's row.
    document, _ = Document.objects.get_or_create(name=name, defaults={"title": name, "open_to_all": True})
    return document if document.deleted_at is None else None


def _is_room_name(name: str) -> bool:
    try:
        validate_name(name)
    except ValidationError:
        return False
    return True


def create_document(user: User, *, title: str, name: str | None = None) -> Document:
    """Create a document that `user` owns; both rows are in one transaction. Without `name` one is generated.

    Raises: ValidationError for a title that is empty or too long or a name that no room can have; NameTaken."""
    document = Document(name=secrets.token_urlsafe(NAME_ENTROPY_BYTES) if name is None else name, created_by=user)
    document.title = clean_title(title)
    validate_name(document.name)
    try:
        with transaction.atomic():
            document.save(force_insert=True)
            Membership.objects.create(document=document, user=user, role=Role.OWNER)
    except IntegrityError as error:
        if Document.objects.filter(name=document.name).exists():
            raise NameTaken(document.name) from error
        raise
    return document


def rename_document(document: Document, *, title: str) -> None:
    """Change the title; the room name stays. Raises: ValidationError for a title that is empty or too long."""
    document.title = clean_title(title)
    document.save(update_fields=["title"])


def clean_title(title: str) -> str:
    """The title in one line. Raises: ValidationError for one that is empty or too long or has control characters."""
    return clean_line(title, what="A title", length_max=TITLE_LENGTH_MAX)


def delete_document(document: Document, *, now: datetime | None = None) -> None:
    """Take the document away from everyone; it can be recovered for DELETED_DOCUMENT_DAYS. Twice is once."""
    with transaction.atomic():
        current = _lock(document)
        if current.deleted_at is None:
            current.deleted_at = now or timezone.now()
            current.save(update_fields=["deleted_at"])
        document.deleted_at = current.deleted_at


def recover_document(document: Document, *, now: datetime | None = None) -> None:
    """Bring a deleted document back, with its members and its history.

    Raises: NotRecoverable if it is not deleted or was deleted more than DELETED_DOCUMENT_DAYS ago."""
    with transaction.atomic():
        current = _lock(document)
        if current.deleted_at is None or current.deleted_at < recoverable_since(now):
            raise NotRecoverable
        current.deleted_at = None
        current.save(update_fields=["deleted_at"])
        document.deleted_at = None


def recoverable_since(now: datetime | None = None) -> datetime:
    """What was deleted before this moment cannot be recovered any more and is purged."""
    return (now or timezone.now()) - timedelta(days=conf().deleted_document_days)


def recoverable_documents(now: datetime | None = None) -> DocumentQuerySet:
    """The deleted documents that can still be recovered, whoever owns them; the last deleted first."""
    return Document.objects.filter(deleted_at__gte=recoverable_since(now)).order_by("-deleted_at")


def _lock(document: Document) -> Document:
    """Read the document anew and hold its row until the transaction ends.

    NO KEY: an append holds the head and asks for KEY SHARE on this row, and whoever holds this row asks for the head
    next (the fence); a full lock would deadlock the two. Raises: NoSuchDocument if it was purged meanwhile."""
    current = Document.objects.select_for_update(no_key=True).filter(pk=document.pk).first()
    if current is None:
        raise NoSuchDocument
    return current
