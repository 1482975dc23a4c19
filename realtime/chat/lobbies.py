"""One chat in this process: everyone who is in it here, and what they have seen of it.

Each message tells which one it follows. Who has not seen that one reads what they lack, and so does, found by the
watch, who heard nothing: the channel layer may lose, repeat or reorder whatever it likes."""

import asyncio
from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING, Any, cast

from documents.conf import conf
from documents.roles import Admission, Applicant, User
from realtime.bus import is_genuine
from realtime.chat.messages import Missed, Said, last_ids, next_missed
from realtime.chat.places import MayEnter, Place, taken_names
from realtime.closing import CloseCode, Closing
from realtime.groups import chat_group
from realtime.guests import Guest, Lobby, admit_by_account

if TYPE_CHECKING:
    from collections.abc import Mapping

    from realtime.chat.consumers import ChatConsumer
    from realtime.hub import Hub

MISSED_PER_QUERY = 100
"""Messages that are read at a time for those who lack some."""

MOVED = "this room is another one by now; come again"


class ChatGuest(Guest):
    """One socket in one chat. `seen` is the id up to which it has been sent everything.

    While it is behind, because it has just come back or reads slowly, it is shown nothing as it is said: what it lacks
    is read for it page by page, as fast as it takes it."""

    room: "ChatLobby"

    def __init__(self, lobby: "ChatLobby", consumer: "ChatConsumer", *, seen: int, **how: Any) -> None:
        super().__init__(lobby, **how)
        self.consumer = consumer
        self.seen = seen
        self.is_behind = False

    def show(self, said: Said) -> bool:
        """Send a message that is new here; False where there are others before it that this socket lacks."""
        if self.is_behind or said.id <= self.seen:
            return True
        if said.before > self.seen:
            return False
        if self.consumer.is_behind:
            self.fall_behind()
        else:
            self._send(said)
        return True

    def show_missed(self, missed: Missed) -> None:
        for said in missed.messages:
            if self.consumer.is_behind:
                return self.fall_behind()
            self._send(said)
        self.seen = max(self.seen, missed.last_id)

    def fall_behind(self) -> None:
        """Read what this socket lacks for it alone."""
        if not self.is_behind:
            self.is_behind = True
            self.room.hub.spawn(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            while self in self.room.members:
                await self.consumer.caught_up()
                known = self.room.last_id
                missed = await self.room.read_missed(after=self.seen)
                for said in missed.messages:
                    if self.consumer.is_behind:
                        await self.consumer.caught_up()
                    self._send(said)
                self.seen = max(self.seen, missed.last_id)
                # What was said meanwhile was not shown here; what was known before is there, or is no more.
                if len(missed.messages) < MISSED_PER_QUERY and self.room.last_id <= max(known, self.seen):
                    return
        finally:
            self.is_behind = False  # where it ends otherwise, the watch finds that something is missing

    def _send(self, said: Said) -> None:
        if said.id > self.seen:
            self.seen = said.id
            self.consumer.deliver(said)


class ChatLobby(Lobby):
    """All who are in one chat here."""

    members: set[ChatGuest]  # type: ignore[assignment]

    def __init__(self, hub: "Hub", key: Hashable, *, place: Place, may_enter: MayEnter) -> None:
        super().__init__(hub, key, document_id=place.document_id)
        self.place = place
        self.last_id = 0
        """The last message that this process knows of."""
        self._may_enter = may_enter
        self._is_behind = False
        self._is_looking = False

    async def opened(self) -> None:
        await self.hub.groups.join(chat_group(self.place.name), self.hear)

    async def ended(self) -> None:
        await self.hub.groups.leave(chat_group(self.place.name), self.hear)

    def admit_again(self, users: "Mapping[Applicant, User]") -> dict[Applicant, Admission]:
        return admit_by_account(users, lets_in=lambda user: self._may_enter(user, self.place.name))

    def hear(self, event: dict[str, Any]) -> None:
        """Take what was sent to the group of this name: of which there may be a document's chat, and for a moment still
        the free room's of before."""
        match event["type"]:
            case "chat_message" if "id" in event:
                self._hear_message(event)
            case "chat_message_removed" if "id" in event:
                if is_genuine(event) and event["document"] == self.document_id:
                    for guest in self.members:
                        guest.consumer.tell({"type": "chat_message_removed", "id": event["id"]})
            case "chat_room_taken":
                if is_genuine(event):
                    self.hub.spawn(self.look_at_all(self.hub, [self]))
            case _:
                for guest in list(self.members):
                    guest.consumer.handle_event(event)

    def _hear_message(self, event: dict[str, Any]) -> None:
        if not is_genuine(event):
            self.look_soon()  # whoever sent it: the database says what was said
        elif event["document"] == self.document_id:
            self.show(Said(event["id"], event["before"], event["message"], event["author"], event["at"]))

    def show(self, said: Said) -> None:
        """Show a committed message to everyone here."""
        self.last_id = max(self.last_id, said.id)
        for guest in list(self.members):
            if not guest.show(said):
                self.look_soon()

    def look_soon(self) -> None:
        """Read what somebody here lacks; however often this is asked, one at a time and RECHECK_PAUSE_SECONDS apart."""
        self._is_behind = True
        if not self._is_looking:
            self._is_looking = True
            self.hub.spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._is_behind and self.members:
                self._is_behind = False
                await self._catch_up()
                await asyncio.sleep(conf().recheck_pause_seconds)
        finally:
            self._is_looking = False

    async def _catch_up(self) -> None:
        while abreast := self.abreast():
            after = min(guest.seen for guest in abreast)
            missed = await self.read_missed(after=after)
            for guest in self.abreast():
                if guest.seen >= after:  # else it came meanwhile, and lacks what is before this
                    guest.show_missed(missed)
            is_all = len(missed.messages) < MISSED_PER_QUERY
            if is_all and all(guest.seen >= missed.last_id for guest in self.abreast()):
                return

    def abreast(self) -> list[ChatGuest]:
        """Those who are shown what is said as it is said."""
        return [guest for guest in self.members if not guest.is_behind]

    async def read_missed(self, *, after: int) -> Missed:
        """The next messages behind an id. Raises: DatabaseError."""
        missed = await self.hub.load(next_missed, self.place, after=after, limit=MISSED_PER_QUERY)
        self.last_id = max(self.last_id, missed.last_id)
        return missed

    @classmethod
    async def look_at_all(cls, hub: "Hub", lobbies: "Collection[Lobby]") -> None:
        """By the watch: compare with the database. Raises: DatabaseError."""
        chats = [cast(ChatLobby, each) for each in lobbies]
        seen = {guest: guest.seen for chat in chats for guest in chat.members}
        newest = await hub.load(last_ids, [chat.place for chat in chats])
        taken = await hub.load(taken_names, [chat.place.name for chat in chats if chat.document_id is None])
        for chat in chats:
            if chat.document_id is None and chat.place.name in taken:
                chat.close_all(Closing(CloseCode.TRY_AGAIN, MOVED))
                continue
            last_id = newest.get(chat.place, 0)
            for guest in chat.members:
                if seen.get(guest, 0) > last_id:  # a backup was restored: ids are given out anew from there
                    guest.seen = chat.last_id = last_id
            if any(guest.seen < last_id for guest in chat.abreast()):
                chat.look_soon()
