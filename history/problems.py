"""What went wrong, in words for people and as an HTTP status: the one place where this floor's errors are mapped.

Pages, admin and API catch `PROBLEMS` and answer with `problem_of(error)`; nothing of a document is in the words."""

from dataclasses import dataclass
from http import HTTPStatus

from django.core.exceptions import ValidationError

from documents.opening import NameTaken, NotSignedIn
from history.copies import SourceDamaged, TooLongToCopy
from history.crdt.content import ContentTooDeep
from history.crdt.lib0 import Malformed
from history.crdt.ranges import NoSuchRange
from history.crdt.restoring import NoSuchPiece, RestoreFailed
from history.crdt.undoing import TooManyRows
from history.crdt.updates import MissingDependency
from history.errors import LogHole, LogUnavailable, NoSuchSeq, OutcomeUnknown, UpdateRefused
from history.fates import Reason
from history.heavy_reads import Busy
from history.models import Head
from history.versions import NoSuchVersion, TooManyVersions, VersionLocked, VersionNameTaken


class BadMoment(ValueError):
    """Raised for a seq or a time that cannot be read; the message tells how to write one."""


PROBLEMS = (
    BadMoment,
    Busy,
    ContentTooDeep,
    Head.DoesNotExist,
    LogHole,
    LogUnavailable,
    Malformed,
    MissingDependency,
    NameTaken,
    NoSuchPiece,
    NoSuchRange,
    NoSuchSeq,
    NoSuchVersion,
    NotSignedIn,
    OutcomeUnknown,
    RestoreFailed,
    SourceDamaged,
    TooLongToCopy,
    TooManyRows,
    TooManyVersions,
    UpdateRefused,
    ValidationError,
    VersionLocked,
    VersionNameTaken,
)


RETRY_AFTER_SECONDS = 5
"""When to ask again of a process that was busy."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An HTTP status, a code for programs and a sentence for people; `retry_after_seconds` where it
    passes by itself."""

    status: HTTPStatus
    code: str
    message: str
    retry_after_seconds: int | None = None


def problem_of(error: Exception) -> Problem:
    """Say what an error of `PROBLEMS` means to who asked. Any other error is raised again."""
    match error:
        case BadMoment():
            return Problem(HTTPStatus.BAD_REQUEST, "malformed", str(error))
        case ValidationError():
            return Problem(HTTPStatus.BAD_REQUEST, "malformed", " ".join(error.messages))
        case NotSignedIn():
            return Problem(HTTPStatus.UNAUTHORIZED, "not_signed_in", "Sign in first.")
        case Head.DoesNotExist():  # erased since the gate was passed
            return _refusal(Reason.GONE.value)
        case NameTaken():
            return Problem(HTTPStatus.CONFLICT, "name_taken", "There is a document of that room name already.")
        case TooLongToCopy():
            message = "This history is longer than a copy may bring along. Copy an earlier moment, or without history."
            return Problem(HTTPStatus.CONFLICT, "too_long", message)
        case NoSuchVersion() | VersionNameTaken() | VersionLocked() | TooManyVersions():
            return _of_version(error)
        case NoSuchSeq():
            message = f"There is no moment {error.seq} in the history of this document."
            return Problem(HTTPStatus.NOT_FOUND, "no_such_seq", message)
        case NoSuchPiece() | NoSuchRange():
            return Problem(HTTPStatus.NOT_FOUND, "no_such_piece", f"{str(error)[0].upper()}{str(error)[1:]}.")
        case TooManyRows():
            return Problem(HTTPStatus.CONFLICT, "too_many_updates", f"{str(error)[0].upper()}{str(error)[1:]}.")
        case UpdateRefused():
            return _refusal(error.reason)
        case RestoreFailed():
            message = "That moment could not be restored exactly, so nothing was changed."
            return Problem(HTTPStatus.CONFLICT, "not_restorable", message)
        case ContentTooDeep():
            message = "The content of this moment is nested too deep to be shown."
            return Problem(HTTPStatus.CONFLICT, "too_deep", message)
        case LogHole():
            message = (
                f"Entry {error.seq} of the log is missing, so this cannot be shown. Tell whoever runs this server."
            )
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "log_hole", message)
        case Malformed() | MissingDependency() | SourceDamaged():
            message = "An entry of the log cannot be read, so this cannot be shown. Tell whoever runs this server."
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "log_damaged", message)
        case Busy():
            message = "This server reads as many histories as it can at a time. Try again in a moment."
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", message, RETRY_AFTER_SECONDS)
        case LogUnavailable():
            message = "The log cannot be written now; nothing was changed. Try again in a moment."
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "log_unavailable", message)
        case OutcomeUnknown():
            message = "The connection to the log broke while it was written. Look at the history before you try again."
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "outcome_unknown", message)
        case _:
            raise error


def _of_version(error: NoSuchVersion | VersionNameTaken | VersionLocked | TooManyVersions) -> Problem:
    match error:
        case NoSuchVersion():
            return Problem(HTTPStatus.NOT_FOUND, "no_such_version", "There is no such version of this document.")
        case VersionNameTaken():
            return Problem(HTTPStatus.CONFLICT, "name_taken", "Another version of this document has that name.")
        case VersionLocked():
            return Problem(HTTPStatus.CONFLICT, "locked", "This version is locked. An owner can unlock it.")
        case TooManyVersions():
            message = "This document has as many named versions as it may have. Delete one that nobody needs."
            return Problem(HTTPStatus.CONFLICT, "too_many_versions", message)


def _refusal(reason: str) -> Problem:
    match reason:
        case Reason.NOT_ALLOWED.value:
            return Problem(HTTPStatus.FORBIDDEN, "forbidden", "You may not write to this document.")
        case Reason.GONE.value:
            message = "There is no such document, or you may not see it."
            return Problem(HTTPStatus.NOT_FOUND, "not_found", message)
        case _:
            return Problem(HTTPStatus.CONFLICT, "refused", f"The log did not take it: {reason}.")
