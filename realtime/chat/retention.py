"""How long what was said is kept."""

from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from documents.conf import conf
from realtime.chat.models import ChatMessage, ChatRoom

REMOVED_PER_QUERY = 10_000

# The oldest first: what a run leaves for the next one is no hole in anybody's history.
REMOVE_OLD = """
DELETE FROM realtime_chatmessage WHERE id IN (
    SELECT id FROM realtime_chatmessage WHERE at < %s ORDER BY at LIMIT %s
)
"""
REMOVE_SURPLUS = """
DELETE FROM realtime_chatmessage WHERE id IN (
    SELECT surplus.id FROM realtime_chatroom room CROSS JOIN LATERAL (
        SELECT id FROM realtime_chatmessage WHERE room_id = room.id ORDER BY id DESC OFFSET %s
    ) surplus ORDER BY surplus.id LIMIT %s
)
"""


def remove_expired(*, now: datetime, limit: int) -> int:
    """Remove messages older than CHAT_DAYS and those above CHAT_MESSAGES_MAX in one chat, at most `limit`, and free
    rooms in which nothing is left; return how many messages."""
    removed = 0
    if conf().chat_days:
        removed += _remove(REMOVE_OLD, now - timedelta(days=conf().chat_days), limit=limit)
    if conf().chat_messages_max:
        removed += _remove(REMOVE_SURPLUS, conf().chat_messages_max, limit=limit - removed)
    _remove_empty_rooms(limit=limit)
    return removed


def _remove(sql: str, bound: Any, *, limit: int) -> int:
    removed = 0
    with connection.cursor() as cursor:
        while removed < limit:
            batch = min(REMOVED_PER_QUERY, limit - removed)
            cursor.execute(sql, [bound, batch])
            removed += cursor.rowcount
            if cursor.rowcount < batch:
                break
    return removed


def _remove_empty_rooms(*, limit: int) -> None:
    """Ids are given out for all rooms together: a room that is made again goes on above those it had."""
    is_empty = ~Exists(ChatMessage.objects.filter(room=OuterRef("pk")))
    empty = list(ChatRoom.objects.filter(is_empty, document=None).values_list("pk", flat=True)[:limit])
    with transaction.atomic():
        # Whoever is saying something there holds the row; under the lock it is looked at again.
        held = ChatRoom.objects.select_for_update(skip_locked=True).filter(pk__in=empty)
        ChatRoom.objects.filter(is_empty, pk__in=[room.pk for room in held]).delete()
