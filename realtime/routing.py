"""The WebSocket addresses. Mount under any middleware stack that fills `scope["user"]`."""

from django.urls import re_path

from realtime.chat.consumers import ChatConsumer
from realtime.collab.consumers import RealtimeCollaborationConsumer
from realtime.consumers import YjsConsumer
from realtime.hocuspocus.consumers import HocuspocusConsumer
from realtime.notifications.consumers import NotificationConsumer

websocket_urlpatterns = [
    re_path(r"^collaboration/?$", HocuspocusConsumer.as_asgi()),
    re_path(r"^ws/rooms/(?P<room_id>(?s:.+?))/?$", RealtimeCollaborationConsumer.as_asgi()),
    re_path(r"^ws/notifications/?$", NotificationConsumer.as_asgi()),
    re_path(r"^ws/chat/(?P<room_name>(?s:.+?))/?$", ChatConsumer.as_asgi()),
    re_path(r"^ws/(?P<room>(?s:.+))$", YjsConsumer.as_asgi()),
]
