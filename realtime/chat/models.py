"""What is said beside documents, and in rooms that are none.

A document's chat is of the document itself, a free room's of its name: when a document comes to have that name, or
lets go of it, neither is shown what was said in the other. A chat goes with its document."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from documents.models import Document
from documents.naming import NAME_LENGTH_MAX

MESSAGE_KEY_LENGTH_MAX = 64
"""Characters of what a client calls a message of its own."""


class ChatRoom(models.Model):
    """Where messages are in one order: who writes one holds this row until COMMIT, so that they are seen in the order
    of their ids, in every process. `last_id` is the newest that there ever was; 0 is none."""

    id = models.BigAutoField(primary_key=True)
    document = models.OneToOneField(Document, null=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=NAME_LENGTH_MAX, blank=True, help_text="Of a free room; empty for a document's.")
    last_id = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(document=None), name="realtime_chatroom_free_name"
            ),
            models.CheckConstraint(
                condition=models.Q(document=None) & ~models.Q(name="") | ~models.Q(document=None) & models.Q(name=""),
                name="realtime_chatroom_one_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"chat of {f'document {self.document_id}' if self.document_id else f'room {self.pk}'}"


class ChatMessage(models.Model):
    """One message. Its id is larger than those of all that were said in its room before it; `at` is the database's
    time. Without an author: said by the server's own code, by nobody's account, or by one that is gone."""

    id = models.BigAutoField(primary_key=True)
    room = models.ForeignKey(ChatRoom, on_delete=models.CASCADE, related_name="messages", db_index=False)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    text = models.TextField()
    key = models.CharField(
        max_length=MESSAGE_KEY_LENGTH_MAX, blank=True, help_text="What its client calls it: sent twice, stored once."
    )
    at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ("delete", "view")
        constraints = [
            models.UniqueConstraint(
                fields=["room", "author", "key"], condition=~models.Q(key=""), name="realtime_chatmessage_once"
            )
        ]
        indexes = [
            models.Index(fields=["room", "id"], name="realtime_chatmessage_in_order"),
            models.Index(fields=["at"], name="realtime_chatmessage_at"),
        ]

    def __str__(self) -> str:
        return f"message {self.pk}"
