"""One worker at a time for a document's snapshots: a second one goes on to others, where it would fold the same rows
to store nothing. Harmless without: a snapshot is the fold at its seq, whoever stores it first."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error, connection

TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('palimpsest snapshots ' || %s, 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('palimpsest snapshots ' || %s, 0))"


@contextmanager
def alone_at_snapshots(document_id: int) -> Iterator[bool]:
    """Whether no other worker is at them; if so none comes until the block ends, or the connection does.

    Of the connection and not of a transaction: a fold and what is stored of it are several."""
    with connection.cursor() as cursor:
        cursor.execute(TRY_LOCK, [document_id])
        alone = bool(cursor.fetchone()[0])
    try:
        yield alone
    finally:
        if alone:
            _unlock(document_id)


def _unlock(document_id: int) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(UNLOCK, [document_id])
    except Error:
        connection.close()  # and the lock with it
