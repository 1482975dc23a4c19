"""Who may still be here: looks again at the rights, accounts and sessions of everyone in this process's rooms.

However many reasons there are, each room and the accounts are looked at by one at a time, RECHECK_PAUSE_SECONDS apart
at least; all that comes meanwhile is one further look. The watch comes here too, so that no message has to."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from documents.conf import conf
from documents.credentials import Credential, has_ended_elsewhere, read_standing, sessions_are_in_database
from documents.models import Document
from documents.roles import Admission, Applicant, admit_again
from realtime.guests import Guest, Lobby
from realtime.rooms import Room

if TYPE_CHECKING:
    from realtime.hub import Hub
    from realtime.members import Member

Place: TypeAlias = Room | Lobby

EVERYONE = ""
"""Instead of a user's key: no more is known than that some accounts have changed."""

ACCOUNTS_NAMED_MAX = 100
"""Accounts that wait to be looked at by name; where there are more, everyone is looked at."""


class Rechecks:
    """What this process has yet to look at again, and the looks that are under way. Lives on the event loop."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._rooms_due: dict[Place, set[Credential] | None] = {}
        self._rooms_busy: set[Place] = set()
        self._entered: dict[Place, set[Credential]] = {}
        self._accounts_due: set[str] = set()
        self._accounts_busy = False
        self._looked_up_at: dict[Credential, float] = {}
        self._looking_up = False
        self.told_at = 0.0
        """When a message last told that some account had changed."""

    # Of a document

    def entered(self, member: "Member | Guest", *, since: float) -> None:
        """Somebody has come who was admitted after `since`. What was told of meanwhile did not find them here, and of a
        room that was not open nobody was told."""
        room = member.room
        if max(room.opened_at, room.rights_told_at, self.told_at) < since:
            return
        if room not in self._entered:
            self._hub.spawn(self._look_at_entered(room))
        self._entered.setdefault(room, set()).add(member.session.credential)

    async def _look_at_entered(self, room: Place) -> None:
        """All who came while the look before was under way; it keeps no other look waiting."""
        await self.look_at_room(room, self._entered.pop(room))

    def look_at_document_soon(self, document_id: int) -> None:
        """It was told that somebody's right on a document has changed."""
        for room in self._hub.places():
            if room.document_id == document_id:
                room.rights_told_at = self._hub.now()
                self.look_at_room_soon(room)

    def look_at_room_soon(self, room: Place, whom: Iterable[Credential] | None = None) -> None:
        """Ask again what these people may do in a room, everyone where none are named; close or downgrade those who
        may no longer."""
        waiting = self._rooms_due.get(room, set())
        self._rooms_due[room] = None if whom is None or waiting is None else waiting | set(whom)
        if room not in self._rooms_busy:
            self._rooms_busy.add(room)
            self._hub.spawn(self._look_at_room(room))

    async def _look_at_room(self, room: Place) -> None:
        try:
            while room in self._rooms_due and not room.closed:
                await self.look_at_room(room, self._rooms_due.pop(room))
                await asyncio.sleep(conf().recheck_pause_seconds)
        finally:
            self._rooms_busy.discard(room)
            self._rooms_due.pop(room, None)

    async def look_at_room(self, room: Place, whom: Collection[Credential] | None = None) -> None:
        """As `look_at_room_soon`, now. Raises: DatabaseError; the watch looks again then."""
        # Those who are here now: who comes meanwhile is admitted just then.
        here = [each for each in room.members if whom is None or each.session.credential in whom]
        users = {each.session.applicant: each.user for each in here}
        if not users:
            return
        if room.document_id is None:
            admissions = await self._hub.load(room.admit_again, users)
        else:
            admissions = await self._hub.load(_admit_again, users, room.document_id)
        for member in here:
            if member in room.members and member.session.applicant in admissions:
                member.readmit(admissions[member.session.applicant])

    # Of accounts and their sessions

    def look_at_accounts_soon(self, user_key: str) -> None:
        """Look at the sockets of one account (its key as text) or of EVERYONE now, and once more after
        RECHECK_PAUSE_SECONDS: a logout is told of just before its session goes, and the first messages of many for all
        that follow them."""
        self.told_at = self._hub.now()
        self._accounts_due.add(user_key)
        if len(self._accounts_due) > ACCOUNTS_NAMED_MAX:
            self._accounts_due = {EVERYONE}
        if not self._accounts_busy:
            self._accounts_busy = True
            self._hub.spawn(self._look_at_accounts())

    async def _look_at_accounts(self) -> None:
        try:
            seen_once: set[str] = set()
            while self._accounts_due or seen_once:
                due, self._accounts_due = self._accounts_due, set()
                keys, seen_once = due | seen_once, due
                await self._look_at(self._people(None if EVERYONE in keys else keys), named=EVERYONE not in keys)
                await asyncio.sleep(conf().recheck_pause_seconds)
        finally:
            self._accounts_busy = False

    async def check_accounts(self) -> None:
        """By the watch: look at everyone's account and session. Raises: DatabaseError."""
        await self._look_at(self._people(None), named=False)

    def _people(self, keys: Collection[str] | None) -> "dict[Credential, list[Member | Guest]]":
        """Everyone who is not nobody, or those with these keys, by what they came with."""
        people: dict[Credential, list[Member | Guest]] = {}
        for room in self._hub.places():
            for member in room.members:
                credential = member.session.credential
                if credential.user_key is not None and (keys is None or str(credential.user_key) in keys):
                    people.setdefault(credential, []).append(member)
        return people

    async def _look_at(self, people: "dict[Credential, list[Member | Guest]]", *, named: bool) -> None:
        """Those who are named are asked for in full; of the rest the database says whose account or session is not what
        it was, in one query for each kind."""
        if not people:
            return
        standing = None if named else await self._hub.load(read_standing, people.keys())
        stale: dict[Place, set[Credential]] = {}
        for credential, members in people.items():
            for member in members:
                if standing is None or not member.session.admission.holds(credential, standing):
                    stale.setdefault(member.room, set()).add(credential)
        for room, whom in stale.items():
            self.look_at_room_soon(room, whom)
        with_session = {each: people[each] for each in people if each.session_key is not None}
        if with_session and not sessions_are_in_database():
            self._look_up_sessions(with_session, at_once=named)

    # Of sessions that only their engine knows

    def _look_up_sessions(self, people: "dict[Credential, list[Member | Guest]]", *, at_once: bool) -> None:
        """Have sessions looked up in the background: those that are named, else whichever has not been for
        SESSION_CHECK_SECONDS."""
        now = self._hub.now()
        if not at_once:
            self._looked_up_at = {each: self._looked_up_at.get(each, now) for each in people}
        oldest = now - conf().session_check_seconds
        due = [each for each in people if at_once or self._looked_up_at[each] <= oldest]
        if due and (at_once or not self._looking_up):
            self._looking_up = True
            self._looked_up_at |= dict.fromkeys(due, now)
            self._hub.spawn(self._end_sessions({each: people[each] for each in due}))

    async def _end_sessions(self, people: "dict[Credential, list[Member | Guest]]") -> None:
        try:
            ended = await self._hub.load(_ended, list(people))
        finally:
            self._looking_up = False
        for member in (each for credential in ended for each in people[credential]):
            if member in member.room.members:
                member.readmit(replace(member.session.admission, role=None, signed_in=False))


def _admit_again(users: Mapping[Applicant, Any], document_id: int) -> dict[Applicant, Admission]:
    document = Document.objects.filter(pk=document_id).first()
    return {} if document is None else admit_again(users, document)  # a purged document has its room dropped


def _ended(credentials: Collection[Credential]) -> list[Credential]:
    return [each for each in credentials if has_ended_elsewhere(each)]
