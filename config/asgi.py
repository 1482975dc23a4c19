"""The ASGI application: HTTP by Django, WebSockets by `realtime`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402  (apps must be loaded first)
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import re_path  # noqa: E402

from realtime.doors import WhileDatabaseIsAway, no_such_door  # noqa: E402
from realtime.routing import websocket_urlpatterns  # noqa: E402

sockets = URLRouter([*websocket_urlpatterns, re_path("", no_such_door)])  # type: ignore[arg-type]  # an ASGI view
application = ProtocolTypeRouter(
    {"http": django_application, "websocket": WhileDatabaseIsAway(AuthMiddlewareStack(sockets))}
)
