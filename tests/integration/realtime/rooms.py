"""Documents with members, what their logs and rooms hold, and appends that wait, for async tests."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from pycrdt import Doc, Text

from documents.models import Document, Membership, Role
from history.crdt.guard import Guard
from history.crdt.updates import MissingDependency
from history.fates import PendingUpdate, Reason, Refused
from history.folds import document_at
from history.models import Head, Refusal, Session, Update
from history.refusals import updates_of
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
def refused_of(document: Document) -> list[tuple[Any, str, list[bytes]]]:
    """(user id, reason, updates) of what was refused and kept."""
    rows = Refusal.objects.filter(document=document).order_by("first_at")
    return [(row.user_id, row.reason, updates_of(row)) for row in rows]


@sync_to_async
def folded_text(document: Document) -> str:
    return str(document_at(document.pk).doc.get("text", type=Text))


def update_that_types(text: str, *, client_id: int) -> bytes:
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.get("text", type=Text).insert(0, text)
    return doc.get_update()


async def empty() -> "Doc[Any]":
    return Doc()


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds of which no event tells. Raises: TimeoutError."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def stored(hub: Hub, document: Document, seq: int) -> None:
    """Wait until the room of the document has taken over the log up to `seq`."""
    await eventually(lambda: hub.rooms[document.pk].seq >= seq)


@sync_to_async
def take_role_by_sql(document: Document, user: Any) -> None:
    """Take a member's role without a word to any process."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM documents_membership WHERE document_id = %s AND user_id = %s", [document.pk, user.pk]
        )


async def restore_backup(document: Document, *, seq: int) -> None:
    """Leave the log as it was at `seq`."""
    row = await Update.objects.aget(document=document, seq=seq)
    await Update.objects.filter(document=document, seq__gt=seq).adelete()
    await Head.objects.filter(document=document).aupdate(seq=seq, hash=row.hash, at=row.at)


async def log_lacks_nothing(document: Document) -> bool:
    """Whether the structs of each row follow what the rows before hold."""
    guard = Guard()
    try:
        for _, _, payload in await rows_of(document):
            guard.commit(guard.check(payload))
    except MissingDependency:
        return False
    return True


class HeldAppend:
    """Takes the place of a hub's append for one batch: the batch waits, and is then appended or meets `reason`."""

    def __init__(self, hub: Hub, reason: Reason | None = None) -> None:
        self.under_way, self.may_go_on = asyncio.Event(), asyncio.Event()
        self._commits, self._append, self._reason = hub.commits, hub.commits._append, reason
        hub.commits._append = self

    async def __call__(self, batch: Sequence[PendingUpdate]) -> Any:
        self._commits._append = self._append
        self.under_way.set()
        await self.may_go_on.wait()
        return await self._append(batch) if self._reason is None else [Refused(self._reason)] * len(batch)
