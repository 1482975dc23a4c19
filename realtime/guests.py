"""Sockets that are in no room (chat, notifications), and how they end: what lets them in is looked at again exactly as
that of those who are in a room. `rechecks` does it for both, the bus and the watch tell it when.

A guest stands in a lobby: that of a document, whose roles hold there, or one where the account alone counts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError

from documents.credentials import Credential, read_accounts, read_standing
from documents.models import Access, Role
from documents.roles import Admission, Applicant, User
from realtime.closing import CloseCode, Closing, ended_right
from realtime.handler_threads import HandlerThreads

if TYPE_CHECKING:
    from realtime.hub import Hub

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class GuestSession:
    """By what a guest was let in, and what they were last found to be allowed."""

    applicant: Applicant
    admission: Admission

    @property
    def credential(self) -> Credential:
        return self.applicant.credential


class Guest:
    """One socket in one lobby."""

    def __init__(
        self,
        lobby: "Lobby",
        *,
        user: User,
        credential: Credential,
        admission: Admission,
        close: Callable[[Closing], None],
        written: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.room = lobby
        self.user = user
        self.session = GuestSession(Applicant(credential), admission)
        self._close = close
        self._written = written

    def greet(self, *, since: float) -> None:
        """Stand in the lobby. `since`: the hub's time before what let this socket in was read. Raises: Closing."""
        if self.room.closed:
            raise Closing(CloseCode.TRY_AGAIN, "not right now")
        self.room.members.add(self)
        self.room.hub.rechecks.entered(self, since=since)

    def leave(self) -> None:
        """Twice is once."""
        if self in self.room.members:
            self.room.members.discard(self)
            self.room.hub.guests.left(self.room)

    async def written(self) -> None:
        """Wait until nothing waits to be sent."""
        if self._written is not None:
            await self._written()

    def close(self, closing: Closing) -> None:
        """From this moment on the socket is told nothing, whenever its client takes the close."""
        self.leave()
        self._close(closing)

    def readmit(self, admission: Admission) -> None:
        """Take over what the user may do now; without any right the socket is closed."""
        self.session.admission = admission
        closing = ended_right(admission)
        if closing is not None:
            self.close(closing)


class Lobby:
    """Guests of one place in this process. Without a `document_id` the account alone lets them in."""

    def __init__(self, hub: "Hub", key: Hashable, *, document_id: int | None = None) -> None:
        self.hub = hub
        self.key = key
        self.document_id = document_id
        self.members: set[Guest] = set()
        self.closed = False
        self.opened_at = hub.now()
        self.rights_told_at = 0.0

    async def opened(self) -> None:
        """Called once, before the first guest stands here: listen to whatever tells of this place."""

    async def ended(self) -> None:
        """Called once, when the last guest has gone: listen no more."""

    def admit_again(self, users: Mapping[Applicant, User]) -> dict[Applicant, Admission]:
        """What these people may do now, where no document says it. Reads the database."""
        return admit_by_account(users)

    @classmethod
    async def look_at_all(cls, hub: "Hub", lobbies: "Collection[Lobby]") -> None:
        """By the watch: compare all lobbies of this kind with the database, each with what it shows."""

    def close_all(self, closing: Closing) -> None:
        for guest in list(self.members):
            guest.close(closing)


