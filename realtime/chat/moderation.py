"""Taking back what was said."""

from functools import partial

from django.db import transaction
from django.db.models import QuerySet

from realtime.chat.models import ChatMessage
from realtime.chat.places import Place
from realtime.chat.telling import tell_of_removal


def remove_messages(messages: QuerySet[ChatMessage]) -> int:
    """Remove messages for good, and tell whoever has them on a page; return how many. A client that does not hear of it
    shows them until it is loaded again."""
    with transaction.atomic():
        of_rooms = messages.select_related("room__document").defer("text").order_by("pk")
        found = list(of_rooms.select_for_update(of=["self"]))
        ChatMessage.objects.filter(pk__in=[each.pk for each in found]).delete()
        for message in found:
            document = message.room.document
            place = Place(message.room.name if document is None else document.name, message.room.document_id)
            transaction.on_commit(partial(tell_of_removal, place, message.pk))
    return len(found)
