"""What waits for housekeeping: each kind of work is found by one query, over the heads of all documents. The tasks take
it from here, and the admin counts it."""

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from documents.conf import conf
from history.models import Kind

SWEEP_LOOKBACK = timedelta(days=1)
"""A tail becomes due by an edit: older ones were swept, or are compacted when their document is next opened."""

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

# Documents whose next segment would be full enough (see squash): its SEGMENT_ROWS_MIN-th row is cold, or the cold rows
# before that one are of more than SEGMENT_BYTES_MAX, which is asked where one of them is large alone. In random order:
# one that is refused must not stand before others for ever.
COLD_DOCUMENTS = """
SELECT head.document_id
FROM history_head head
CROSS JOIN LATERAL (
    SELECT COALESCE(MAX(last_seq), 0) AS seq FROM history_segment WHERE document_id = head.document_id
) squashed
LEFT JOIN history_update cold ON cold.document_id = head.document_id AND cold.seq = squashed.seq + %(rows)s
WHERE head.seq > squashed.seq AND (cold.at < %(older_than)s OR EXISTS (
    SELECT FROM history_update large
    WHERE large.document_id = head.document_id AND large.seq > squashed.seq AND octet_length(large.payload) > 16384
) AND (
    SELECT COUNT(*) FILTER (WHERE kind <> %(split)s) > 1 AND SUM(octet_length(payload)) > %(bytes)s
    FROM history_update tail
    WHERE tail.document_id = head.document_id AND tail.seq > squashed.seq AND tail.seq < squashed.seq + %(rows)s
      AND tail.at < %(older_than)s
))
ORDER BY random() LIMIT %(limit)s
"""


def due_tails(*, limit: int) -> list[int]:
    """Documents whose tail is due for a snapshot, the longest first."""
    limits = conf()
    return _document_ids(
        DUE_TAILS,
        rows=limits.snapshot_rows,
        bytes_min=limits.snapshot_bytes_min,
        percent=limits.snapshot_tail_percent,
        since=timezone.now() - SWEEP_LOOKBACK,
        limit=limit,
    )


def unbuilt_ladders(*, limit: int) -> list[int]:
    """Documents whose older snapshots are not in their places, in random order."""
    return _document_ids(UNBUILT_LADDERS, rows=conf().snapshot_distance_rows, limit=limit)


def cold_documents(*, older_than: datetime, limit: int) -> list[int]:
    """Documents with enough rows stored before `older_than` for a segment, in random order."""
    return _document_ids(
        COLD_DOCUMENTS,
        rows=max(conf().segment_rows_min, 1),
        bytes=conf().segment_bytes_max,
        split=Kind.SPLIT.value,
        older_than=older_than,
        limit=limit,
    )


def squash_older_than() -> datetime:
    """Rows stored before this are cold (SQUASH_AFTER_SECONDS)."""
    return timezone.now() - timedelta(seconds=conf().squash_after_seconds)


def _document_ids(query: str, **params: int | datetime) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return [row[0] for row in cursor.fetchall()]
