"""The page to write on."""

from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from documents.acts import actor_of
from documents.models import Role
from documents.naming import socket_path
from documents.roles import document_for, role_for
from history.audit.entries import record_opening


@require_safe
@never_cache
def document_page(request: HttpRequest, key: UUID) -> HttpResponse:
    """The plain writing page of one document, for those who may read it."""
    try:
        document = document_for(request.user, key=key)
    except Http404:
        if request.user.is_authenticated:
            raise
        return redirect_to_login(request.get_full_path())
    record_opening(document, actor_of(request, door="page"))
    role = role_for(request.user, document)
    context = {
        "document": document,
        "role": role.name.lower() if role else "viewer",
        "user_name": request.user.get_username() or "Guest",
        "room_url": socket_path(document.name),
        "documents_url": reverse("document-list"),
        "history_url": reverse("document-history", args=[key]),
        "members_url": reverse("document-members", args=[key]) if role == Role.OWNER else None,
    }
    return render(request, "realtime/page.html", context)
