"""Documents with members, and what their logs and rooms hold, for async tests."""

import asyncio
from typing import Any

from asgiref.sync import sync_to_async
from pycrdt import Doc, Text

from documents.models import Document, Membership, Role
from history.folds import document_at
from history.models import Session, Update
from realtime.hub import Hub
from tests.builders import make_document, make_user


@sync_to_async
def shared_document(**roles: Role) -> tuple[Document, dict[str, Any]]:
    """A document, and its members by name."""
    people = {name: make_user(name) for name in roles}
    document = make_document()
    for name, role in roles.items():
        Membership.objects.create(document=document, user=people[name], role=role)
    return document, people


@sync_to_async
def rows_of(document: Document) -> list[tuple[int, Any, bytes]]:
    """(seq, user id, payload) of every row."""
    authors = dict(Session.objects.filter(document=document).values_list("id", "user_id"))
    rows = Update.objects.filter(document=document).order_by("seq").values_list("seq", "session_id", "payload")
    return [(seq, authors[session_id], bytes(payload)) for seq, session_id, payload in rows]


@sync_to_async
def folded_text(document: Document) -> str:
    return str(document_at(document.pk).doc.get("text", type=Text))


def update_that_types(text: str, *, client_id: int) -> bytes:
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.get("text", type=Text).insert(0, text)
    return doc.get_update()


async def empty() -> "Doc[Any]":
    return Doc()


async def stored(hub: Hub, document: Document, seq: int) -> None:
    """Wait until the room of the document has taken over the log up to `seq`."""
    async with asyncio.timeout(10):
        while hub.rooms[document.pk].seq < seq:
            await asyncio.sleep(0.005)
