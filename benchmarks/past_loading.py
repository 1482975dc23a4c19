"""Years of editing put into the log at once: the rows that the append would have left, made in another order.

Times and hashes are made first and all rows copied in, as appending a million and ageing them takes minutes. Squash
recomputes the chain of all of it before it packs a row, and refuses where anything is not as the append makes it."""

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
from django.db import connection, transaction
from django.utils import timezone

from benchmarks.typists import Typed
from documents.models import Document
from history.crdt.chain import GENESIS, row_hash
from history.models import Head, Kind, Session, Via
from history.sessions import WriteSession
from history.times import microseconds, moment

COPY_ROWS = """
COPY history_update (document_id, seq, session_id, kind, at, payload, hash) FROM STDIN (FORMAT BINARY)
"""
COLUMN_TYPES = ("int8", "int8", "int8", "int2", "timestamptz", "bytea", "bytea")
AGE = timedelta(days=2)
"""How long ago the last update was made: all of it is cold."""


def load(name: str, updates: Sequence[Typed]) -> Document:
    """A new document of these updates, at the times of people who type: nobody's sessions, by WebSocket."""
    gaps = _human_gaps(len(updates))
    first_at = timezone.now() - AGE - timedelta(microseconds=sum(gaps))
    with transaction.atomic():
        document = Document.objects.create(name=f"{name}-{uuid.uuid4().hex}", title=name, open_to_all=True)
        sessions = [
            WriteSession(document_id=document.pk, user=None, via=Via.WEBSOCKET, opened_at=first_at, requires_role=False)
            for _ in range(1 + max(typed.session for typed in updates))
        ]
        Session.objects.bulk_create(map(_stored, sessions))
        connection.ensure_connection()
        with psycopg.Cursor(connection.connection).copy(COPY_ROWS) as copy:
            copy.set_types(COLUMN_TYPES)
            for row in _rows(document, sessions, updates, gaps, microseconds(first_at)):
                copy.write_row(row)
        Head.objects.filter(document=document).update(seq=row[1], at=row[4], hash=row[6])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE history_update")  # as the server does by itself within a minute
    return document


def _stored(session: WriteSession) -> Session:
    return Session(
        document_id=session.document_id,
        id=session.id,
        via=session.via,
        salt=session.salt,
        commitment=session.commitment,
        opened_at=session.opened_at,
    )


def _rows(
    document: Document, sessions: Sequence[WriteSession], updates: Sequence[Typed], gaps: Sequence[int], at: int
) -> Iterator[tuple[Any, ...]]:
    hash_ = GENESIS
    for seq, (typed, gap) in enumerate(zip(updates, gaps, strict=True), 1):
        at += gap
        session = sessions[typed.session]
        hash_ = row_hash(
            hash_,
            document_key=document.key.bytes,
            seq=seq,
            kind=Kind.SYNC,
            at_microseconds=at,
            session_commitment=session.commitment,
            payload=typed.update,
        )
        yield document.pk, seq, session.id, Kind.SYNC.value, moment(at), typed.update, hash_


def _human_gaps(count: int) -> list[int]:
    """Microseconds between keystrokes, with a pause now and then and a night after some."""
    rng = random.Random(count)
    pauses = ((0.98, 60_000, 400_000), (0.9995, 1_000_000, 60_000_000), (1.0, 600_000_000, 40_000_000_000))
    gaps = []
    for _ in range(count):
        chance = rng.random()
        low, high = next((low, high) for below, low, high in pauses if chance <= below)
        gaps.append(rng.randrange(low, high))
    return gaps
