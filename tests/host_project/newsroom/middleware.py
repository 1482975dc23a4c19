"""The host's own layers around HTTP and around WebSockets."""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse

from newsroom.models import Person


def edition(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-Edition"] = "morning"
        return response

    return middleware


class PressCard:
    """Fills `scope["user"]` from a header that the host's own clients send: no session, no cookie."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        card = dict(scope["headers"]).get(b"x-press-card", b"").decode("latin-1")
        await self.app({**scope, "user": await _holder_of(card)}, receive, send)


@database_sync_to_async
def _holder_of(card: str) -> Any:
    person = Person.objects.filter(press_card=card, is_active=True).first() if card else None
    return person or AnonymousUser()
