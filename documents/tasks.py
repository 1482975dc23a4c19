"""Celery: deleted documents go for good when nobody can recover them any more."""

from celery import shared_task
from django.db import transaction

from documents.chores import chore
from documents.models import Document
from documents.opening import recoverable_since
from documents.roles import access_changed

RUN_SECONDS_MAX = 120
"""Then the run is killed (see history.tasks); documents that it has deleted stay deleted."""

PURGE_BATCH_MAX = 100
"""Documents of one run; the next run of the schedule takes the rest."""


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def purge_deleted() -> int:
    """Delete documents past DELETED_DOCUMENT_DAYS with all that hangs on them; return how many.

    One transaction each, so that a worker that is killed leaves no half of one; a second worker takes others."""
    due = Document.objects.filter(deleted_at__lt=recoverable_since()).order_by("deleted_at")
    with chore("documents.tasks.purge_deleted") as turn:
        for document_id in turn.each(list(due.values_list("pk", flat=True)[:PURGE_BATCH_MAX])):
            turn.made += _purge(document_id)
        return turn.made


def _purge(document_id: int) -> bool:
    with transaction.atomic():
        due = Document.objects.select_for_update(no_key=True, skip_locked=True).filter(
            pk=document_id, deleted_at__lt=recoverable_since()
        )
        document = due.first()
        if document is None:
            return False  # recovered, purged or in another worker's hands by now
        access_changed(document)  # takes the fence: no append lands between the rows' going and the document's
        document.delete()
        return True
