"""Stored messages as they are shown, and read: by page, or since an id."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import Any

from django.db.models import Q, QuerySet

from history.authors import author_of
from realtime.chat.models import ChatMessage, ChatRoom
from realtime.chat.places import Place
from realtime.frames import TEXT_FRAME, framed


@dataclass(frozen=True)
class Said:
    """A message. `author` is `{user_id, username}`, None for the server's own code, nobody's account and one that is
    gone; `at` is ISO 8601 in UTC. `before` is the id of the last one before it in its room, 0 where nobody asks."""

    id: int
    before: int
    message: str
    author: dict[str, str] | None
    at: str

    def shown(self) -> dict[str, Any]:
        return {"message": self.message, "author": self.author, "at": self.at, "id": self.id}

    @cached_property
    def text(self) -> str:
        """As JSON, made once for all sockets that it is shown to."""
        return json.dumps(self.shown())

    @cached_property
    def frame(self) -> bytes:
        return framed(self.text.encode(), TEXT_FRAME)


@dataclass(frozen=True, slots=True)
class Missed:
    """Messages in the order of their ids; none up to `last_id` is left out."""

    messages: list[Said]
    last_id: int


def said_of(message: ChatMessage, *, before: int = 0) -> Said:
    user = message.author
    author = None if user is None else {"user_id": str(user.pk), "username": author_of(user).name}
    return Said(message.pk, before, message.text, author, message.at.astimezone(UTC).isoformat())


def page(place: Place, *, before: int | None, limit: int) -> tuple[list[Said], int | None]:
    """The last `limit` messages, or those before an id, oldest first; and what to ask before for more of them."""
    older = _messages(place) if before is None else _messages(place).filter(pk__lt=before)
    found = list(older.order_by("-pk")[: limit + 1])
    shown = found[:limit][::-1]
    return [said_of(each) for each in shown], shown[0].pk if len(found) > limit else None


def last_id_of(place: Place) -> int:
    return last_ids([place]).get(place, 0)


def first_of_last(place: Place, *, after: int, limit: int) -> int | None:
    """The id of the first of the last `limit` messages, where there are more behind an id; else None."""
    ids = _messages(place).filter(pk__gt=after).order_by("-pk").values_list("pk", flat=True)[: limit + 1]
    found = list(ids)
    return found[limit - 1] if len(found) > limit else None


def next_missed(place: Place, *, after: int, limit: int) -> Missed:
    """The next `limit` messages behind an id; whoever has not read all asks again."""
    last_id = last_id_of(place)  # first: what is said from here on is told by somebody else
    found = list(_messages(place).filter(pk__gt=after).order_by("pk")[:limit])
    if len(found) == limit:
        last_id = found[-1].pk
    messages = [said_of(each) for each in found]
    return Missed(messages, max([last_id, *(each.id for each in messages)]))


def last_ids(places: Collection[Place]) -> dict[Place, int]:
    """The newest id that there ever was, of all chats in which anything was said."""
    documents = {each.document_id: each for each in places if each.document_id is not None}
    names = {each.name: each for each in places if each.document_id is None}
    rooms = ChatRoom.objects.filter(Q(document_id__in=documents) | Q(document=None, name__in=names))
    rows = rooms.values_list("document_id", "name", "last_id")
    return {names[name] if key is None else documents[key]: last_id for key, name, last_id in rows}


def _messages(place: Place) -> QuerySet[ChatMessage]:
    if place.document_id is None:
        of_place = ChatMessage.objects.filter(room__document=None, room__name=place.name)
    else:
        of_place = ChatMessage.objects.filter(room__document_id=place.document_id)
    return of_place.select_related("author")
