"""Who wrote in a span of a document's log: told by its rows and stored runs, none of which is read for what it says."""

from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection

from documents.roles import User
from history.log import consistent_read

WRITERS_MAX = 200
"""People that are named; of more, those who wrote most."""

# A stored run lies inside its segment, so that none which reaches into the span begins before the segment there.
WRITERS = """
SELECT session.user_id FROM (
    SELECT session_id, COUNT(*) AS updates FROM history_update
    WHERE document_id = %(document_id)s AND seq BETWEEN %(first_seq)s AND %(last_seq)s GROUP BY session_id
    UNION ALL
    SELECT session_id, updates FROM history_run
    WHERE document_id = %(document_id)s AND last_seq >= %(first_seq)s AND first_seq <= %(last_seq)s
      AND first_seq >= (SELECT COALESCE(MAX(first_seq), 0) FROM history_segment
                        WHERE document_id = %(document_id)s AND first_seq <= %(first_seq)s)
) wrote JOIN history_session session ON session.document_id = %(document_id)s AND session.id = wrote.session_id
WHERE session.user_id IS NOT NULL
GROUP BY session.user_id ORDER BY SUM(wrote.updates) DESC, session.user_id LIMIT %(limit)s
"""


def writers(document_id: int, *, first_seq: int, last_seq: int, limit: int = WRITERS_MAX) -> list[User]:
    """The accounts that wrote the rows first_seq to last_seq, both included, who wrote most first.

    One query: an index scan over the live rows of the span, and one over its runs."""
    span = {"document_id": document_id, "first_seq": first_seq, "last_seq": last_seq, "limit": limit}
    with consistent_read():
        with connection.cursor() as cursor:
            cursor.execute(WRITERS, span)
            keys = [key for (key,) in cursor.fetchall()]
        model: Any = get_user_model()
        found = model.objects.in_bulk(keys)
    return [found[key] for key in keys if key in found]
