"""What all processes are told of chats, always after COMMIT. It may be lost: the watch of each finds what it did not
hear, but for removals."""

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.signals import post_save

from documents.models import Document
from realtime.bus import send_now
from realtime.chat.messages import Said
from realtime.chat.places import Place
from realtime.groups import chat_group


def connect() -> None:
    post_save.connect(_document_saved, sender=Document)


def tell_of_message(place: Place, said: Said) -> None:
    event = {"type": "chat_message", "document": place.document_id, "before": said.before, **said.shown()}
    send_now(chat_group(place.name), event)


def tell_of_removal(place: Place, message_id: int) -> None:
    send_now(chat_group(place.name), {"type": "chat_message_removed", "document": place.document_id, "id": message_id})


def _document_saved(instance: Document, created: bool, **_: Any) -> None:
    """The free room of that name is nobody's any more."""
    if created:
        transaction.on_commit(partial(send_now, chat_group(instance.name), {"type": "chat_room_taken"}))
