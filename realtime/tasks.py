"""What Celery does on this floor."""

import base64
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded
from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from documents.chores import chore
from history.errors import LogUnavailable, OutcomeUnknown
from history.models import Kind, Via
from realtime.chat.retention import remove_expired
from realtime.notifications.changes import remove_read
from realtime.push import push

PUSH_SECONDS_MAX = 50
"""Then it is cut off and tried again: far above the seconds after which a busy log gives up by itself."""

RETRIES_MAX = 12
"""With pauses of 1, 2, 4, … seconds (and random shorter ones) a push outlasts some minutes without a database."""

RETRY_SECONDS_MAX = 60

PURGE_SECONDS_MAX = 120
"""Then the run is killed; what it has removed stays removed."""

PURGE_ROWS_MAX = 100_000
"""Rows of one run; the next run of the schedule takes the rest."""


class Push(Task):  # type: ignore[misc]
    """A task that is not given up where the broker is away too, when it is to be tried again: the broker has it still,
    and gives it out anew after its visibility timeout. Celery would tell it to throw the task away."""

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().retry(*args, **kwargs)
        except Reject as unsent:
            raise Reject(unsent.reason, requeue=True) from unsent


@shared_task(
    base=Push,
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    soft_time_limit=PUSH_SECONDS_MAX,
    time_limit=PUSH_SECONDS_MAX + 10,
    autoretry_for=(LogUnavailable, OutcomeUnknown, OperationalError, InterfaceError, SoftTimeLimitExceeded),
    max_retries=RETRIES_MAX,
    retry_backoff=True,
    retry_backoff_max=RETRY_SECONDS_MAX,
)
def push_document_update(
    self: Task, room_name: str, update_base64: str, *, actor_pk: Any | None = None, request_key: str | None = None
) -> int | None:
    """Append an update made elsewhere and send it into open editors; return its seq, or None if it said nothing new.

    `update_base64` is a Yjs update (v1). A task that runs twice (a worker killed before it acknowledged, an unknown
    outcome) stores once: its own id is the request key where none is given.
    Raises: NoSuchDocument, UpdateRefused."""
    actor = None if actor_pk is None else get_user_model()._default_manager.get(pk=actor_pk)  # noqa: SLF001
    stored = push(
        room_name,
        base64.b64decode(update_base64, validate=True),
        actor=actor,
        via=Via.TASK,
        kind=Kind.EDIT,
        request_key=request_key or self.request.id,
    )
    return None if stored is None else stored.seq


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=PURGE_SECONDS_MAX)
def purge_notifications() -> int:
    """Remove notifications that were read more than READ_NOTIFICATION_DAYS ago; return how many."""
    with chore("realtime.tasks.purge_notifications") as turn:
        turn.made = remove_read(now=timezone.now(), limit=PURGE_ROWS_MAX)
        return turn.made


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=PURGE_SECONDS_MAX)
def purge_chat() -> int:
    """Remove chat messages older than CHAT_DAYS and those above CHAT_MESSAGES_MAX; return how many."""
    with chore("realtime.tasks.purge_chat") as turn:
        turn.made = remove_expired(now=timezone.now(), limit=PURGE_ROWS_MAX)
        return turn.made
