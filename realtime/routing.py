"""The WebSocket addresses. Mount under any middleware stack that fills `scope["user"]`."""

from django.urls import re_path

from realtime.consumers import (
    ChatConsumer,
    HocuspocusConsumer,
    NotificationConsumer,
    RealtimeCollaborationConsumer,
    YjsConsumer,
)

websocket_urlpatterns = [
    re_path(r"^collaboration/?$", HocuspocusConsumer.as_asgi()),
    re_path(r"^ws/rooms/(?P<room_id>(?s:.+?))/?$", RealtimeCollaborationConsumer.as_asgi()),
    re_path(r"^ws/notifications/?$", NotificationConsumer.as_asgi()),
    re_path(r"^ws/chat/(?P<room_name>(?s:.+?))/?$", ChatConsumer.as_asgi()),
    re_path(r"^ws/(?P<room>(?s:.+))$", YjsConsumer.as_asgi()),
]
