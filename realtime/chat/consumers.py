"""The door of chats: `/ws/chat/<room_name>/`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import getattr_static, iscoroutinefunction
from typing import Any, cast

from django.db import Error as DatabaseError
from django.db import transaction

from documents.conf import conf
from documents.credentials import Credential
from documents.models import Document, Role
from documents.roles import Admission, User
from realtime.chat.lobbies import MOVED, ChatGuest, ChatLobby
from realtime.chat.messages import Said, first_of_last, last_id_of, page
from realtime.chat.places import Place, admit_to, enter_place
from realtime.chat.posting import Stored, store
from realtime.chat.telling import tell_of_message
from realtime.closing import CloseCode, Closing, ended_right
from realtime.entrance import query_of, user_of
from realtime.groups import chat_group
from realtime.guest_consumers import GuestConsumer
from realtime.message_errors import MessageRefused

SENDING = ("chat_message", "send_json", "send", "encode_json")
"""Methods through which a message goes; a subclass that overrides none is not asked for each."""


class ChatConsumer(GuestConsumer):
    """One socket in one chat: `{message}` in, `{message, author, at, id}` out, once it is stored.

    A room name that is a document's is that document's chat: its viewers read, its editors write. Override
    `make_room_name`, `may_enter`, `may_write`, `handlers` and what they name, `chat_message`, and all that Channels'
    `JsonWebsocketConsumer` has. Handlers may block: each has a thread, of which there are HANDLER_THREADS."""

    room_name: str
    room_group_name: str
    place: Place
    user: Any
    credential: Credential
    guest: ChatGuest | None

    _sends_by_itself = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, own in vars(cls).items():
            if iscoroutinefunction(own) and not iscoroutinefunction(getattr(super(cls, cls), name, own)):
                raise TypeError(f"{cls.__name__}.{name} is async, and would never run: a ChatConsumer is synchronous.")
        cls._sends_by_itself = any(
            getattr_static(cls, name) is not getattr_static(ChatConsumer, name) for name in SENDING
        )

    # To be overridden

    def make_room_name(self) -> str:
        """The name of the room that this socket asks for."""
        return cast(str, self.scope["url_route"]["kwargs"]["room_name"])

    @classmethod
    def may_enter(cls, user: User, room_name: str) -> bool:
        """Whether a user may enter a free room, one whose name is no document's. Asked on entering, with each message
        and whenever the account changes. Here: whoever is signed in."""
        return bool(user.is_authenticated)

    @classmethod
    def may_write(cls, user: User, room_name: str, role: Role | None) -> bool:
        """Whether somebody who is in may write; `role` is that on the document, None in a free room."""
        return role is None or role >= Role.EDITOR

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        """What does what a client asks, by `type`."""
        return {"chat_message": self.say, "history": self.history}

    def receive_json(self, content: dict[str, Any], **_: Any) -> None:
        """Do what one message asks; one without a type is something said. Raises: MessageRefused, Closing."""
        if self.guest is None:
            raise Closing(CloseCode.TRY_AGAIN, "the socket is not in its room yet")
        handler = self.handlers().get(str(content.get("type", "chat_message")))
        if handler is None:
            raise MessageRefused("unknown_type", "there is no such type of message")
        handler(content)

    def has_own(self, name: str) -> bool:
        is_own = super().has_own(name) and not hasattr(ChatConsumer, name)
        asked_by_clients = {handler.__name__ for handler in self.handlers().values()}
        return name == "chat_message" or (is_own and name not in asked_by_clients)

    def chat_message(self, event: dict[str, Any]) -> None:
        """Send what was said to this client. An event that others sent to the group has neither author nor id."""
        self.send_json(shown_of(event))

    # What clients ask

    def say(self, content: dict[str, Any]) -> None:
        """Store `message`, then tell everyone. With a `key` of the client's own, sent twice it is stored once."""
        author = self.user if self.user.is_authenticated else None
        try:
            stored = store(
                self.room_name,
                content.get("message"),
                author=author,
                key=content.get("key", ""),
                allowed=self._check_right,
            )
        except DatabaseError as error:
            raise MessageRefused("unavailable", "it may not be stored; send it again, under the same key") from error
        if stored.is_new:
            transaction.on_commit(partial(self._tell, stored))
        else:
            self.send_json(stored.said.shown())

    def history(self, content: dict[str, Any]) -> None:
        """Send a page of what was said `before` an id, or last, oldest first; at most `limit` messages."""
        before, limit = content.get("before"), content.get("limit", conf().chat_page_max)
        if type(limit) is not int or limit < 1 or not (before is None or type(before) is int):
            raise MessageRefused("malformed", "`before` is an id or null, `limit` a number above 0")
        before = None if before is None else max(0, min(before, 2**63 - 1))
        messages, next_before = page(self.place, before=before, limit=min(limit, conf().chat_page_max))
        self.send_json({"type": "history", "messages": [each.shown() for each in messages], "before": next_before})

    # The way in

    @classmethod
    def messages_rate(cls) -> tuple[float, int]:
        return conf().chat_messages_per_second, conf().chat_messages_burst

    def enter(self) -> None:
        """Admit the user, and send what was said `after` the id that the address names."""
        began = self._loop.time()
        self.room_name = self.make_room_name()
        self.room_group_name = chat_group(self.room_name)
        self.user, self.credential = user_of(self.scope, self.room_name)
        self.place, admission = enter_place(
            self.user, self.room_name, credential=self.credential, may_enter=self.may_enter
        )
        lobby = self.on_loop(self._find_lobby())
        try:
            # After the group was joined: what is said from here on is heard.
            start = self._start()
            self.on_loop(self._stand(lobby, admission, start, since=began))
        finally:
            self.soon(self.hub.guests.entered, lobby.key)

    async def _find_lobby(self) -> ChatLobby:
        self.check_open()
        if self.user.is_authenticated:
            self.seats.take("SOCKETS_PER_USER_MAX", self.user.pk, at_most=conf().sockets_per_user_max)
        self.seats.take("SOCKETS_PER_DOCUMENT_MAX", self.place, at_most=conf().sockets_per_document_max)
        key = type(self), self.place
        lobby = await self.hub.guests.enter(
            key, lambda: ChatLobby(self.hub, key, place=self.place, may_enter=self.may_enter)
        )
        return cast(ChatLobby, lobby)

    def _start(self) -> "_Start":
        last_id = last_id_of(self.place)
        text = query_of(self.scope).get("after", [""])[0]
        if not text:
            return _Start(last_id, last_id)
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Closing(CloseCode.MALFORMED, "`after` is the id of a message")
        first = first_of_last(self.place, after=int(text), limit=max(conf().chat_missed_max, 1))
        return _Start(min(int(text), last_id), last_id) if first is None else _Start(first - 1, last_id, first)

    async def _stand(self, lobby: ChatLobby, admission: Admission, start: "_Start", *, since: float) -> None:
        self.check_open()
        self.guest = ChatGuest(
            lobby,
            self,
            seen=start.seen,
            user=self.user,
            credential=self.credential,
            admission=admission,
            close=self.close_soon,
            written=self.outgoing.written,
        )
        if start.gap_before is not None:
            self.tell({"type": "gap", "before": start.gap_before})
        self.guest.greet(since=since)
        lobby.last_id = max(lobby.last_id, start.last_id)
        if lobby.last_id > start.seen:
            self.guest.fall_behind()

    # What is said

    def deliver(self, said: Said) -> None:
        """Send a message; on the event loop, which no handler holds up unless a subclass has its own."""
        if self._sends_by_itself:
            self.handle_event({"type": "chat_message", **said.shown()})
        else:
            self.outgoing.offer({"type": "websocket.send", "text": said.text}, frame=said.frame)

    def _tell(self, stored: Stored) -> None:
        """Everyone here first, whatever the channel layer is at."""
        if self.guest is not None:
            self.soon(self.guest.room.show, stored.said)
        tell_of_message(stored.place, stored.said)

    def _check_right(self, document: Document | None) -> None:
        if (None if document is None else document.pk) != self.place.document_id:
            raise Closing(CloseCode.TRY_AGAIN, MOVED)
        admission = admit_to(self.place, document, self.user, credential=self.credential, may_enter=self.may_enter)
        closing = ended_right(admission)
        if closing is not None:
            raise closing
        if not self.may_write(self.user, self.room_name, None if document is None else admission.role):
            raise MessageRefused("read_only", "you may read here, and not write")


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a socket begins: behind the id that it has `seen`, or at `gap_before` where it missed more than it is sent
    by itself. `last_id` is the chat's."""

    seen: int
    last_id: int
    gap_before: int | None = None


def shown_of(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event.get(name) for name in ("message", "author", "at", "id")}
