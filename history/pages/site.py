"""The history pages on the site. What one may not see answers 404, what one may only read 403; strangers sign in."""

from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache

from documents.models import Document, Role
from documents.roles import document_for, role_for
from history.models import Via
from history.pages.frame import HISTORY, Frame, answer
from history.pages.table import PAGES


@transaction.non_atomic_requests  # they make their own, for reading in one snapshot and for each act
@never_cache
def history_page(request: HttpRequest, key: UUID, page: str) -> HttpResponseBase:
    wanted = PAGES[page]
    if request.method not in wanted.methods:
        return HttpResponseNotAllowed(wanted.methods)
    try:
        document = document_for(request.user, role=wanted.role, key=key)
    except Http404:
        if request.user.is_authenticated:
            raise
        back_to = request.get_full_path() if request.method != "POST" else _address(HISTORY, key)
        return redirect_to_login(back_to)
    role = role_for(request.user, document) or wanted.role
    return answer(wanted, request, document, _frame(document, role))


def _frame(document: Document, role: Role) -> Frame:
    return Frame(
        template="history/frame.html",
        role=role,
        via=Via.PAGE,
        urls={name: _address(name, document.key) for name in PAGES},
    )


def _address(page: str, key: UUID) -> str:
    return reverse(route_name(page), args=[key])


def route_name(page: str) -> str:
    return "document-history" if page == HISTORY else f"document-history-{page}"


def _route(page: str) -> str:
    return "d/<uuid:key>/history/" if page == HISTORY else f"d/<uuid:key>/history/{page}/"


urlpatterns: list[URLPattern] = [
    path(_route(name), history_page, kwargs={"page": name}, name=route_name(name)) for name in PAGES
]
