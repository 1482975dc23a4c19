"""What every JSON address of every floor does alike: the form of a refusal, its CSRF check, the size of a request."""

import json
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware

REQUEST_BYTES_MAX = 4096
"""Bytes of a request's body."""


def error_response(status: HTTPStatus, code: str, message: str) -> JsonResponse:
    """`{"error": {"code", "message"}}`; `message` says what to do."""
    return JsonResponse({"error": {"code": code, "message": message}}, status=status)


def json_of(request: HttpRequest, *, bytes_max: int = REQUEST_BYTES_MAX) -> Any:
    """The value in a request's body. Raises: ValueError where it is no JSON, or longer than `bytes_max`."""
    # Not `request.body`, which is all that comes where no length was announced, and fails where a form was read.
    body = request.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise ValueError(f"a body of more than {bytes_max} bytes")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("a body that is nested too deep") from None


class _JsonCsrf(CsrfViewMiddleware):
    """Django's own check, answering in JSON."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return error_response(HTTPStatus.FORBIDDEN, "csrf", f"CSRF verification failed: {reason}")


def csrf_refusal(request: HttpRequest) -> HttpResponse | None:
    """Django's CSRF check, answered in JSON; None when it passes."""
    check = _JsonCsrf(lambda _: HttpResponse())
    check.process_request(request)
    return check.process_view(request, None, (), {})  # type: ignore[arg-type]  # the view is asked for exemption only
