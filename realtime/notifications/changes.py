"""What the database holds of people's notifications: stored, read, changed since one looked, removed.

Ids and times are given out before a transaction ends, and transactions end in another order. So a reader goes by
transactions: all that was not yet there at a look was changed in the `floor` of that look or in a later one."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Count
from django.db.models.functions import Now

from documents.conf import conf
from realtime.notifications.models import CurrentTransaction, NextTransaction, Notification

CHANGES_PER_FETCH = 2000
TRIMMED_MAX = 1000
"""Of one person in one go; the next notification takes the rest."""

REMOVED_PER_QUERY = 10_000

FLOOR = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


@dataclass(frozen=True, slots=True)
class Change:
    """A notification that is new, or that was read."""

    id: int
    user_key: Any
    is_read: bool


def floor_now() -> int:
    """The oldest transaction that is still under way: what was changed before it can be seen by now."""
    with connection.cursor() as cursor:
        cursor.execute(FLOOR)
        return int(cursor.fetchone()[0])


def changes_since(floor: int, user_key: Any | None = None) -> Iterator[Change]:
    """All that was changed in transaction `floor` or later, of one person or of everybody. Some may have been told
    before. In the order of ids."""
    # A backup that was restored into another cluster may tell of transactions that this one has yet to come to.
    changed = Notification.objects.filter(changed_in__gte=floor, changed_in__lt=NextTransaction()).order_by("id")
    if user_key is not None:
        changed = changed.filter(user=user_key)
    for id_, key, read_at in changed.values_list("id", "user_id", "read_at").iterator(chunk_size=CHANGES_PER_FETCH):
        yield Change(id_, key, read_at is not None)


def unread_ids(user_key: Any) -> list[int]:
    """The last UNREAD_NOTIFICATIONS_MAX, oldest first."""
    unread = Notification.objects.filter(user=user_key, read_at=None).order_by("-id").values_list("id", flat=True)
    return list(unread[: conf().unread_notifications_max])[::-1]


def still_unread(user_key: Any, ids: Collection[int]) -> list[Notification]:
    """Those of these that are unread, oldest first."""
    return list(Notification.objects.filter(user=user_key, id__in=ids, read_at=None).order_by("id"))


@dataclass(frozen=True, slots=True)
class Marked:
    """`read`: those of the ids asked for that are this person's, and read by now; `newly`: that were not before."""

    read: list[int]
    newly: list[int]


def mark_read(user_key: Any, ids: Collection[int]) -> Marked:
    """Mark notifications of one person as read; others' and unknown ids are passed over, and twice is once."""
    theirs = Notification.objects.filter(user=user_key, id__in=ids)
    with transaction.atomic():
        # In the order of ids: two tabs that mark the same ones must not wait for each other.
        unread = theirs.filter(read_at=None).order_by("id").select_for_update().values_list("id", flat=True)
        newly = list(unread)
        if newly:
            Notification.objects.filter(id__in=newly).update(read_at=Now(), changed_in=CurrentTransaction())
        read = theirs.filter(read_at__isnull=False).order_by("id").values_list("id", flat=True)
        return Marked(list(read), newly)


def trim_unread(user_keys: Collection[Any]) -> None:
    """Of more than UNREAD_NOTIFICATIONS_MAX unread ones of a person the oldest count as read."""
    kept = conf().unread_notifications_max
    unread = Notification.objects.filter(read_at=None)
    counts = unread.filter(user__in=user_keys).values_list("user").annotate(count=Count("id")).order_by()
    for user_key, _ in counts.filter(count__gt=kept):
        ids = unread.filter(user=user_key).order_by("-id").values_list("id", flat=True)
        mark_read(user_key, list(ids[kept : kept + TRIMMED_MAX]))


def remove_read(*, now: datetime, limit: int) -> int:
    """Remove what was read more than READ_NOTIFICATION_DAYS ago, at most `limit`; return how many. 0 keeps all."""
    days = conf().read_notification_days
    if not days:
        return 0
    removed = 0
    while removed < limit:
        old = Notification.objects.filter(read_at__lt=now - timedelta(days=days)).order_by("read_at")
        ids = list(old.values_list("id", flat=True)[: min(REMOVED_PER_QUERY, limit - removed)])
        if not ids:
            break
        Notification.objects.filter(id__in=ids).delete()
        removed += len(ids)
    return removed
