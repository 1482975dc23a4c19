"""The admin of this floor. The folders define it; Django looks for it here."""

from realtime.notifications.admin import NotificationAdmin

__all__ = ["NotificationAdmin"]
