"""Celery: what keeps histories small, quick to open and proven. Each task may run twice, be killed or never run:
the documents stay right, only slower. Each run is bounded; the next run of the schedule takes the rest."""

import logging
from datetime import datetime
from time import monotonic

from celery import Task, shared_task
from django.contrib.auth import get_user_model
from django.db import DatabaseError, InterfaceError, OperationalError
from django.utils import timezone

from documents.chores import Turn, chore
from documents.conf import conf
from documents.models import Document
from history.audit.entries import AuditDifference, AuditVerdict, remove_expired_entries
from history.due import cold_documents, due_tails, squash_older_than, unbuilt_ladders
from history.errors import HistoryError, LogUnavailable, OutcomeUnknown
from history.folds import compact
from history.heavy_reads import Busy
from history.ladder import build_ladder
from history.models import Head
from history.one_at_a_time import alone_at_snapshots
from history.proof.published_days import false_days
from history.proof.told import verify_told
from history.proof.verify import Difference, Verdict, verify_document
from history.refusals import purge_refusals
from history.squash import squash_document
from history.undo_everywhere import AccountUndo, carry_out
from history.versions import documents_due_for_a_version, keep_version

logger = logging.getLogger(__name__)

RUN_SECONDS_MAX = 120
"""Then the run is killed, which loses nothing that it has finished. The broker holds back what a dead worker had in
hand for a little longer than this, pushes too, so no task may have more. `manage.py verify_history` has no limit."""

SWEEP_DOCUMENTS_MAX = 200
"""Snapshots of one run; 300 ms each at worst."""

LADDER_DOCUMENTS_MAX = 500
LADDER_SNAPSHOTS_MAX = 500
"""Snapshots of one run; each within 100 ms for 4,000 rows."""

SQUASH_DOCUMENTS_MAX = 200
SQUASH_SEGMENTS_MAX = 500
"""Segments of one run: about three quarters of a minute."""

VERIFY_DOCUMENTS_MAX = 50
VERIFY_ROWS_MAX = 2_000_000
"""A run proves random documents until it has proven this many rows; a document is never cut short."""

VERIFY_DOCUMENT_ROWS_MAX = 2_000_000
"""A longer one is for `manage.py verify_history`: with the others before it, it could take all of RUN_SECONDS_MAX."""

VERSION_DOCUMENTS_MAX = 1000
"""Versions that one run makes by itself; each takes a few milliseconds."""

PURGE_ROWS_MAX = 10_000

UNDO_SECONDS = 45.0
"""Then a run hands the documents that are left to the next one; a document with much to read takes up to a second."""

UNDO_RETRIES_MAX = 12
"""With pauses of 1, 2, 4, … up to 60 seconds, some minutes without a database."""


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def sweep_snapshots() -> int:
    """Store a snapshot of each document whose tail is due; return how many were found."""
    with chore("history.tasks.sweep_snapshots") as turn:
        for document_id in turn.each(due_tails(limit=SWEEP_DOCUMENTS_MAX)):
            try:
                with alone_at_snapshots(document_id) as alone:
                    if alone:
                        compact(document_id)
                        turn.made += 1
            except Exception as error:  # one document's trouble is no other's
                turn.trouble(error)
                logger.exception("snapshot failed: document=%s", document_id)
        return turn.done


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def build_ladders() -> int:
    """Put the older snapshots of documents in their places; return how many were made."""
    with chore("history.tasks.build_ladders") as turn:
        for document_id in turn.each(unbuilt_ladders(limit=LADDER_DOCUMENTS_MAX)):
            if turn.made >= LADDER_SNAPSHOTS_MAX:
                break
            try:
                with alone_at_snapshots(document_id) as alone:
                    if alone:
                        turn.made += build_ladder(document_id, rungs_max=LADDER_SNAPSHOTS_MAX - turn.made)
            except Exception as error:  # one document's trouble is no other's
                turn.trouble(error)
                logger.exception("no ladder: document=%s", document_id)
        return turn.made


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def squash_cold_rows() -> int:
    """Pack rows older than SQUASH_AFTER_SECONDS into segments; return how many rows."""
    older_than = squash_older_than()
    segments = 0

    def count(_: int) -> None:
        nonlocal segments
        segments += 1

    with chore("history.tasks.squash_cold_rows") as turn:
        for document_id in turn.each(cold_documents(older_than=older_than, limit=SQUASH_DOCUMENTS_MAX)):
            if segments >= SQUASH_SEGMENTS_MAX:
                break
            try:
                turn.made += squash_document(
                    document_id, older_than=older_than, segments_max=SQUASH_SEGMENTS_MAX - segments, progress=count
                )
            except (HistoryError, DatabaseError, ValueError) as error:
                turn.trouble(error)
                logger.exception("squash refused: document=%s", document_id)
        return turn.made


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def verify_sample() -> int:
    """Prove some random documents; log each difference as an error; return how many documents differ.

    What was proven, up to which seq, and what differs is kept with the turn."""
    sample = Head.objects.filter(seq__gt=0, seq__lte=VERIFY_DOCUMENT_ROWS_MAX).order_by("?")
    seqs = dict(sample.values_list("document_id", "seq")[:VERIFY_DOCUMENTS_MAX])
    differ = 0
    with chore("history.tasks.verify_sample") as turn:
        proven: list[tuple[int, int]] = []
        turn.about = {"proven": proven}
        for document_id in turn.each(list(seqs)):
            if turn.made > VERIFY_ROWS_MAX:
                break
            outcomes = _verify(document_id, turn)
            differ += any(isinstance(each, Difference | AuditDifference) for each in outcomes)
            for outcome in outcomes:
                if isinstance(outcome, Verdict):
                    proven.append((document_id, outcome.head_seq))
            turn.made += seqs[document_id]
        return differ


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def sign_manifest() -> bool:
    """Publish the day's manifest where that is due; return whether one was."""
    if not conf().manifest_key:
        return False
    from history.proof.publishing import publish_manifest  # who signs nothing need not load the library that signs

    with chore("history.tasks.sign_manifest") as turn:
        for what in false_days(now=timezone.now()):
            turn.find(table="manifest", what=what)
            logger.error("manifests differ: what=%s", what)
        try:
            published = publish_manifest(now=timezone.now())
        except (HistoryError, DatabaseError, OSError) as error:
            turn.trouble(error)
            logger.exception("manifest not published; the next turn tries again")
            return False
        if published is not None:
            turn.made = 1
            turn.about = {"day": published.day.isoformat(), "documents": published.documents}
            logger.info("manifest published: day=%s documents=%s", published.day, published.documents)
        return published is not None


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def keep_versions() -> int:
    """Make a version of each document that has been worked on for AUTOMATIC_VERSION_HOURS; return how many."""
    now = timezone.now()
    with chore("history.tasks.keep_versions") as turn:
        for document_id in turn.each(documents_due_for_a_version(now=now, limit=VERSION_DOCUMENTS_MAX)):
            try:
                turn.made += keep_version(document_id, now=now)
            except DatabaseError as error:  # purged meanwhile, say: one document's trouble is no other's
                turn.trouble(error)
                logger.exception("no version: document=%s", document_id)
        return turn.made


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def purge_refused() -> int:
    """Delete refused updates older than REFUSED_DAYS; return how many rows."""
    with chore("history.tasks.purge_refused") as turn:
        turn.made = purge_refusals(limit=PURGE_ROWS_MAX)
        return turn.made


