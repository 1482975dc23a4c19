"""Edits from the server's own code, seen live by whoever has the document open."""

from typing import Any

from asgiref.sync import sync_to_async

from documents.models import Document
from documents.opening import NoSuchDocument
from history.fates import Stored
from history.models import Kind, Via
from history.writes import append_update, write_session


async def send_doc_update(
    room_name: str,
    update: bytes,
    *,
    actor: Any | None = None,
    via: Via = Via.API,
    kind: Kind = Kind.EDIT,
    request_key: str | None = None,
) -> Stored | None:
    """Append one Yjs update (v1) to a room's log; then it reaches open editors, exactly once. None: nothing new.

    From sync code: `async_to_sync(send_doc_update)(…)`; inside `atomic()` it is part of the caller's transaction, and
    told on its commit. With `actor`, that user's role decides; without one, the calling code is trusted. The same
    `request_key` is stored once. Raises: NoSuchDocument, UpdateRefused, LogUnavailable, OutcomeUnknown."""
    return await sync_to_async(push, thread_sensitive=True)(
        room_name, update, actor=actor, via=via, kind=kind, request_key=request_key
    )


def push(
    room_name: str,
    update: bytes,
    *,
    actor: Any | None,
    via: Via,
    kind: Kind,
    request_key: str | None,
) -> Stored | None:
    """What `send_doc_update` does, for code that is not async."""
    document = Document.objects.present().filter(name=room_name).first()
    if document is None:
        raise NoSuchDocument(room_name)
    session = write_session(document, actor=actor, via=via)
    return append_update(session, update, kind=kind, request_key=request_key)
