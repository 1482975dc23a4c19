"""Edits made by the server itself: from a view, a task, the shell or the admin.

They pass the same guard, are re-emitted by the same kind of document and go through the same append as a client's;
they join the caller's `atomic()` and are told on commit."""

import secrets
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.utils import timezone

from documents.credentials import Credential
from documents.models import Document
from documents.roles import UNADMITTED, Admission, admit
from history.append import append, requested_seq
from history.crdt.lib0 import Malformed
from history.crdt.restoring import restore_update
from history.crdt.updates import MissingDependency
from history.errors import LogUnavailable, UpdateRefused
from history.fates import PendingUpdate, Reason, Refused, Stored
from history.folds import document_at, full_ydoc
from history.gate import Gate, GateBroken, NotTaken
from history.log import consistent_read, head_of, read_splits, read_updates
from history.models import Kind, Via
from history.sessions import WriteSession
from history.signals import log_appended, tell_of_change


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
) -> WriteSession:
    """A session for one connection or server-side act. With an actor, the actor's role decides in the append (under
    `admission`, or asked for here) for as long as `credential` holds, which is the account alone where not given;
    without one, the code that calls is trusted."""
    credential = credential or Credential.of(actor)
    if actor is not None and admission is None:
        admission = admit(actor, document, credential=credential)
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


def restore(session: WriteSession, seq: int, *, request_key: str | None = None) -> Stored | None:
    """Append ONE forward update that makes the whole document what it was at `seq`; None when it is that already.

    Nothing is taken out of the log, and what others type meanwhile survives.
    Raises: NoSuchSeq, RestoreFailed, UpdateRefused, LogHole, LogUnavailable, OutcomeUnknown."""
    document_id = session.document_id
    repeated = _stored_before(session, request_key)
    if repeated is not None:
        return repeated
    with consistent_read():
        head = full_ydoc(document_id)
        then = document_at(document_id, seq=seq, full=True)
        splits = read_splits(document_id, until=head.seq)
        later = [row.payload for row in read_updates(document_id, after=seq, until=head.seq, splits=splits)]
    update = restore_update(
        state_at=then.doc.get_update(),
        later=later,
        head_state=head.doc.get_update(),
        client_id=secrets.randbits(32),
        splits=splits,
    )
    if update is None:
        return None
    session.detail["source_seq"] = seq
    return _through_gate(session, update, kind=Kind.RESTORE, request_key=request_key)


def _stored_before(session: WriteSession, request_key: str | None) -> Stored | None:
    """Where the act of this key is in the log already: a task that runs twice says the same twice."""
    if request_key is None:
        return None
    seq = requested_seq(session, request_key)
    if seq is None:
        return None
    head = head_of(session.document_id)
    return Stored(seq, head.at, head.epoch, repeated=True)


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
    (fate,) = append([pending])
    if isinstance(fate, Refused):
        if fate.reason in (Reason.BUSY, Reason.UNAVAILABLE, Reason.ROLLED_BACK):
            raise LogUnavailable(f"document {session.document_id}: {fate.reason.value}")
        raise UpdateRefused(session.document_id, fate.reason.value)
    if not fate.repeated:
        transaction.on_commit(lambda: _tell(session, fate, taken.update))
    return fate


def _tell(session: WriteSession, stored: Stored, update: bytes) -> None:
    log_appended.send(
        sender=Document,
        document_id=session.document_id,
        stored=stored,
        update=update,
    )
    tell_of_change(session.document_id, seq=stored.seq, actor=session.user)
