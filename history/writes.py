"""Edits made by the server itself: from a view, a task, the shell or the admin.

They pass the same guard, are re-emitted by the same kind of document and go through the same append as a client's;
they join the caller's `atomic()` and are told on commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from documents.conf import conf
from documents.credentials import Credential
from documents.models import Document
from documents.roles import UNADMITTED, Admission, RoleRule, admit
from history.append import append, requested_seq
from history.crdt.lib0 import Malformed
from history.crdt.places import Piece
from history.crdt.ranges import Span
from history.crdt.updates import MissingDependency
from history.errors import LogUnavailable, OutcomeUnknown, UpdateRefused
from history.fates import Fate, PendingUpdate, Reason, Refused, Stored
from history.gate import Gate, GateBroken, NotTaken
from history.log import consistent_read, head_of, read_log
from history.models import Kind, Via
from history.sessions import WriteSession
from history.signals import log_appended, restored, tell_of_change
from history.undoing import Plan, Whose, plan_restore, plan_undo

LIMIT_WAIT = "SELECT set_config('lock_timeout', %s, true)"
LOCK = "SELECT pg_advisory_lock(hashtextextended('palimpsest undo ' || %s, 0))"
LOCK_IN_TRANSACTION = "SELECT pg_advisory_xact_lock(hashtextextended('palimpsest undo ' || %s, 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('palimpsest undo ' || %s, 0))"


def write_session(
    document: Document,
    *,
    actor: Any | None,
    via: Via,
    ip: str | None = None,
    user_agent: str = "",
    detail: dict[str, Any] | None = None,
    credential: Credential | None = None,
    admission: Admission | None = None,
    rule: RoleRule | None = None,
) -> WriteSession:
    """A session for one connection or server-side act. With an actor, the actor's role decides in the append (under
    `admission`, or asked for here) for as long as `credential` holds, which is the account alone where not given;
    `rule` says what that role is where a door has one of its own. Without an actor the code that calls is trusted."""
    credential = credential or Credential.of(actor)
    if actor is not None and admission is None:
        admission = admit(actor, document, credential=credential, rule=rule)
    return WriteSession(
        document_id=document.pk,
        user=None if isinstance(actor, AnonymousUser) else actor,
        via=via,
        ip=ip,
        user_agent=user_agent,
        opened_at=timezone.now(),
        requires_role=actor is not None,
        credential=credential,
        admission=admission or UNADMITTED,
        rule=rule,
        detail=detail or {},
    )


def append_update(
    session: WriteSession, update: bytes, *, kind: Kind = Kind.EDIT, request_key: str | None = None
) -> Stored | None:
    """Append one update (v1) made elsewhere; return where it is in the log, or None when it says nothing new.

    With a `request_key`, the same act sent again is stored once. Raises: UpdateRefused with the reason (malformed,
    needs updates that the document does not have, not allowed); LogUnavailable; OutcomeUnknown."""
    repeated = _stored_before(session, request_key)
    if repeated is not None:
        return repeated
    return _through_gate(session, update, kind=kind, request_key=request_key)


def restore(
    session: WriteSession,
    seq: int,
    *,
    piece: Piece | None = None,
    span: Span | None = None,
    request_key: str | None = None,
) -> Stored | None:
    """Append ONE forward update that makes the document, or a piece of it, what it was at `seq`; None when it is that.

    Nothing is taken out of the log, and what others type meanwhile survives. A `span` is one of the text `piece` at
    `seq`. Raises: what `plan_restore` does; UpdateRefused, LogUnavailable, OutcomeUnknown."""
    plan = partial(plan_restore, session.document_id, seq, piece=piece, span=span)
    return _carry_out(session, plan, kind=Kind.RESTORE, request_key=request_key)


def undo(
    session: WriteSession, whose: Whose, *, first_seq: int, last_seq: int, request_key: str | None = None
) -> Stored | None:
    """Append ONE forward update that takes back what somebody did in the rows first_seq to last_seq, both included.

    None when nothing of that is left. It is itself an edit of who asks: undone in its turn, it gives back what it
    took. What others wrote stays, what they type meanwhile too. Raises: what `plan_undo` does; UpdateRefused,
    LogUnavailable, OutcomeUnknown."""
    plan = partial(plan_undo, session.document_id, whose, first_seq=first_seq, last_seq=last_seq)
    return _carry_out(session, plan, kind=Kind.UNDO, request_key=request_key)


def _carry_out(
    session: WriteSession, make_plan: Callable[[], Plan], *, kind: Kind, request_key: str | None
) -> Stored | None:
    # Two who take the same back at the same time would bring the same deleted words back twice.
    with _alone(session.document_id):
        repeated = _stored_before(session, request_key)
        if repeated is not None:
            return repeated
        plan = make_plan()
        if plan.update is None:
            return None
        session.detail |= plan.detail
        return _through_gate(session, plan.update, kind=kind, request_key=request_key)


@contextmanager
def _alone(document_id: int) -> Iterator[None]:
    """Hold back other restores and undos of a document; edits go on. Inside the caller's `atomic()` until its end.

    Raises: LogUnavailable after APPEND_LOCK_TIMEOUT_MS."""
    is_callers = connection.in_atomic_block
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            (callers_timeout,) = cursor.fetchone()
            cursor.execute(LIMIT_WAIT, [f"{conf().append_lock_timeout_ms}ms"])
            cursor.execute(LOCK_IN_TRANSACTION if is_callers else LOCK, [document_id])
            cursor.execute(LIMIT_WAIT, [callers_timeout])
    except OperationalError as error:
        raise LogUnavailable(f"document {document_id}: another restore or undo is under way") from error
    try:
        yield
    finally:
        if not is_callers:
            # A connection that was lost has lost its lock.
            with suppress(DatabaseError), connection.cursor() as cursor:
                cursor.execute(UNLOCK, [document_id])


def _stored_before(session: WriteSession, request_key: str | None) -> Stored | None:
    """Where the act of this key is in the log already: a task that runs twice says the same twice."""
    if request_key is None:
        return None
    seq = requested_seq(session, request_key)
    return None if seq is None else _repeated(session.document_id, seq)


def _repeated(document_id: int, seq: int) -> Stored:
    with consistent_read():
        row = next(read_log(document_id, after=seq - 1, until=seq))
        return Stored(seq, row.at, head_of(document_id).epoch, repeated=True)


def _through_gate(session: WriteSession, update: bytes, *, kind: Kind, request_key: str | None) -> Stored | None:
    document_id = session.document_id
    try:
        gate = Gate.load(document_id)
        taken = gate.take(update, session)
    except MissingDependency as error:
        raise UpdateRefused(document_id, f"the update builds on others that are not in the log: {error}") from error
    except NotTaken as error:
        raise UpdateRefused(document_id, error.reason.value) from error
    except (Malformed, GateBroken) as error:
        raise UpdateRefused(document_id, f"this is not an update that can be stored: {error}") from error
    if taken is None:
        return None
    pending = PendingUpdate(
        session=session,
        payload=taken.update,
        kind=kind,
        request_key=request_key,
        clients=taken.clients,
        base=gate.base,
        splits=taken.splits,
    )
    fate = _append_restore(pending) if kind is Kind.RESTORE else append([pending])[0]
    if isinstance(fate, Refused):
        if fate.reason in (Reason.BUSY, Reason.UNAVAILABLE, Reason.ROLLED_BACK):
            raise LogUnavailable(f"document {session.document_id}: {fate.reason.value}")
        raise UpdateRefused(session.document_id, fate.reason.value)
    if fate.repeated:
        return _repeated(document_id, fate.seq)
    transaction.on_commit(lambda: _tell(session, fate, taken.update))
    return fate


def _append_restore(pending: PendingUpdate) -> Fate:
    """Append, and tell of it in the same transaction: the caller's, or one that is committed on return.

    Raises: as `append`, and whatever a receiver of `restored` does; nothing is stored then."""
    if connection.in_atomic_block:
        return _appended_and_told(pending)
    is_told = False
    try:
        with transaction.atomic():
            fate = _appended_and_told(pending)
            is_told = True
        return fate
    except (OperationalError, InterfaceError) as error:
        document_id, what = pending.document_id, type(error).__name__
        if is_told:
            raise OutcomeUnknown(f"document {document_id}: the connection was lost while committing: {what}") from error
        raise LogUnavailable(f"document {document_id}: the restore could not be stored: {what}") from error


def _appended_and_told(pending: PendingUpdate) -> Fate:
    (fate,) = append([pending])
    if isinstance(fate, Stored) and not fate.repeated:
        restored.send(sender=Document, session=pending.session, stored=fate)
    return fate


def _tell(session: WriteSession, stored: Stored, update: bytes) -> None:
    log_appended.send(
        sender=Document,
        document_id=session.document_id,
        stored=stored,
        update=update,
        actor=session.user,
    )
    tell_of_change(session.document_id, seq=stored.seq, actor=session.user)
