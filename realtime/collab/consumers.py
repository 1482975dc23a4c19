"""The door for clients without a CRDT: a JSON room."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_hex
from typing import Any, TypeVar, cast

from pycrdt import Doc

from documents.conf import conf
from history.models import Via
from history.sessions import WriteSession
from realtime.closing import CloseCode, Closing
from realtime.collab.gatherings import Gathering, gathering_of
from realtime.collab.members import CollabMember, EditRefused, timed
from realtime.collab.participants import Participant
from realtime.entrance import enter, query_of
from realtime.groups import collab_group
from realtime.hub import current_hub
from realtime.message_errors import MessageRefused
from realtime.protocols.collab import (
    BadMessage,
    CollabWire,
    Words,
    person,
    read_cursor,
    read_edit,
    read_message,
)
from realtime.rooms import Room
from realtime.served import begins_empty
from realtime.sockets import Socket

R = TypeVar("R")

CLIENT_NAME_LENGTH_MAX = 40
"""Characters of the name that a client gives itself in the query, so that an edit of its keeps its name."""

FIELD_LENGTH_MAX = 200
"""Characters of a field's name in the query."""

RENEWAL_PAUSE_SECONDS = 0.25
"""Of one socket's lease, and colour, nothing is told to Valkey more often."""

_WIRES = {is_brief: CollabWire(is_brief) for is_brief in (False, True)}


