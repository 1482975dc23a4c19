"""The host's ASGI application: its sockets live under `/live/paper/`, behind a layer of its own."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newsroom.settings")
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402  (apps must be loaded first)
from django.urls import path  # noqa: E402

from newsroom import notes, old_notes  # noqa: E402
from newsroom.middleware import PressCard  # noqa: E402
from realtime.routing import websocket_urlpatterns  # noqa: E402

sockets = URLRouter(
    [
        path("live/paper/", URLRouter(websocket_urlpatterns)),
        path("live/notes/<path:room>", notes.DocConsumer.as_asgi()),
        path("live/old-notes/<path:room>", old_notes.DocConsumer.as_asgi()),
    ]
)
application = ProtocolTypeRouter({"http": http, "websocket": PressCard(sockets)})
