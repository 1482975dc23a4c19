"""How an imported document begins: its name, its owner, and the mark by which it is known again.

It is made in the transaction that brings all of its rows: nobody saw it empty, no manifest has it, and times before
its making contradict nothing."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from documents.models import Document, Membership, Role
from documents.naming import validate_name
from documents.opening import NameTaken, clean_title
from documents.roles import User
from history.imports.sources import SourceDocument
from history.models import Head, Request

NOBODY = ""


class NotImported(Exception):
    """Raised where a document is not imported; nothing of it is stored."""


class AlreadyThere(Exception):
    """Raised where a document was imported before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of an import. `renamed` is by the name in the source; the others get `prefix` before theirs."""

    owner: User | None = None
    open_to_all: bool = False
    prefix: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    skip_bad: bool = False

    def name_of(self, name: str) -> str:
        """The room name of what has this name in its source. Raises: NotImported."""
        wanted = self.renamed.get(name, self.prefix + name)
        try:
            validate_name(wanted)
        except ValidationError as error:
            raise NotImported(
                f"it cannot be a room's name. {error.messages[0]} Give it another one: --rename"
            ) from error
        return wanted


def begin(document: Document, wanted: Wanted) -> Document:
    """Save a new document, owned and open as wanted. Raises: NameTaken, NotImported."""
    document.title = document.title or document.name
    try:
        document.title = clean_title(document.title)
    except ValidationError as error:
        raise NotImported(error.messages[0]) from error
    document.created_by = wanted.owner
    document.open_to_all = wanted.open_to_all
    try:
        with transaction.atomic():
            document.save(force_insert=True)
    except IntegrityError as error:
        raise NameTaken(document.name) from error
    if wanted.owner is not None:
        Membership.objects.create(document=document, user=wanted.owner, role=Role.OWNER)
    return document


def mark(document: Document, kind: str, source: SourceDocument) -> None:
    """Remember what the document was imported from, among its requests: once it is there, it is."""
    seq = Head.objects.values_list("seq", flat=True).get(document=document)
    Request.objects.create(document=document, actor=NOBODY, key=_mark(kind, source), seq=seq)


def taken(name: str, kind: str, source: SourceDocument) -> AlreadyThere | NotImported | None:
    """What to say of a document that has the name already; None where none has."""
    document = Document.objects.filter(name=name).first()
    if document is None:
        return None
    marks = Request.objects.filter(document=document, actor=NOBODY, key__startswith=_mark_of_name(kind, source))
    found = marks.values_list("key", flat=True).first()
    if found == _mark(kind, source):
        return AlreadyThere("deleted since" if document.deleted_at else "")
    if found is not None:
        return NotImported(
            "it was imported before, and the source has changed since: import it under another name (--rename, "
            "--prefix), or delete the document for good first"
        )
    return NotImported("there is another document of that name: give this one another (--rename, --prefix)")


def _mark_of_name(kind: str, source: SourceDocument) -> str:
    return f"import of {kind} {_short_digest(source.name)} "


def _mark(kind: str, source: SourceDocument) -> str:
    return _mark_of_name(kind, source) + _short_digest(source.state)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
