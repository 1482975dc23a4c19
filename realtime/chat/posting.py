"""A message on its way into a chat.

It is stored under the lock of its room's row: whoever has read up to an id has all that is below it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import connection, transaction

from documents.conf import conf
from documents.models import Access, Document
from documents.opening import NoSuchDocument
from realtime.chat.messages import Said, said_of
from realtime.chat.models import MESSAGE_KEY_LENGTH_MAX, ChatMessage, ChatRoom
from realtime.chat.places import Place, document_of
from realtime.chat.signals import chat_message_stored
from realtime.chat.telling import tell_of_message
from realtime.message_errors import MessageRefused

LIMIT_WAIT = "SELECT set_config('lock_timeout', %s, true)"


@dataclass(frozen=True, slots=True)
class Stored:
    """`is_new` is false for one that was stored before, under the same key of the same author."""

    place: Place
    said: Said
    is_new: bool = True


def send_chat_message(room_name: str, text: str, *, author: Any | None = None) -> Said:
    """Say something in a chat from a view, a task or the shell; inside `atomic()` it is part of the caller's
    transaction, and told on its commit. Whoever calls is trusted: `author` is whom it is shown as from, a user or None.

    Raises: NoSuchDocument for a deleted document and a name that no room can have; MessageRefused for a text that is
    empty or too long."""
    stored = store(room_name, text, author=author)
    transaction.on_commit(partial(tell_of_message, stored.place, stored.said))
    return stored.said


def store(
    room_name: str,
    text: Any,
    *,
    author: Any | None,
    key: Any = "",
    allowed: Callable[[Document | None], None] = lambda document: None,
) -> Stored:
    """Store a message. `allowed` is asked with the room's document, or None; no right on it changes until COMMIT. What
    it raises ends it, and so does what a receiver of the signal raises.

    Raises: NoSuchDocument, MessageRefused, DatabaseError."""
    text, key = checked_text(text), _checked_key(key)
    with transaction.atomic():
        if not connection.savepoint_ids:  # else the transaction is a caller's, whose own limit holds
            with connection.cursor() as cursor:
                cursor.execute(LIMIT_WAIT, [f"{conf().append_lock_timeout_ms}ms"])
        document = _locked_document(room_name)
        allowed(document)
        place = Place(room_name, None if document is None else document.pk)
        room = _locked_room(place)
        known = room.messages.select_related("author").filter(author=author, key=key).first() if key else None
        if known is not None:
            return Stored(place, said_of(known), is_new=False)
        message = ChatMessage.objects.create(room=room, author=author, text=text, key=key)
        before, room.last_id = room.last_id, message.pk
        room.save(update_fields=["last_id"])
        chat_message_stored.send(sender=ChatMessage, room=room_name, message=message, author=author, document=document)
    return Stored(place, said_of(message, before=before))


def checked_text(text: Any) -> str:
    """The text as it is. Raises: MessageRefused."""
    if not isinstance(text, str) or not text.strip():
        raise MessageRefused("empty", "`message` is a text that says something")
    if len(text) > conf().chat_message_length_max:
        raise MessageRefused("too_long", f"a message has at most {conf().chat_message_length_max} characters")
    return _storable(text)


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or len(key) > MESSAGE_KEY_LENGTH_MAX:
        raise MessageRefused("malformed", f"`key` is a text of at most {MESSAGE_KEY_LENGTH_MAX} characters")
    return _storable(key)


def _storable(text: str) -> str:
    """Postgres keeps no NUL, and nothing can send half a character."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise MessageRefused("malformed", "a text has neither NUL nor halves of characters")
    return text


def _locked_document(name: str) -> Document | None:
    document = document_of(name)
    if document is None:
        return None
    # Every change of rights raises this row's version. Free rooms have none: they are not the document's chat.
    Access.objects.select_for_update(no_key=True).filter(document=document).first()
    present = Document.objects.present().filter(pk=document.pk).first()
    if present is None:
        raise NoSuchDocument(name)
    return present


def _locked_room(place: Place) -> ChatRoom:
    kind = {"name": place.name, "document": None} if place.document_id is None else {"document_id": place.document_id}
    room, _ = ChatRoom.objects.select_for_update().get_or_create(**kind)
    return room
