"""The page of one's notifications: what there was to tell, newest first, and what of it was read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from documents.models import Document
from documents.roles import role_for
from realtime.notifications.changes import mark_read
from realtime.notifications.models import Notification
from realtime.notifications.sending import say_that_some_were_read

NOTIFICATIONS_PER_PAGE = 50

TEXT_LENGTH_MAX = 500
"""Characters of one line."""

SENTENCES = {
    "shared": "{by} made you {role} of “{title}”.",
    "role_changed": "{by} made you {role} of “{title}”; you were {was}.",
    "removed": "{by} took you out of “{title}”.",
    "mentioned": "{by} mentioned you in the chat of “{room}”.",
    "restored": "{by} brought “{title}” back to what it was at {source_seq}.",
}
"""Of what people are told by themselves (`causes`), by kind."""


@dataclass(frozen=True, slots=True)
class Line:
    """One notification in words. `document` is there for who may read it still."""

    notification: Notification
    words: str
    document: Document | None


@require_safe
@never_cache
@login_required
def notification_list(request: HttpRequest) -> HttpResponse:
    mine = Notification.objects.filter(user=request.user.pk).order_by("-id")
    page = Paginator(mine, NOTIFICATIONS_PER_PAGE).get_page(request.GET.get("page"))
    keys = {key for each in page if (key := _document_key(each.message)) is not None}
    found = Document.objects.present().filter(key__in=keys)
    readable = {each.key: each for each in found if role_for(request.user, each) is not None}
    lines = [Line(each, words_of(each.message), _document_of(each.message, readable)) for each in page]
    unread = [each.pk for each in page if each.read_at is None]
    return render(request, "realtime/notifications.html", {"page": page, "lines": lines, "unread": unread})


@require_POST
@never_cache
@login_required
def notification_read(request: HttpRequest) -> HttpResponse:
    """Mark those as read that the page showed (`id`, several)."""
    ids = [int(each) for each in request.POST.getlist("id")[:NOTIFICATIONS_PER_PAGE] if _is_id(each)]
    if mark_read(request.user.pk, ids).newly:
        say_that_some_were_read(request.user.pk)
    return redirect("notification-list")


def words_of(message: Any) -> str:
    """A sentence for what this project tells by itself; what one's own code says as it is: a text, or its `text`."""
    if isinstance(message, dict):
        sentence = SENTENCES.get(str(message.get("kind")))
        if sentence is not None:
            said = {**message, "by": message.get("by") or "The server"}
            if said.get("title"):
                said["room"] = said["title"]
            try:
                return sentence.format_map(said)[:TEXT_LENGTH_MAX]
            except (KeyError, ValueError):
                pass  # somebody's own, of the same kind
        message = message.get("text", message)
    return str(message)[:TEXT_LENGTH_MAX]


def _document_of(message: Any, readable: Mapping[UUID, Document]) -> Document | None:
    key = _document_key(message)
    return None if key is None else readable.get(key)


def _document_key(message: Any) -> UUID | None:
    try:
        return UUID(message["document"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
