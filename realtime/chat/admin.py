"""Chats in the admin: for superusers alone, who own every document, to look at and to take away what was said.

Who took a message away is in the admin's own log; what it said is not."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from documents.roles import is_superuser
from realtime.chat.models import ChatMessage
from realtime.chat.moderation import remove_messages


@admin.register(ChatMessage)
class ChatMessageAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["id", "where", "author", "at", "beginning"]
    list_select_related = ["room__document", "author"]
    list_filter = ["at"]
    search_fields = ["room__name", "room__document__name"]
    ordering = ["-id"]
    show_full_result_count = False
    fields = ["where", "author", "at", "text"]

    @admin.display(description="room")
    def where(self, message: ChatMessage) -> str:
        return message.room.name if message.room.document is None else message.room.document.name

    @admin.display(description="message")
    def beginning(self, message: ChatMessage) -> str:
        return message.text if len(message.text) <= 80 else f"{message.text[:80]}…"

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request.user)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request.user)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: ChatMessage) -> None:
        remove_messages(ChatMessage.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ChatMessage]) -> None:
        remove_messages(ChatMessage.objects.filter(pk__in=queryset.values("pk")))
