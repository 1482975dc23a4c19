"""The way in, the same at every door: who comes, by what, how many of them there may be, and into which room."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs

from django.contrib.auth.models import AnonymousUser

from documents.conf import conf
from documents.credentials import Credential
from documents.opening import open_document
from documents.roles import RoleRule
from documents.tickets import redeem_ticket
from history.models import Via
from history.sessions import WriteSession
from history.writes import write_session
from realtime.closing import CloseCode, Closing
from realtime.hub import Hub
from realtime.limits import Seats, address_key
from realtime.members import Member
from realtime.origins import is_same_origin
from realtime.rooms import MakeDoc, Room

M = TypeVar("M", bound=Member)


def take_seat(hub: Hub, seats: Seats, scope: dict[str, Any]) -> None:
    """Count a socket that has just come. Raises: TooManySockets."""
    seats.take("SOCKETS_MAX", None, at_most=conf().sockets_max)
    address = client_address(scope)
    if address is not None:
        seats.take("SOCKETS_PER_ADDRESS_MAX", address_key(address), at_most=conf().sockets_per_address_max)


async def enter(
    hub: Hub,
    scope: dict[str, Any],
    room_name: str,
    *,
    via: Via,
    seats: Seats,
    make_doc: MakeDoc,
    make_member: Callable[[Room, Any, WriteSession], M],
    ticket: str | None = None,
    rule: RoleRule | None = None,
) -> M:
    """Admit whoever comes to a room, within AUTHENTICATE_SECONDS, and greet them as the member that is made of them.

    `ticket` counts for more than one in the query, and that for more than a cookie. `rule` is asked instead of
    ROLE_FOR, now and whenever the right of this socket is looked at again.
    Raises: NotSignedIn, NoSuchDocument, TicketInvalid, TicketExpired, TooManySockets, Closing, HistoryError."""
    async with in_time():
        began = hub.now()
        user, session = await hub.load(read_admission, scope, room_name, via, ticket, rule)
        if session.user is not None:
            seats.take("SOCKETS_PER_USER_MAX", session.user.pk, at_most=conf().sockets_per_user_max)
        seats.take("SOCKETS_PER_DOCUMENT_MAX", session.document_id, at_most=conf().sockets_per_document_max)
        room = await hub.open(session.document_id, make_doc)
    member = make_member(room, user, session)
    member.greet()
    hub.rechecks.entered(member, since=began)
    hub.openings.offer(session)
    return member


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raises: Closing where whoever comes is not let in within AUTHENTICATE_SECONDS."""
    try:
        async with asyncio.timeout(conf().authenticate_seconds or None):
            yield
    except TimeoutError:
        raise Closing(CloseCode.TRY_AGAIN, "the database is slow; AUTHENTICATE_SECONDS are over") from None


def read_admission(
    scope: dict[str, Any], room_name: str, via: Via, ticket: str | None, rule: RoleRule | None = None
) -> tuple[Any, WriteSession]:
    """Who comes, and the session under which they write. Reads the database. Raises: as `enter`, of who may come."""
    user, credential = user_of(scope, room_name, ticket=ticket)
    opened = open_document(user, room_name, credential=credential, rule=rule)
    headers = dict(scope["headers"])
    return user, write_session(
        opened.document,
        actor=user,
        credential=credential,
        admission=opened.admission,
        rule=rule,
        via=via,
        ip=client_address(scope),
        user_agent=headers.get(b"user-agent", b"").decode("latin-1"),
    )


def client_address(scope: dict[str, Any]) -> str | None:
    """The address that the connection came from; a Unix socket has none."""
    client = scope.get("client")
    return client[0] if client and client[0] else None


def query_of(scope: dict[str, Any]) -> dict[str, list[str]]:
    """What the address that a socket was opened at asks for."""
    return parse_qs(scope.get("query_string", b"").decode("latin-1"))


def user_of(scope: dict[str, Any], room_name: str, *, ticket: str | None = None) -> tuple[Any, Credential]:
    """Who asks for the room, and by what: a ticket counts for more than a cookie. Reads the database.

    Raises: TicketInvalid, TicketExpired, Closing."""
    ticket = ticket or query_of(scope).get("ticket", [""])[0]
    if ticket:
        user = redeem_ticket(ticket, room_name)
        return user, Credential.by_password(user)
    return user_by_cookie(scope)


def user_by_cookie(scope: dict[str, Any]) -> tuple[Any, Credential]:
    """Who is signed in by the session of the page that opened the socket; AnonymousUser where nobody is.

    Raises: Closing for a page of another origin."""
    user = scope.get("user") or AnonymousUser()
    if user.is_authenticated and not is_same_origin(scope):
        raise Closing(CloseCode.NOT_ALLOWED, "this page's origin may not use your session")
    return user, Credential.by_session(user, scope.get("session"))