@shared_task(
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    time_limit=RUN_SECONDS_MAX,
    autoretry_for=(Busy, LogUnavailable, OutcomeUnknown, OperationalError, InterfaceError),
    max_retries=UNDO_RETRIES_MAX,
    retry_backoff=True,
    retry_backoff_max=60,
)
def undo_everywhere(
    self: Task,
    user_pk: str,
    since: str,
    until: str,
    *,
    request_key: str,
    actor_pk: str | None = None,
    after: int = 0,
) -> int:
    """Undo what an account did from `since` to `until` (ISO 8601), in all documents with an id above `after`; return in
    how many in this run. What is left after UNDO_SECONDS is queued as a task of its own.

    How far it has come: `undo_everywhere.progress_of`. Killed or run twice, it undoes nothing twice."""
    stop_at = monotonic() + UNDO_SECONDS
    with chore("history.tasks.undo_everywhere") as turn:
        turn.about = {
            "user": user_pk,
            "since": since,
            "until": until,
            "actor": actor_pk,
            "request_key": request_key,
        }
        wanted = AccountUndo(
            user_key=user_pk,
            since=datetime.fromisoformat(since),
            until=datetime.fromisoformat(until),
            actor=None if actor_pk is None else get_user_model()._default_manager.get(pk=actor_pk),  # noqa: SLF001
            request_key=request_key,
        )
        for line in carry_out(wanted, after=after):
            turn.done += 1
            turn.made += line.seq is not None
            after = turn.document_id = line.document.pk
            if monotonic() > stop_at:
                kwargs = {"request_key": request_key, "actor_pk": actor_pk, "after": after}
                self.apply_async(args=[user_pk, since, until], kwargs=kwargs)
                break
        return turn.made


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def purge_audit() -> int:
    """Remove entries of the audit older than AUDIT_DAYS; return how many."""
    with chore("history.tasks.purge_audit") as turn:
        turn.made = remove_expired_entries(now=timezone.now())
        return turn.made


def _verify(document_id: int, turn: Turn) -> list[Verdict | Difference | AuditVerdict | AuditDifference]:
    """Prove the document and its audit, log and write down what differs; nothing where it is gone by now."""
    try:
        outcome, audit = verify_document(document_id), verify_told(document_id)
    except DatabaseError as error:
        turn.trouble(error)
        logger.exception("verify failed: document=%s", document_id)
        return []
    except Document.DoesNotExist:
        return []  # purged since the list was read
    if isinstance(outcome, Difference):
        turn.find(document=document_id, table=outcome.table, seq=outcome.seq, what=outcome.what)
        logger.error("history differs: document=%s seq=%s what=%s", document_id, outcome.seq, outcome.what)
    if isinstance(audit, AuditDifference):
        turn.find(document=document_id, table="auditentry", seq=audit.n, what=audit.what)
        logger.error("audit differs: document=%s entry=%s what=%s", document_id, audit.n, audit.what)
    return [outcome, audit]
