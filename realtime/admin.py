"""The admin of this floor. The folders define it; Django looks for it here."""

from realtime.chat.admin import ChatMessageAdmin
from realtime.notifications.admin import NotificationAdmin

__all__ = ["ChatMessageAdmin", "NotificationAdmin"]
