"""Celery: what keeps histories small, quick to open and proven. Each task may run twice, be killed or never run:
the documents stay right, only slower. Each run is bounded; the next run of the schedule takes the rest."""

import logging
from datetime import datetime, timedelta
from time import monotonic

from celery import Task, shared_task
from django.contrib.auth import get_user_model
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.utils import timezone

from documents.conf import conf
from documents.models import Document
from history.audit.entries import AuditDifference, remove_expired_entries, verify_audit
from history.errors import HistoryError, LogUnavailable, OutcomeUnknown
from history.folds import compact
from history.ladder import build_ladder
from history.models import Head
from history.proof.verify import Difference, verify_document
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

SWEEP_LOOKBACK = timedelta(days=1)
"""A tail becomes due by an edit: older ones were swept, or are compacted when their document is next opened."""

LADDER_DOCUMENTS_MAX = 500
LADDER_SNAPSHOTS_MAX = 500
"""Snapshots of one run; each within 100 ms for 4,000 rows."""

SQUASH_DOCUMENTS_MAX = 200
SQUASH_SEGMENTS_MAX = 500
"""Segments of one run: about three quarters of a minute."""

VERIFY_DOCUMENTS_MAX = 50
VERIFY_ROWS_MAX = 2_000_000
"""A run proves random documents until it has proven this many rows; a document is never cut short."""

VERSION_DOCUMENTS_MAX = 1000
"""Versions that one run makes by itself; each takes a few milliseconds."""

PURGE_ROWS_MAX = 10_000

UNDO_SECONDS = 45.0
"""Then a run hands the documents that are left to the next one; a document with much to read takes up to a second."""

UNDO_RETRIES_MAX = 12
"""With pauses of 1, 2, 4, … up to 60 seconds, some minutes without a database."""

# Documents whose tail is due for a snapshot (see snapshots.is_due), the longest first.
DUE_TAILS = """
SELECT head.document_id
FROM history_head head
LEFT JOIN LATERAL (
    SELECT seq, state_bytes AS bytes FROM history_snapshot
    WHERE document_id = head.document_id ORDER BY seq DESC LIMIT 1
) snapshot ON true
CROSS JOIN LATERAL (
    SELECT COALESCE(SUM(octet_length(payload)), 0) AS bytes FROM history_update
    WHERE document_id = head.document_id AND seq > COALESCE(snapshot.seq, 0)
      AND head.seq - COALESCE(snapshot.seq, 0) <= %(rows)s
) tail
WHERE head.at > %(since)s AND head.seq > COALESCE(snapshot.seq, 0)
  AND (head.seq - COALESCE(snapshot.seq, 0) > %(rows)s
       OR tail.bytes > GREATEST(%(bytes_min)s, COALESCE(snapshot.bytes, 0)::bigint * %(percent)s / 100))
ORDER BY head.seq - COALESCE(snapshot.seq, 0) DESC LIMIT %(limit)s
"""

# Documents long enough for more than one snapshot, of which a new one was stored, or whose log was squashed, since the
# older ones were put in their places. In random order: one that cannot be built must not stand before others for ever.
UNBUILT_LADDERS = """
SELECT head.document_id
FROM history_head head
LEFT JOIN LATERAL (
    SELECT ladder_built FROM history_snapshot
    WHERE document_id = head.document_id ORDER BY seq DESC LIMIT 1
) newest ON true
WHERE head.seq > %(rows)s AND newest.ladder_built IS NOT TRUE
ORDER BY random() LIMIT %(limit)s
"""

