"""The addresses that programs call: a ticket to connect with, and whether this process can serve.

A ticket is in the answer's body and in no log."""

import logging
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from documents.json_doors import REQUEST_BYTES_MAX, csrf_refusal, error_response, json_of
from documents.models import Document
from documents.naming import socket_path
from documents.opening import NoSuchDocument, NotSignedIn, open_document
from documents.roles import User
from documents.tickets import issue_ticket

logger = logging.getLogger(__name__)


@csrf_exempt  # checked below, so that the refusal is JSON and a project without the middleware is covered too
@never_cache
def ticket_create(request: HttpRequest) -> HttpResponse:
    """POST `{"document": key or room name}` → 201 `{"ticket", "expires_at", "expires_in_seconds", "url"}`.

    400 malformed, 401 not signed in, 403 CSRF, 404 for what does not exist or may not be seen, 405."""
    if request.method != "POST":
        refused = error_response(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Use POST.")
        refused["Allow"] = "POST"
        return refused
    # Only a session rides on a cookie: for an anonymous request there is nothing to forge.
    if request.user.is_authenticated and (refusal := csrf_refusal(request)) is not None:
        return refusal
    asked_for = _document_asked_for(request)
    if asked_for is None:
        message = f'Send at most {REQUEST_BYTES_MAX} bytes of JSON: {{"document": "<key or room name>"}}.'
        return error_response(HTTPStatus.BAD_REQUEST, "malformed", message)
    try:
        document = open_document(request.user, _room_name(asked_for)).document
    except NotSignedIn:
        return error_response(HTTPStatus.UNAUTHORIZED, "not_signed_in", "Sign in first.")
    except NoSuchDocument:
        return error_response(HTTPStatus.NOT_FOUND, "not_found", "There is no such document, or you may not see it.")
    return JsonResponse(_ticket(request.user, document), status=HTTPStatus.CREATED)


def _document_asked_for(request: HttpRequest) -> str | None:
    try:
        body = json_of(request)
    except ValueError:
        return None
    asked_for = body.get("document") if isinstance(body, dict) else None
    return asked_for if isinstance(asked_for, str) else None


def _room_name(key_or_name: str) -> str:
    """The name of the document with this key; anything else is a name already."""
    try:
        key = UUID(key_or_name)
    except ValueError:
        return key_or_name
    return Document.objects.filter(key=key).values_list("name", flat=True).first() or key_or_name


def _ticket(user: User, document: Document) -> dict[str, Any]:
    ticket = issue_ticket(user, document)
    return {
        "ticket": ticket.text,
        "expires_at": ticket.expires_at.isoformat().replace("+00:00", "Z"),
        "expires_in_seconds": ticket.seconds,
        "url": socket_path(document.name),
    }


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """200 `ok` when this process reaches the database, else 503."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        logger.warning("healthz: the database cannot be reached", exc_info=True)
        return HttpResponse("database unavailable", status=HTTPStatus.SERVICE_UNAVAILABLE, content_type="text/plain")
    return HttpResponse("ok", content_type="text/plain")
