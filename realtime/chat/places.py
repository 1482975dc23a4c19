"""Which chat a room name leads to, and what somebody may do there.

Where a document has that name its roles hold, also when it is deleted: then nobody comes in. Any other name is that of
a free room, which is not the chat of a document that comes to have the name later."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from django.core.exceptions import ValidationError

from documents.credentials import Credential
from documents.models import Document
from documents.naming import validate_name
from documents.opening import NoSuchDocument, NotSignedIn
from documents.roles import Admission, Applicant, User, admit
from realtime.closing import CloseCode, Closing
from realtime.guests import admit_by_account

MayEnter: TypeAlias = Callable[[User, str], bool]
"""Whether a user may enter the free room of a name."""


@dataclass(frozen=True, slots=True)
class Place:
    """One chat: a document's, or where `document_id` is None a free room's."""

    name: str
    document_id: int | None


def enter_place(user: User, name: str, *, credential: Credential, may_enter: MayEnter) -> tuple[Place, Admission]:
    """Find the chat of a room name, and admit the user to it. Reads the database.

    Raises: NotSignedIn for somebody without an account who may not enter, whether or not there is such a document;
    NoSuchDocument for a signed-in one, and for a name that no room can have."""
    document = document_of(name)
    place = Place(name, None if document is None else document.pk)
    admission = admit_to(place, document, user, credential=credential, may_enter=may_enter)
    if admission.role is None:
        raise NoSuchDocument if user.is_authenticated else NotSignedIn
    return place, admission


def document_of(name: str) -> Document | None:
    """The document of a room name, deleted or not. Raises: NoSuchDocument for a name that no room can have."""
    try:
        validate_name(name)
    except ValidationError:
        raise NoSuchDocument(name) from None  # also keeps NUL characters, which Postgres refuses, out of the query
    return Document.objects.filter(name=name).first()


def admit_to(
    place: Place, document: Document | None, user: User, *, credential: Credential, may_enter: MayEnter
) -> Admission:
    """What the user may do there now. Reads the database. Raises: Closing where the rule fails; what ROLE_FOR does."""
    if document is not None:
        return admit(user, document, credential=credential)
    applicant = Applicant(credential)
    admissions = admit_by_account({applicant: user}, lets_in=lambda user: may_enter(user, place.name))
    if applicant not in admissions:
        raise Closing(CloseCode.TRY_AGAIN, "it cannot be told who may enter")
    return admissions[applicant]


def taken_names(names: Collection[str]) -> set[str]:
    """Of the names of free rooms, those that a document has by now."""
    return set(Document.objects.filter(name__in=names).values_list("name", flat=True))