class Guests:
    """All lobbies of this process. Lives on the event loop."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._lobbies: dict[Hashable, Lobby] = {}
        self._opening: dict[Hashable, asyncio.Task[None]] = {}
        self._entering: dict[Hashable, int] = {}
        self._threads: dict[type, HandlerThreads] = {}

    def __iter__(self) -> Iterator[Lobby]:
        return iter(list(self._lobbies.values()))

    def of_document(self, document_id: int) -> list[Lobby]:
        return [each for each in self._lobbies.values() if each.document_id == document_id]

    def threads_of(self, kind: type) -> HandlerThreads:
        """The handlers' threads of one class of synchronous consumers: another class has its own."""
        return self._threads.setdefault(kind, HandlerThreads())

    async def enter(self, key: Hashable, make: Callable[[], Lobby]) -> Lobby:
        """The lobby of that key, made and opened if nobody stands there yet. The caller calls `entered` when its guest
        does, or will not any more."""
        if self._hub.draining:
            raise Closing(CloseCode.RESTARTING, "the server is restarting")
        self._entering[key] = self._entering.get(key, 0) + 1
        try:
            if key not in self._lobbies:
                lobby = self._lobbies[key] = make()
                self._opening[key] = asyncio.create_task(self._open(lobby))
            lobby = self._lobbies[key]
            if key in self._opening:
                await asyncio.shield(self._opening[key])
        except BaseException:
            self.entered(key)
            raise
        return lobby

    def entered(self, key: Hashable) -> None:
        """Whoever was on the way in is there, or has given up."""
        self._entering[key] -= 1
        if not self._entering[key]:
            del self._entering[key]
            self._end_if_empty(self._lobbies[key])

    def left(self, lobby: Lobby) -> None:
        self._end_if_empty(lobby)

    async def stop(self, *, seconds_max: float) -> None:
        await asyncio.gather(*(each.stop(seconds_max=seconds_max) for each in self._threads.values()))

    async def check(self) -> None:
        """By the watch: look at those whose document's rights are not what they were. Raises: DatabaseError."""
        ids = {each.document_id for each in self if each.document_id is not None}
        versions = await self._hub.load(_access_versions, ids) if ids else {}
        kinds: dict[type[Lobby], list[Lobby]] = {}
        for lobby in self:
            if lobby.document_id in ids and lobby.document_id not in versions:
                lobby.close_all(Closing(CloseCode.NO_SUCH_DOCUMENT, "there is no such document"))
                continue
            kinds.setdefault(type(lobby), []).append(lobby)
            version = versions.get(lobby.document_id or 0)
            if version is not None and any(each.session.admission.access_version != version for each in lobby.members):
                self._hub.rechecks.look_at_room_soon(lobby)
        for kind, lobbies in kinds.items():
            await kind.look_at_all(self._hub, lobbies)

    async def _open(self, lobby: Lobby) -> None:
        try:
            if lobby.document_id is not None:
                await self._hub.bus.subscribe(lobby.document_id)
            await lobby.opened()
        finally:
            del self._opening[lobby.key]

    def _end_if_empty(self, lobby: Lobby) -> None:
        is_needed = lobby.members or lobby.key in self._entering
        if not is_needed and self._lobbies.get(lobby.key) is lobby:
            del self._lobbies[lobby.key]
            lobby.closed = True
            self._hub.spawn(self._end(lobby))

    async def _end(self, lobby: Lobby) -> None:
        await lobby.ended()
        if lobby.document_id is not None:
            await self._hub.bus.unsubscribe(lobby.document_id)


def admit_by_account(
    users: Mapping[Applicant, User], *, lets_in: Callable[[User], bool] = lambda user: bool(user.is_authenticated)
) -> dict[Applicant, Admission]:
    """Let in whoever has an account and is signed in, or those whom `lets_in` takes; an account is read anew for it.

    Nobody is nobody: AnonymousUser, whatever came with the socket. Those for whom `lets_in` fails are left out: what
    they may do is not known. Reads the database. Raises: DatabaseError."""
    credentials = {each.credential for each in users}
    accounts, standing = read_accounts(credentials), read_standing(credentials, accounts=False)
    admissions: dict[Applicant, Admission] = {}
    for applicant in users:
        credential = applicant.credential
        account = accounts.get(credential.user_key)
        stamp = None if account is None else account.stamp
        is_known = account is not None and account.lets_in(credential) and standing.has_session(credential)
        if credential.user_key is not None and not is_known:
            admissions[applicant] = Admission(None, 0, stamp, signed_in=False)
            continue
        try:
            allowed = lets_in(AnonymousUser() if account is None else account.user)
        except DatabaseError:
            raise
        except Exception:  # a host's rule may fail for one: the others are asked all the same
            logger.exception("it cannot be read who is let in")
            continue
        is_signed_in = allowed or credential.user_key is not None
        admissions[applicant] = Admission(Role.EDITOR if allowed else None, 0, stamp, signed_in=is_signed_in)
    return admissions


def _access_versions(document_ids: Collection[int]) -> dict[int, int]:
    return dict(Access.objects.filter(document_id__in=document_ids).values_list("document_id", "version"))
