"""The consumers of all doors, to be mounted and subclassed."""

from realtime.chat.consumers import ChatConsumer
from realtime.collab.consumers import RealtimeCollaborationConsumer
from realtime.hocuspocus.consumers import HocuspocusConsumer
from realtime.notifications.consumers import NotificationConsumer
from realtime.yjs_consumers import YjsConsumer

__all__ = [
    "ChatConsumer",
    "HocuspocusConsumer",
    "NotificationConsumer",
    "RealtimeCollaborationConsumer",
    "YjsConsumer",
]