class RealtimeCollaborationConsumer(Socket):
    """One socket at `/ws/rooms/<room_id>/`.

    Everything below `To be overridden` may be; `self.handlers` says by `type` which method takes a message of the
    client, and a message of the group calls the method that its `type` names. Query: `field`, `deltas=only`,
    `count=tabs`, `client`."""

    via = Via.JSON

    default_field = "content"
    """The root of the document that clients edit unless they ask for another one."""

    room_name: str
    room_group_name: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.member: CollabMember | None = None
        self.participant: Participant | None = None
        self.handlers: Mapping[str, Callable[[Words], Awaitable[None]]] = {
            "cursor_update": self.handle_cursor_update,
            "document_edit": self.handle_document_edit,
            "presence_heartbeat": self.handle_heartbeat,
        }
        self._socket_id = token_hex(8)
        self._has_begun = False
        self._is_large = False
        self._renewed: Participant | None = None
        self._renewed_at = 0.0
        self._cursor: Words | None = None

    # To be overridden

    def make_room_name(self) -> str:
        """The name of the document whose room this socket asks for."""
        return cast(str, self.scope["url_route"]["kwargs"]["room_id"])

    @begins_empty
    async def make_ydoc(self) -> "Doc[Any]":
        """As of `YjsConsumer`: the document that a room begins with, where this socket is the first in it."""
        return Doc()

    def get_field(self) -> str:
        """The root of the document that this socket edits. Raises: Closing."""
        field = self._asked("field") or self.default_field
        if len(field) > FIELD_LENGTH_MAX:
            raise Closing(CloseCode.MALFORMED, f"a field's name has at most {FIELD_LENGTH_MAX} characters")
        return field

    async def get_participants(self) -> list[Words]:
        """Who is in the room, in all processes: `{user_id, username, color}` each."""
        present = await self._gathering.participants.present()
        return present.told(by_tabs=self._entered.counts_tabs)

    async def update_participants_cache(self, *, is_here: bool = True) -> None:
        """Count this socket in for another PRESENCE_LEASE_SECONDS, or out."""
        participants, participant = self._gathering.participants, self.participant
        if participant is None:
            return
        self._renewed, self._renewed_at = participant, current_hub().now()
        if is_here:
            has_changed = await participants.renew(participant)
        else:
            has_changed = await participants.leave(participant.socket_id)
        if has_changed:
            await self.broadcast_user_count()

    async def broadcast_user_count(self) -> None:
        """Have everyone in the room told how many there are; of many calls at once the last counts."""
        self._gathering.tell_count_soon()

    async def handle_cursor_update(self, data: Words) -> None:
        """Show the others where this socket's cursor is. Raises: BadMessage."""
        cursor = await self._read(read_cursor, data)
        member, participant = self._entered, self.participant
        if participant is not None and participant.color != cursor.color:
            self.participant = Participant(participant.socket_id, participant.identity, cursor.color)
        if self.participant is not self._renewed:
            await self._renew()
        is_under_way = self._cursor is not None
        self._cursor = {**person(member.identity), "position": cursor.position, "color": cursor.color}
        if not is_under_way:
            current_hub().spawn(self._send_cursor(self._gathering))

    async def handle_document_edit(self, data: Words) -> None:
        """Make an edit, and acknowledge it once it is committed. Raises: BadMessage, Closing."""
        edit = await self._read(read_edit, data)
        try:
            seq = await self._entered.edit(edit)
        except EditRefused as refused:
            raise BadMessage(refused.code, refused.message, edit_id=edit.id) from refused
        else:
            self._entered.say({"type": "edit_ack", "id": edit.id, "seq": seq})

    async def handle_heartbeat(self, data: Words) -> None:
        """The client is there still."""
        await self._renew()

    def tell(self, event: dict[str, Any], words: Words) -> None:
        """Tell this socket's client what an event of the group means: encoded once for all who are told it, and left
        out for who is too slow."""
        member = self._entered
        member.deliver_event(member.gathering.told_once(event, words))

    # What the group says

    def has_own(self, name: str) -> bool:
        """As of any socket; what is for the client to say is not for the group, under the client's name."""
        return not name.startswith("handle_") and super().has_own(name)

    async def cursor_broadcast(self, event: dict[str, Any]) -> None:
        """Somebody's cursor."""
        if event.get("socket") != self._socket_id:
            self.tell(event, {"type": "cursor_broadcast", "cursor": event["cursor"]})

    async def user_count(self, event: dict[str, Any]) -> None:
        """How many are in the room."""
        people = int(event["user_count"])
        tabs = int(event.get("tabs", people))
        self._gathering.has_told(people, tabs)
        if self._has_begun:
            self._entered.tell_count(people, tabs)

    # The way in and out

    async def enter(self) -> None:
        self.room_name = self.make_room_name()
        self.room_group_name = collab_group(self.room_name)
        self.member = member = await enter(
            current_hub(),
            self.scope,
            self.room_name,
            via=self.via,
            seats=self.seats,
            make_doc=self.make_ydoc,
            make_member=self._member,
        )
        self.participant = Participant(self._socket_id, member.identity)
        member.gathering.enter(self.hear)
        await self.join_group(self.room_group_name)
        await self.update_participants_cache()
        participants = await self.get_participants()
        present = await member.gathering.participants.present()
        count = present.count(by_tabs=member.counts_tabs)
        if not member.is_gone:
            member.say({"type": "connection_established", "participants": participants, "user_count": count})
            await member.begin()
            self._has_begun = True

    def leave(self) -> None:
        if self.member is not None:
            self.member.leave()
            self.member.gathering.exit(self.hear)
            current_hub().spawn(self._go())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one message. What is not understood is answered with an error, and the socket stays."""
        if not self._has_begun:
            return
        if text_data is None:
            raise Closing(CloseCode.UNSUPPORTED, "only text frames are understood here")
        member = self._entered
        size = len(text_data.encode())
        if size > conf().frame_bytes_max:
            raise Closing(CloseCode.TOO_LARGE, "the frame is too large")
        try:
            self._is_large = size > conf().off_loop_bytes
            said = await self._read(read_message, text_data)
            handler = self.handlers.get(said["type"])
            if handler is None:
                raise BadMessage("unknown_type", "there is no message of this type")
            await handler(said)
        except MessageRefused as error:
            member.say({"id": None, **error.shown()})
        await member.outbox.room_for_answers()
        if pause := member.pause(size=size, messages=1):
            await asyncio.sleep(pause)

    async def _read(self, read: Callable[[Any], R], what: Any) -> R:
        """Read the message under way, or what is in it: a large one on a thread, in time that its sender pays for.

        Raises: MessageRefused."""
        if not self._is_large:
            return read(what)
        took: list[float] = []
        try:
            return await current_hub().compute(timed, took, read, what)
        finally:
            self._entered.charge_time(sum(took))

    def _member(self, room: Room, user: Any, session: WriteSession) -> CollabMember:
        client = self._asked("client")[:CLIENT_NAME_LENGTH_MAX]
        if not client.isprintable():  # as the ids of edits: a NUL in the name of one would fail the room's next commit
            raise Closing(CloseCode.MALFORMED, "a client's name has printable characters only")
        return CollabMember(
            room,
            gathering=gathering_of(room, self.room_name),
            field=self.get_field(),
            # Of people without an account nothing else tells the edits apart.
            scope=client if client or session.actor else self._socket_id,
            counts_tabs=self._asked("count") == "tabs",
            user=user,
            session=session,
            wire=_WIRES[self._asked("deltas") == "only"],
            send=self._send_payload,
            writer=self.frame_writer(),
            close=self.close_soon,
        )

    async def _go(self) -> None:
        try:
            await self.update_participants_cache(is_here=False)
        finally:
            self.member = None  # what a socket leaves behind waits for the garbage, and shall not hold its room

    async def _renew(self) -> None:
        """Renew the lease, unless that was done just now: whatever a client sends, Valkey is asked so often."""
        if current_hub().now() - self._renewed_at >= RENEWAL_PAUSE_SECONDS:
            await self.update_participants_cache()

    def _asked(self, name: str) -> str:
        return query_of(self.scope).get(name, [""])[0]

    @property
    def _entered(self) -> CollabMember:
        if self.member is None:
            raise Closing(CloseCode.TRY_AGAIN, "the socket is not in its room yet")
        return self.member

    @property
    def _gathering(self) -> Gathering:
        return self._entered.gathering

    async def _send_payload(self, payload: bytes) -> None:
        await self.send(text_data=payload.decode())

    async def _send_cursor(self, gathering: Gathering) -> None:
        """Tell where the cursor is, and after a pause where it is by then, until it stays."""
        sent: Words | None = None
        while self._cursor is not None and self._cursor is not sent:
            sent = self._cursor
            await gathering.send({"type": "cursor_broadcast", "cursor": sent, "socket": self._socket_id})
            await asyncio.sleep(conf().cursor_pause_seconds)
        self._cursor = None
