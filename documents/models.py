"""A document as a thing that people own: its identity, its members and the version of its rights."""

import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from documents.naming import NAME_LENGTH_MAX, validate_name


class Role(models.IntegerChoices):
    """What someone may do with a document; a higher role includes the lower ones."""

    VIEWER = 10, "viewer"
    EDITOR = 20, "editor"
    OWNER = 30, "owner"


class Transactional(models.Model):
    """Saves in a transaction, so that whoever listens to a save writes in the same one."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic(using=kwargs.get("using")):
            super().save(*args, **kwargs)


class DocumentQuerySet(models.QuerySet["Document"]):
    def present(self) -> "DocumentQuerySet":
        """Leave out what is deleted, recoverable or not."""
        return self.filter(deleted_at__isnull=True)


class Document(Transactional):
    """One collaborative document. A row of `documents_access` and of `history_head` is born with it, by trigger."""

    id = models.BigAutoField(primary_key=True)
    key = models.UUIDField("public key", unique=True, default=uuid.uuid4, editable=False)
    name = models.CharField(
        max_length=NAME_LENGTH_MAX,
        unique=True,
        validators=[validate_name],
        help_text="The room name that editors connect to. It never changes.",
    )
    title = models.CharField(max_length=200)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    open_to_all = models.BooleanField(
        default=False, editable=False, help_text="Created on first use under OPEN_ROOMS; open while that is on."
    )
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="palimpsest_documents"
    )

    objects = DocumentQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        """The page to write on; `realtime.urls` serves it."""
        return reverse("document-page", args=[self.key])

    @property
    def access_version(self) -> int:
        """Raised by every change of rights. Read from the database at each call."""
        return Access.objects.values_list("version", flat=True).get(document_id=self.pk)


class Access(models.Model):
    """The version of a document's rights: the database raises it at every change of them, raw SQL included."""

    document = models.OneToOneField(Document, primary_key=True, on_delete=models.CASCADE, related_name="access")
    version = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.document_id} v{self.version}"


class Membership(Transactional):
    """One person's role in one document."""

    id = models.BigAutoField(primary_key=True)
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="palimpsest_memberships")
    role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.EDITOR)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["document", "user"], name="documents_membership_once")]

    def __str__(self) -> str:
        return f"{self.user} is {self.get_role_display()} of {self.document}"


class ChoreQuerySet(models.QuerySet["Chore"]):
    def with_state(self) -> "ChoreQuerySet":
        """Each with `state`, by the database's clock: running, lost (its worker is gone), failed or done."""
        is_lost = models.Q(ended_at=None, seen_at__lt=Now() - Chore.LOST_AFTER)
        return self.annotate(
            state=models.Case(
                models.When(is_lost, then=models.Value("lost")),
                models.When(ended_at=None, then=models.Value("running")),
                default=models.F("outcome"),
            )
        )


class Chore(models.Model):
    """One turn of a Celery task that keeps house, written while it goes (see `chores`). Only the last of each task are
    kept. No constraint on `document_id`: the document may be gone the next moment.

    `seen_at` is renewed every two seconds while it lives: without an `ended_at` and with that LOST_AFTER ago, its
    worker is gone. `error` is the class of the last error, nothing of its words."""

    class Outcome(models.TextChoices):
        NONE = "", "none yet"
        DONE = "done", "done"
        FAILED = "failed", "failed"

    WORKER_LENGTH_MAX = 100
    LOST_AFTER = timedelta(seconds=15)
    TOLD = ("done", "total", "made", "document_id", "troubles", "error", "found", "findings", "about")

    id = models.BigAutoField(primary_key=True)
    task = models.CharField(max_length=100)
    worker = models.CharField(max_length=WORKER_LENGTH_MAX)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, blank=True, default=Outcome.NONE)
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(null=True)
    made = models.BigIntegerField(default=0)
    document_id = models.BigIntegerField(null=True)
    troubles = models.BigIntegerField(default=0)
    error = models.CharField(max_length=100, blank=True)
    found = models.BigIntegerField(default=0)
    findings = models.JSONField(default=list)
    about = models.JSONField(default=dict)

    objects = ChoreQuerySet.as_manager()

    class Meta:
        default_permissions = ()
        verbose_name = "turn"
        verbose_name_plural = "housekeeping"
        indexes = [models.Index(fields=["task", "-id"], name="documents_chore_task")]

    def __str__(self) -> str:
        return f"{self.task} {self.pk}"
