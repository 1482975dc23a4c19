"""The door that every JSON address of this floor stands behind: method, CSRF, role, and each refusal in JSON.

The session cookie says who asks, the gate (`document_for`) what they may. Errors are `{"error": {"code", "message"}}`;
a document that does not exist and one that may not be seen answer alike."""

from collections.abc import Callable
from functools import partial, wraps
from http import HTTPStatus
from typing import Any, TypeAlias
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.views.decorators.csrf import csrf_exempt

from documents.acts import acting, actor_of
from documents.json_doors import csrf_refusal, error_response
from documents.models import Document, Role
from documents.roles import NO_SUCH_DOCUMENT, document_for, gone_is_404
from history.audit.entries import record_opening
from history.authors import Author
from history.problems import PROBLEMS, problem_of

View: TypeAlias = Callable[..., HttpResponseBase]
"""`(request, document, **what the address names besides)`"""

Door: TypeAlias = Callable[..., HttpResponseBase]
"""`(request, key, **what the address names besides)`: what stands in urls.py."""


def door(*, method: str, role: Role | None) -> Callable[[View], Door]:
    """Check method, CSRF and role, hand the document on, and answer every refusal and problem in JSON.

    Without a role the view says itself who may ask; it is handed deleted documents too."""

    def wrap(view: View) -> Door:
        @transaction.non_atomic_requests  # a host's transaction would not read the past in one snapshot
        @csrf_exempt  # checked below, so that the refusal is JSON
        @wraps(view)
        def checked(request: HttpRequest, key: UUID, **where: Any) -> HttpResponseBase:
            if not _is_method(request, method):
                return _private(_not_allowed([method]))
            refused = csrf_refusal(request) if method != "GET" else None
            return _private(refused or _answered(partial(view, **where), request, key, role))

        return checked

    return wrap


def by_method(**doors: Door) -> Door:
    """One address with a door for each method: `by_method(GET=…, POST=…)`."""

    @transaction.non_atomic_requests
    @csrf_exempt  # checked behind each door
    def chosen(request: HttpRequest, key: UUID, **where: Any) -> HttpResponseBase:
        for method, behind in doors.items():
            if _is_method(request, method):
                return behind(request, key, **where)
        return _private(_not_allowed(list(doors)))

    return chosen


def author_name(author: Author | None) -> str | None:
    """The user name; null for acts of no account."""
    return author.name if author is not None and author.is_known else None


def _is_method(request: HttpRequest, method: str) -> bool:
    return request.method == method or (method == "GET" and request.method == "HEAD")


def _not_allowed(methods: list[str]) -> HttpResponse:
    named = ", ".join(methods)
    refused = error_response(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", f"Use {named}.")
    refused["Allow"] = named
    return refused


def _private(response: HttpResponseBase) -> HttpResponseBase:
    patch_cache_control(response, private=True, no_cache=True)
    patch_vary_headers(response, ["Cookie"])
    return response


def _answered(view: View, request: HttpRequest, key: UUID, role: Role | None) -> HttpResponseBase:
    try:
        with acting(actor_of(request, door="api")):
            document = _document(request, key, role)
            with gone_is_404(document):
                return view(request, document)
    except Http404 as error:
        if not request.user.is_authenticated:
            return error_response(HTTPStatus.UNAUTHORIZED, "not_signed_in", "Sign in first.")
        return error_response(HTTPStatus.NOT_FOUND, "not_found", str(error))
    except PermissionDenied as error:
        return error_response(HTTPStatus.FORBIDDEN, "forbidden", str(error))
    except PROBLEMS as error:
        problem = problem_of(error)
        refused = error_response(problem.status, problem.code, problem.message)
        if problem.retry_after_seconds is not None:
            refused["Retry-After"] = str(problem.retry_after_seconds)
        return refused


def _document(request: HttpRequest, key: UUID, role: Role | None) -> Document:
    if role is not None:
        document = document_for(request.user, role=role, key=key)
        if _is_method(request, "GET"):
            record_opening(document)
        return document
    found = Document.objects.filter(key=key).first()
    if found is None or not request.user.is_authenticated:
        raise Http404(NO_SUCH_DOCUMENT)
    return found
