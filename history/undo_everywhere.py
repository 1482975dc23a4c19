"""Undo of what one account did, in all documents: preview, then document by document, each one update of its own.

It may be cut off anywhere and begun again: under the same name (`request_key`) a document that was done is passed over.
With an actor, only documents that they own are touched; without one the code that calls is trusted."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from documents.models import Document, DocumentQuerySet, Role
from documents.roles import role_for
from history.crdt.content import ContentTooDeep
from history.crdt.lib0 import Malformed
from history.crdt.restoring import RestoreFailed
from history.crdt.undoing import TooManyRows
from history.crdt.updates import MissingDependency
from history.errors import HistoryError, LogUnavailable, OutcomeUnknown
from history.heavy_reads import Busy
from history.models import Head, Request, Session, Via
from history.undoing import Plan, Whose, first_seq_since, last_seq_until, plan_undo
from history.writes import undo, write_session

logger = logging.getLogger(__name__)

REQUEST_KEY_LENGTH_MAX = 150

NOT_UNDONE = (
    ContentTooDeep,
    Head.DoesNotExist,
    HistoryError,
    Malformed,
    MissingDependency,
    RestoreFailed,
    TooManyRows,
)
"""What keeps one document from being undone, and no other one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUndo:
    """What the account `user_key` did from `since` to `until`, both included, undone by `actor` (None: the server).

    `request_key` names it: the same one again does nothing twice."""

    user_key: Any
    since: datetime
    until: datetime
    actor: Any | None
    request_key: str

    def __post_init__(self) -> None:
        if not 0 < len(self.request_key) <= REQUEST_KEY_LENGTH_MAX:
            raise ValueError(f"request_key has 1 to {REQUEST_KEY_LENGTH_MAX} characters")

    @property
    def log_key(self) -> str:
        """The name under which each document's log has it."""
        return f"undo-account:{self.request_key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One document: what is or was undone there. `problem` says why nothing is; `seq` is where it is in the log.

    In a preview `updates`, `inserted` and `deleted` count what would be (see `Plan`). All empty: nothing to undo."""

    document: Document
    updates: int = 0
    inserted: int = 0
    deleted: int = 0
    seq: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many documents of the account's there are in that time, and in how many of them it is undone."""

    documents: int
    undone: int


def documents_of(wanted: AccountUndo, *, after: int = 0) -> Iterator[Document]:
    """The documents with edits since `since` in which the account has ever written, by rising id from behind `after`.

    Deleted ones are left out. One query for each 100."""
    return _documents(wanted).filter(pk__gt=after).order_by("pk").iterator(chunk_size=100)


def _documents(wanted: AccountUndo) -> DocumentQuerySet:
    # Not by when sessions were opened: that is another clock's time than that of rows.
    written = Session.objects.filter(user=wanted.user_key)
    heads = Head.objects.filter(document_id__in=written.values("document_id"), at__gte=wanted.since)
    return Document.objects.present().filter(pk__in=heads.values("document_id"))


def preview(wanted: AccountUndo, *, after: int = 0) -> Iterator[Line]:
    """What would be undone, document by document; nothing is written. Costs what `plan_undo` does for each."""
    for document in documents_of(wanted, after=after):
        if refusal := _refusal(wanted, document):
            yield Line(document=document, problem=refusal)
            continue
        try:
            plan = _plan(wanted, document)
        except NOT_UNDONE as error:
            yield Line(document=document, problem=_said(error))
            continue
        if plan is None or plan.update is None:
            yield Line(document=document)
        else:
            yield Line(document=document, updates=plan.updates, inserted=plan.inserted, deleted=plan.deleted)


def carry_out(wanted: AccountUndo, *, after: int = 0) -> Iterator[Line]:
    """Undo it, document by document; each is told of once it is in its log.

    Raises: Busy, LogUnavailable, OutcomeUnknown: begin again, behind the last document that was told of or from the
    start."""
    for document in documents_of(wanted, after=after):
        if refusal := _refusal(wanted, document):
            yield Line(document=document, problem=refusal)
            continue
        try:
            seq = _undo_in(wanted, document)
        except (Busy, LogUnavailable, OutcomeUnknown):
            raise
        except NOT_UNDONE as error:
            logger.warning("not undone: document=%s error=%s", document.pk, type(error).__name__)
            yield Line(document=document, problem=_said(error))
            continue
        if seq is not None:
            logger.info("undone: document=%s seq=%s", document.pk, seq)
        yield Line(document=document, seq=seq)


def progress_of(wanted: AccountUndo) -> Progress:
    """How far it has come, by what the logs hold: also after a worker was killed."""
    actor = "" if wanted.actor is None else str(wanted.actor.pk)
    undone = Request.objects.filter(key=wanted.log_key, actor=actor).count()
    return Progress(documents=_documents(wanted).count(), undone=undone)


def _refusal(wanted: AccountUndo, document: Document) -> str:
    if wanted.actor is None:
        return ""
    role = role_for(wanted.actor, document)
    return "" if role is not None and role >= Role.OWNER else "only an owner may undo what others did"


def _span(wanted: AccountUndo, document: Document) -> tuple[int, int] | None:
    first_seq, last_seq = first_seq_since(document.pk, wanted.since), last_seq_until(document.pk, wanted.until)
    return (first_seq, last_seq) if first_seq <= last_seq else None


def _plan(wanted: AccountUndo, document: Document) -> Plan | None:
    span = _span(wanted, document)
    if span is None:
        return None
    return plan_undo(document.pk, Whose(user_key=wanted.user_key), first_seq=span[0], last_seq=span[1])


def _undo_in(wanted: AccountUndo, document: Document) -> int | None:
    span = _span(wanted, document)
    if span is None:
        return None
    session = write_session(document, actor=wanted.actor, via=Via.TASK)
    stored = undo(
        session,
        Whose(user_key=wanted.user_key),
        first_seq=span[0],
        last_seq=span[1],
        request_key=wanted.log_key,
    )
    return None if stored is None else stored.seq


def _said(error: Exception) -> str:
    match error:
        case TooManyRows():
            return str(error)
        case Head.DoesNotExist():
            return "it is gone"
        case HistoryError():
            return "its log does not take or give it now"
        case _:
            return "it could not be undone exactly"
