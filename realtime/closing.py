"""Which close code says what. 44xx is permanent, 1013 and 1012 ask the client to come again."""

import logging
import traceback
from enum import IntEnum

from django.db import Error as DatabaseError

from documents.opening import NoSuchDocument, NotSignedIn
from documents.roles import Admission
from documents.tickets import TicketExpired, TicketInvalid
from history.crdt.lib0 import Malformed
from history.crdt.updates import UpdateTooLarge
from history.errors import HistoryError
from realtime.limits import TooManySockets

logger = logging.getLogger(__name__)


class CloseCode(IntEnum):
    """Close codes of every WebSocket door (RFC 6455 7.4.1, and 44xx of our own)."""

    NORMAL = 1000
    UNSUPPORTED = 1003
    MALFORMED = 1008
    TOO_LARGE = 1009
    RESTARTING = 1012
    TRY_AGAIN = 1013
    SIGNED_OUT = 4401
    NOT_ALLOWED = 4403
    NO_SUCH_DOCUMENT = 4404


ENDED_RIGHTS = frozenset({CloseCode.SIGNED_OUT, CloseCode.NOT_ALLOWED})
"""What a socket in its room is closed with when its right has ended: its client never comes again."""


class Closing(Exception):
    """Raised to end one socket with `code`; `reason` is for its client, at most 123 bytes, without content."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def ended_right(admission: Admission) -> Closing | None:
    """What ends the socket of somebody who was found to be allowed this; None where it stays."""
    if not admission.signed_in:
        return Closing(CloseCode.SIGNED_OUT, "you are no longer signed in")
    if admission.role is None:
        return Closing(CloseCode.NOT_ALLOWED, "you may no longer see this document")
    return None


def closing_for(error: BaseException) -> Closing:
    """The one place where an error becomes a close code."""
    match error:
        case Closing():
            return error
        case UpdateTooLarge():
            return Closing(CloseCode.TOO_LARGE, "the update has too many parts")
        case Malformed():
            return Closing(CloseCode.MALFORMED, "malformed message")
        case NotSignedIn():
            return Closing(CloseCode.SIGNED_OUT, "sign in to open this document")
        case NoSuchDocument():
            return Closing(CloseCode.NO_SUCH_DOCUMENT, "there is no such document, or you may not see it")
        case TicketInvalid():
            return Closing(CloseCode.SIGNED_OUT, "the ticket is not valid for this document")
        case TicketExpired():
            return Closing(CloseCode.TRY_AGAIN, "the ticket has expired; come with a fresh one")
        case TooManySockets(limit=limit):
            return Closing(CloseCode.TRY_AGAIN, f"too many sockets: {limit}")
        case HistoryError():
            return Closing(CloseCode.TRY_AGAIN, "the document is not available right now")
        case DatabaseError():
            return Closing(CloseCode.TRY_AGAIN, "the database is not available right now")
        case OSError():
            return Closing(CloseCode.TRY_AGAIN, "the connection was lost")
        case _:
            # Without its message, which may hold content: where it happened is what finds the bug.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("a socket is closed by what nobody foresaw: %s\n%s", type(error).__name__, where)
            return Closing(CloseCode.TRY_AGAIN, "something went wrong; your edits are kept by your editor")
