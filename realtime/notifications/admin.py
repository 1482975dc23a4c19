"""Notifications in the admin: for those who were given the permission, to look at and to take away."""

from django.contrib import admin
from django.http import HttpRequest

from realtime.notifications.models import Notification


@admin.register(Notification)
class NotificationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["id", "user", "created_at", "read_at"]
    list_filter = ["created_at", "read_at"]
    list_select_related = ["user"]
    show_full_result_count = False
    fields = ["user", "message", "created_at", "read_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Notification | None = None) -> bool:
        return False
