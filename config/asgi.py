"""The ASGI application: HTTP by Django, WebSockets by `realtime`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402  (apps must be loaded first)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.signals import request_finished  # noqa: E402
from django.db import connections  # noqa: E402
from django.urls import re_path  # noqa: E402

from realtime.doors import WhileDatabaseIsAway, no_such_door  # noqa: E402
from realtime.routing import websocket_urlpatterns  # noqa: E402

sockets = URLRouter([*websocket_urlpatterns, re_path("", no_such_door)])  # type: ignore[arg-type]  # an ASGI view
application = ProtocolTypeRouter(
    {"http": django_application, "websocket": WhileDatabaseIsAway(AuthMiddlewareStack(sockets))}
)


def close_connections(**_: object) -> None:
    """Under ASGI each request has a thread of its own that ends with it: a database connection that lives on there, as
    CONN_MAX_AGE says, serves nobody and stays open until garbage is collected."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


request_finished.connect(close_connections, dispatch_uid="config.asgi.close_connections")
