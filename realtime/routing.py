"""The WebSocket addresses. Mount under any middleware stack that fills `scope["user"]`."""

from typing import Any

from django.urls import re_path

from realtime.closing import CloseCode
from realtime.consumers import YjsConsumer

websocket_urlpatterns = [
    re_path(r"^ws/(?P<room>.+)$", YjsConsumer.as_asgi()),
]


async def no_such_door(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The last route of a project that has no other sockets: says where they are, once, instead of an error in the log
    for each attempt."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": CloseCode.NO_SUCH_DOCUMENT, "reason": "sockets are at /ws/<room>"})
