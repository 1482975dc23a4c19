"""The tables of this floor. The folders define them; Django looks for them here."""

from realtime.chat.models import ChatMessage, ChatRoom
from realtime.notifications.models import Notification

__all__ = ["ChatMessage", "ChatRoom", "Notification"]
