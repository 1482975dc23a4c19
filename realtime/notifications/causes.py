"""What people are told of by themselves: within the transaction of what happened, so that neither is there without the
other. Nobody is told of what they did, nor of what they may not see; of one cause once, however often it is tried."""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Q

from documents.acts import acted, current_actor
from documents.models import Document, Membership, Role
from documents.roles import User, role_for
from history.authors import author_of
from history.fates import Stored
from history.sessions import WriteSession
from history.signals import restored
from realtime.chat.models import ChatMessage
from realtime.chat.signals import chat_message_stored
from realtime.notifications.mentions import mentioned
from realtime.notifications.sending import notify

OWNERS_TOLD_MAX = 100
"""Of one restore; of more owners those who came first."""


def connect() -> None:
    acted.connect(_acted)
    restored.connect(_restored)
    chat_message_stored.connect(_said)


def _acted(document: Document, act: str, detail: dict[str, Any], **_: Any) -> None:
    acting = current_actor()
    actor = acting.user
    if acting.door == "import":
        return  # what an import brings along was so before
    if act not in ("member_added", "role_changed", "member_removed") or detail.get("account_deleted"):
        return
    member = _account(detail["member"])
    if member is None or _is(member, actor):
        return
    if act == "member_removed":
        if document.deleted_at is None and role_for(member, document) is None:
            _tell([member], "removed", document, by=actor)
    elif role_for(member, document) is not None:
        if act == "role_changed":
            _tell([member], "role_changed", document, by=actor, role=detail["role"], was=detail["was"])
        elif actor is not None or member.pk != document.created_by_id:  # whom the server makes a document for
            _tell([member], "shared", document, by=actor, role=detail["role"])


def _restored(session: WriteSession, stored: Stored, **_: Any) -> None:
    document = Document.objects.get(pk=session.document_id)
    source = session.detail.get("source_seq")
    owners = [user for user in _members(document, Role.OWNER) if role_for(user, document) == Role.OWNER]
    others = [user for user in owners if not _is(user, session.user)]
    key = f"restored:{document.pk}:{stored.epoch}:{stored.seq}"
    _tell(others, "restored", document, by=session.user, request_key=key, seq=stored.seq, source_seq=source)


def _said(room: str, message: ChatMessage, author: User | None, document: Document | None, **_: Any) -> None:
    if document is None:
        among = Q(pk__in=ChatMessage.objects.filter(room=message.room_id, author__isnull=False).values("author"))
    else:
        among = Q(palimpsest_memberships__document=document)
    people = [
        user
        for user in mentioned(message.text, among=among)
        if not _is(user, author) and (document is None or role_for(user, document) is not None)
    ]
    key = f"mentioned:{message.pk}"
    _tell(people, "mentioned", document, by=author, request_key=key, room=room, message=message.pk)


def _members(document: Document, role: Role) -> Iterable[User]:
    memberships = Membership.objects.filter(document=document, role=role).select_related("user").order_by("pk")
    people: dict[Any, User] = {each.user_id: each.user for each in memberships[:OWNERS_TOLD_MAX]}
    if document.created_by is not None:  # who under a rule of one's own is no member
        people.setdefault(document.created_by_id, document.created_by)
    return people.values()


def _tell(
    people: Iterable[User],
    kind: str,
    document: Document | None,
    *,
    by: User | None,
    request_key: str | None = None,
    **detail: Any,
) -> None:
    said = {
        "kind": kind,
        "document": None if document is None else str(document.key),
        "title": None if document is None else document.title,
        "by": None if by is None else author_of(by).name,
        **detail,
    }
    notify([person.pk for person in people], said, request_key=request_key)


def _account(key_as_text: str) -> User | None:
    model = get_user_model()
    try:
        return model._base_manager.filter(pk=key_as_text).first()  # noqa: SLF001  (any user model has it)
    except (ValueError, ValidationError):
        return None


def _is(person: User, actor: User | None) -> bool:
    return actor is not None and person.pk == actor.pk
