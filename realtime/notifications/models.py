"""Messages to one person, and until when they are kept."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

REQUEST_KEY_LENGTH_MAX = 200


class CurrentTransaction(models.Func):
    """The number of the transaction, by which `realtime.notifications.changes` finds what was committed since it
    looked last: transactions end in another order than ids and times are given out."""

    template = "(pg_current_xact_id()::text::bigint)"
    output_field = models.BigIntegerField()


class NextTransaction(models.Func):
    """The first number that no transaction has yet."""

    template = "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
    output_field = models.BigIntegerField()


class Notification(models.Model):
    """One message to one person, kept until READ_NOTIFICATION_DAYS after it was read.

    `message` is any JSON of at most NOTIFICATION_BYTES_MAX. `request_key` names its cause: a person is told of one
    cause once. `changed_in` is the transaction that made it, or that marked it read."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="palimpsest_notifications",
        db_index=False,
    )
    message = models.JSONField()
    request_key = models.CharField(max_length=REQUEST_KEY_LENGTH_MAX, null=True, editable=False)  # noqa: DJ001 (null is unlike any other null)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    read_at = models.DateTimeField(null=True, editable=False)
    changed_in = models.BigIntegerField(db_default=CurrentTransaction(), editable=False)

    class Meta:
        default_permissions = ("delete", "view")
        constraints = [
            models.UniqueConstraint(
                fields=["user", "request_key"],
                condition=models.Q(request_key__isnull=False),
                name="realtime_notification_once",
            ),
        ]
        indexes = [
            models.Index(fields=["user", "-id"], name="realtime_notification_user"),
            models.Index(fields=["user", "id"], condition=models.Q(read_at=None), name="realtime_notification_unread"),
            models.Index(fields=["changed_in", "id"], name="realtime_notification_change"),
            models.Index(
                fields=["read_at"], condition=models.Q(read_at__isnull=False), name="realtime_notification_read"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} to {self.user_id}"