# Documents whose next segment would be full enough: its SEGMENT_ROWS_MIN-th row is cold.
COLD_DOCUMENTS = """
SELECT head.document_id
FROM history_head head
CROSS JOIN LATERAL (
    SELECT COALESCE(MAX(last_seq), 0) AS seq FROM history_segment WHERE document_id = head.document_id
) squashed
JOIN history_update cold ON cold.document_id = head.document_id AND cold.seq = squashed.seq + %(rows)s
WHERE head.seq >= squashed.seq + %(rows)s AND cold.at < %(older_than)s
ORDER BY head.seq - squashed.seq DESC LIMIT %(limit)s
"""


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def sweep_snapshots() -> int:
    """Store a snapshot of each document whose tail is due; return how many were found."""
    limits = conf()
    due = _document_ids(
        DUE_TAILS,
        rows=limits.snapshot_rows,
        bytes_min=limits.snapshot_bytes_min,
        percent=limits.snapshot_tail_percent,
        since=timezone.now() - SWEEP_LOOKBACK,
        limit=SWEEP_DOCUMENTS_MAX,
    )
    for document_id in due:
        try:
            compact(document_id)
        except Exception:  # one document's trouble is no other's
            logger.exception("snapshot failed: document=%s", document_id)
    return len(due)


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def build_ladders() -> int:
    """Put the older snapshots of documents in their places; return how many were made."""
    unbuilt = _document_ids(UNBUILT_LADDERS, rows=conf().snapshot_distance_rows, limit=LADDER_DOCUMENTS_MAX)
    made = 0
    for document_id in unbuilt:
        if made >= LADDER_SNAPSHOTS_MAX:
            break
        try:
            made += build_ladder(document_id, rungs_max=LADDER_SNAPSHOTS_MAX - made)
        except Exception:  # one document's trouble is no other's
            logger.exception("no ladder: document=%s", document_id)
    return made


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def squash_cold_rows() -> int:
    """Pack rows older than SQUASH_AFTER_SECONDS into segments; return how many rows."""
    limits = conf()
    older_than = timezone.now() - timedelta(seconds=limits.squash_after_seconds)
    cold = _document_ids(
        COLD_DOCUMENTS, rows=limits.segment_rows_min, older_than=older_than, limit=SQUASH_DOCUMENTS_MAX
    )
    rows = segments = 0

    def count(_: int) -> None:
        nonlocal segments
        segments += 1

    for document_id in cold:
        try:
            rows += squash_document(
                document_id, older_than=older_than, segments_max=SQUASH_SEGMENTS_MAX - segments, progress=count
            )
        except (HistoryError, DatabaseError, ValueError):
            logger.exception("squash refused: document=%s", document_id)
    return rows


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def verify_sample() -> int:
    """Prove some random documents; log each difference as an error; return how many differ."""
    heads = Head.objects.filter(seq__gt=0).order_by("?").values_list("document_id", "seq")[:VERIFY_DOCUMENTS_MAX]
    rows = differ = 0
    for document_id, seq in list(heads):
        if rows > VERIFY_ROWS_MAX:
            break
        rows += seq
        differ += _differs(document_id)
    return differ


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def sign_manifest() -> bool:
    """Publish the day's manifest where that is due; return whether one was."""
    if not conf().manifest_key:
        return False
    from history.proof.publishing import publish_manifest  # who signs nothing need not load the library that signs

    try:
        published = publish_manifest(now=timezone.now())
    except (HistoryError, DatabaseError, OSError):
        logger.exception("manifest not published; the next turn tries again")
        return False
    if published is not None:
        logger.info("manifest published: day=%s documents=%s", published.day, published.documents)
    return published is not None


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def keep_versions() -> int:
    """Make a version of each document that has been worked on for AUTOMATIC_VERSION_HOURS; return how many."""
    now = timezone.now()
    kept = 0
    for document_id in documents_due_for_a_version(now=now, limit=VERSION_DOCUMENTS_MAX):
        try:
            kept += keep_version(document_id, now=now)
        except DatabaseError:  # purged meanwhile, say: one document's trouble is no other's
            logger.exception("no version: document=%s", document_id)
    return kept


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def purge_refused() -> int:
    """Delete refused updates older than REFUSED_DAYS; return how many rows."""
    return purge_refusals(limit=PURGE_ROWS_MAX)


@shared_task(
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    time_limit=RUN_SECONDS_MAX,
    autoretry_for=(LogUnavailable, OutcomeUnknown, OperationalError, InterfaceError),
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
    actor = None if actor_pk is None else get_user_model()._default_manager.get(pk=actor_pk)  # noqa: SLF001
    wanted = AccountUndo(
        user_key=user_pk,
        since=datetime.fromisoformat(since),
        until=datetime.fromisoformat(until),
        actor=actor,
        request_key=request_key,
    )
    undone = 0
    stop_at = monotonic() + UNDO_SECONDS
    for line in carry_out(wanted, after=after):
        undone += line.seq is not None
        after = line.document.pk
        if monotonic() > stop_at:
            kwargs = {"request_key": request_key, "actor_pk": actor_pk, "after": after}
            self.apply_async(args=[user_pk, since, until], kwargs=kwargs)
            break
    return undone


@shared_task(acks_late=True, reject_on_worker_lost=True, ignore_result=True, time_limit=RUN_SECONDS_MAX)
def purge_audit() -> int:
    """Remove entries of the audit older than AUDIT_DAYS; return how many."""
    return remove_expired_entries(now=timezone.now())


def _differs(document_id: int) -> bool:
    try:
        outcome = verify_document(document_id)
        audit = verify_audit(document_id)
    except DatabaseError:
        logger.exception("verify failed: document=%s", document_id)
        return False
    except Document.DoesNotExist:
        return False  # purged since the list was read
    if isinstance(outcome, Difference):
        logger.error("history differs: document=%s seq=%s what=%s", document_id, outcome.seq, outcome.what)
    if isinstance(audit, AuditDifference):
        logger.error("audit differs: document=%s entry=%s what=%s", document_id, audit.n, audit.what)
    return isinstance(outcome, Difference) or isinstance(audit, AuditDifference)


def _document_ids(query: str, **params: int | datetime) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return [row[0] for row in cursor.fetchall()]
