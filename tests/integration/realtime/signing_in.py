"""People who sign in at the real door, and whose sockets come with the cookie that they got there."""

from dataclasses import dataclass
from typing import Any, cast

from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.urls import reverse

from documents.models import Document
from realtime.consumers import YjsConsumer
from tests.integration.realtime.sockets import Socket

PASSWORD = "correct horse"


class BySession:
    """The door as `config.asgi` mounts it: the user is whoever the cookie's session says."""

    @staticmethod
    def as_asgi() -> Any:
        stack = AuthMiddlewareStack(YjsConsumer.as_asgi())

        async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await stack({key: value for key, value in scope.items() if key != "user"}, receive, send)

        return application


@dataclass(frozen=True, slots=True)
class SignedIn:
    """One person at one browser."""

    user: Any
    browser: Client

    @property
    def session_key(self) -> str:
        return self.browser.cookies[settings.SESSION_COOKIE_NAME].value

    def socket(self, document: Document) -> Socket:
        cookie = f"{settings.SESSION_COOKIE_NAME}={self.session_key}".encode()
        return Socket(document.name, consumer=cast("type[YjsConsumer]", BySession), headers=[(b"cookie", cookie)])

    def sign_out(self) -> None:
        assert self.browser.post(reverse("logout")).status_code == 302


def sign_in_now(user: Any) -> SignedIn:
    user.set_password(PASSWORD)
    user.save()
    browser = Client()
    form = {"username": user.get_username(), "password": PASSWORD}
    assert browser.post(reverse("login"), form).status_code == 302
    return SignedIn(get_user_model().objects.get(pk=user.pk), browser)


sign_in = sync_to_async(sign_in_now)


def execute(sql: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
