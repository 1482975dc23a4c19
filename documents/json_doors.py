"""What every JSON address of every floor does alike: the form of a refusal, its CSRF check, the size of a request."""

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware

REQUEST_BYTES_MAX = 4096
"""Bytes of a request's body."""


def error_response(status: HTTPStatus, code: str, message: str) -> JsonResponse:
    """`{"error": {"code", "message"}}`; `message` says what to do."""
    return JsonResponse({"error": {"code": code, "message": message}}, status=status)


class _JsonCsrf(CsrfViewMiddleware):
    """Django's own check, answering in JSON."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return error_response(HTTPStatus.FORBIDDEN, "csrf", f"CSRF verification failed: {reason}")


def csrf_refusal(request: HttpRequest) -> HttpResponse | None:
    """Django's CSRF check, answered in JSON; None when it passes."""
    check = _JsonCsrf(lambda _: HttpResponse())
    check.process_request(request)
    return check.process_view(request, None, (), {})  # type: ignore[arg-type]  # the view is asked for exemption only
