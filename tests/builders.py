"""Documents, sessions and logs for tests, in one line each; logs through the real append."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone
from pycrdt import Doc, Text

from documents.credentials import Credential
from documents.models import Document, Membership, Role
from documents.roles import admit
from history.append import append
from history.crdt.chain import GENESIS, row_hash
from history.fates import PendingUpdate, Stored
from history.models import Head, Kind, Session, Update, Via
from history.sessions import WriteSession
from history.times import microseconds
from tests.histories import Row, random_history, updates_of

_numbers = itertools.count(1)

Result = TypeVar("Result")

NEVER_WARM = datetime(9999, 1, 1, tzinfo=UTC)
"""An `older_than` under which every row is cold."""


def make_user(name: str | None = None, **fields: Any) -> Any:
    return get_user_model().objects.create(username=name or f"user{next(_numbers)}", **fields)


def make_document(name: str | None = None, **members: tuple[Any, Role]) -> Document:
    """A document; members are given as `anything=(user, role)`."""
    name = name or f"document-{next(_numbers)}"
    document = Document.objects.create(name=name, title=name)
    for user, role in members.values():
        Membership.objects.create(document=document, user=user, role=role)
    return document


def make_session(document: Document, user: Any | None = None, *, via: Via = Via.TASK, **fields: Any) -> WriteSession:
    """A session of the server's own, which nobody's rights limit; with a user, of that name all the same."""
    return WriteSession(
        document_id=document.pk, user=user, via=via, opened_at=timezone.now(), requires_role=False, **fields
    )


def admitted_session(document: Document, user: Any) -> WriteSession:
    """A session as a socket has one: under the user's role of this moment."""
    return WriteSession(
        document_id=document.pk,
        user=user,
        via=Via.WEBSOCKET,
        ip="192.0.2.7",
        opened_at=timezone.now(),
        requires_role=True,
        credential=Credential.of(user),
        admission=admit(user, document),
    )


def append_rows(session: WriteSession, payloads: Iterable[bytes], *, kind: Kind = Kind.SYNC) -> list[int]:
    """Append each payload as a row of its own, in one transaction; return their seqs."""
    fates = append([PendingUpdate(session=session, payload=payload, kind=kind) for payload in payloads])
    assert all(isinstance(fate, Stored) for fate in fates), fates
    return [fate.seq for fate in fates if isinstance(fate, Stored)]


def typed(pieces: Iterable[str], *, client_id: int = 1) -> list[bytes]:
    """The updates of somebody who types into the root `text`: one for each character of a text, or each piece."""
    doc: Doc[Any] = Doc(client_id=client_id)
    root = doc.get("text", type=Text)
    return [update for piece in pieces for update in updates_of(doc, partial(root.insert, len(str(root)), piece))]


def append_history(document: Document, rows: Sequence[Row]) -> dict[int, WriteSession]:
    """Append a random history, each person of it with one session; return the sessions by person."""
    sessions = {user: make_session(document, make_user()) for user in sorted({row.user for row in rows})}
    append([PendingUpdate(session=sessions[row.user], payload=row.update) for row in rows])
    return sessions


def make_history(seed: int, *, edits: int = 40, clients: int = 3) -> Document:
    """A document with a random history."""
    document = make_document()
    append_history(document, random_history(seed, edits=edits, clients=clients, skip_gc=True))
    return document


def rechain(document: Document, *, at: Callable[[int], datetime] | None = None) -> None:
    """Hash all live rows anew, as one who can write to the database would; with `at`, at new times for each seq."""
    commitments = dict(Session.objects.filter(document=document).values_list("id", "commitment"))
    hash_ = GENESIS
    row = None
    for row in Update.objects.filter(document=document).order_by("seq"):
        row.at = row.at if at is None else at(row.seq)
        hash_ = row_hash(
            hash_,
            document_key=document.key.bytes,
            seq=row.seq,
            kind=row.kind,
            at_microseconds=microseconds(row.at),
            session_commitment=bytes(commitments[row.session_id]),
            payload=bytes(row.payload),
        )
        Update.objects.filter(document=document, seq=row.seq).update(at=row.at, hash=hash_)
    if row is not None:
        Head.objects.filter(document=document).update(seq=row.seq, hash=hash_, at=row.at)


def seconds_apart(*gaps: float) -> Callable[[int], datetime]:
    """Times for `rechain`: seq 1 at the turn of 2026, each further one so many seconds after the one before."""
    times = list(itertools.accumulate((0.0, *gaps)))
    return lambda seq: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=times[seq - 1])


def log_of(document: Document) -> list[tuple[int, int, int, datetime, bytes]]:
    """All that the log holds: (seq, session, kind, at, payload), from segments and rows."""
    from history.log import consistent_read, read_log

    with consistent_read():
        head = Head.objects.get(document=document).seq
        rows = read_log(document.pk, until=head)
        return [(row.seq, row.session_id, row.kind, row.at, row.payload) for row in rows]


def in_thread(function: Callable[[], Result]) -> "Future[Result]":
    """Run with a database connection of its own, which is closed at the end."""

    def run() -> Result:
        try:
            return function()
        finally:
            connection.close()

    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future
