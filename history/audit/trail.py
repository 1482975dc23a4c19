"""The audit as people read it: edits and acts of all documents in one stream, the newest first.

Edits are the log's runs and acts the audit's entries; each is read where it is kept, and neither is copied. Callers
have passed the gate: a filter names the documents that its reader may know of."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet

from documents.models import Document
from history.audit.entries import NO_DOCUMENT
from history.authors import Author, author_of
from history.log import consistent_read
from history.models import Action, AuditEntry, AuditHead, Kind, Via
from history.runs import SUMMARIES_PER_QUERY, RunSummary, edits
from history.timeline import act_of

LINES_PER_PAGE = 50
LINES_READ_MAX = 2000
"""Lines that one page of a filter looks at; the next page goes on where it stopped."""

ENTRIES_PER_QUERY = 500

USERS_NAMED_MAX = 1000
"""Accounts whose names hold the words that are looked for; of more, the first by key."""


class What(Enum):
    """What a line of the audit may be asked to be: an edit of some kind, or an act. `value` is what a filter names."""

    EDITED = "edited"
    RESTORED = "restored"
    UNDONE = "undone"
    IMPORTED = "imported"
    CREATED = "created"
    OPENED = "opened"
    RENAMED = "renamed"
    MEMBER_ADDED = "member-added"
    ROLE_CHANGED = "role-changed"
    MEMBER_REMOVED = "member-removed"
    OPENED_TO_ALL = "opened-to-all"
    CLOSED_TO_ALL = "closed-to-all"
    DELETED = "deleted"
    RECOVERED = "recovered"
    ERASED = "erased"
    EXPORTED = "exported"
    COPIED = "copied"
    VERSION_NAMED = "version-named"
    VERSION_RENAMED = "version-renamed"
    VERSION_LOCKED = "version-locked"
    VERSION_UNLOCKED = "version-unlocked"
    VERSION_DELETED = "version-deleted"
    WRITE_REFUSED = "write-refused"
    AUTHOR_MATCHED = "author-matched"

    @property
    def action(self) -> Action | None:
        """None for what is in the log."""
        return Action.__members__.get(self.name)

    @property
    def label(self) -> str:
        return self.action.label if self.action is not None else self.value


_OF_KIND = {Kind.RESTORE: What.RESTORED, Kind.UNDO: What.UNDONE, Kind.IMPORT: What.IMPORTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailFilter:
    """Which lines are wanted. `documents` are those that the reader may know of, narrowed further or not; `beyond` says
    that these are all, and that acts on none of them (on documents that are gone, on no one document) are wanted too;
    `gone_key` asks for those on one that is gone.

    `words` are looked for in titles, room names, user names (a member's too) and details. Times are both included."""

    documents: QuerySet[Document]
    beyond: bool = False
    gone_key: UUID | None = None
    user: Any | None = None
    via: Via | None = None
    what: What | None = None
    words: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailCursor:
    """Go on after the `skip`-th of the lines of that moment: a batch gives many the same time."""

    at: datetime
    skip: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailLine:
    """One run of edits (`run`) or one act (`entry`, its place in the audit of its document). `document` is None where
    it is gone or there is none; `member` is the name of whom an act is about, as long as there is one."""

    at: datetime
    user: Any | None
    via: Via | None
    ip: str | None
    what: What
    document_id: int
    document: Document | None
    run: RunSummary | None = None
    entry: int | None = None
    detail: dict[str, Any] | None = None
    member: str | None = None

    @property
    def author(self) -> Author:
        return author_of(self.user)

    @property
    def act(self) -> str:
        """In a word or three."""
        return self.what.label if self.run is None else act_of(self.run.kind) or "edit"

    @property
    def told(self) -> str:
        """What else there is to tell of an act, for people."""
        detail = dict(self.detail or {})
        if "member" in detail:
            detail["member"] = self.member or "an account that is gone"
        words = {True: "yes", False: "no"}
        told = {name: words[value] if isinstance(value, bool) else value for name, value in detail.items()}
        return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.items() if value is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailPage:
    """Lines, the newest first; `next_cursor` asks for the page after it, None on the last."""

    lines: list[TrailLine]
    next_cursor: TrailCursor | None


def trail_page(wanted: TrailFilter, *, cursor: TrailCursor | None = None, limit: int = LINES_PER_PAGE) -> TrailPage:
    """One page, all of one moment. At most LINES_READ_MAX lines are looked at, so that it may be short."""
    shown: list[TrailLine] = []
    at, same = (cursor.at, 0) if cursor else (None, 0)
    read = 0
    with consistent_read():
        for moment, line in _newest_first(wanted, until=cursor.at if cursor else wanted.until):
            # Of that moment alone: a run that was told has a later one by now, where its edits went on.
            was_told = cursor is not None and moment == cursor.at and same < cursor.skip
            if not was_told and (len(shown) == limit or read == LINES_READ_MAX):
                return TrailPage(lines=shown, next_cursor=None if at is None else TrailCursor(at=at, skip=same))
            same = same + 1 if moment == at else 1
            at = moment
            if was_told:
                continue
            read += 1
            if line is not None:
                shown.append(line)
    return TrailPage(lines=shown, next_cursor=None)


def trail(wanted: TrailFilter) -> Iterator[TrailLine]:
    """All lines, for one who takes their time: in short reads and no transaction, in memory that grows with documents
    (see `runs.edits`) and not with lines. Lines that come meanwhile may be missing."""
    return (line for _, line in _newest_first(wanted, until=wanted.until) if line is not None)


_Read = tuple[datetime, TrailLine | None]
"""When a line is of, and the line where it is wanted: what was looked at in vain is counted too."""


def _newest_first(wanted: TrailFilter, *, until: datetime | None) -> Iterator[_Read]:
    of_log = _runs(wanted, until=until) if wanted.what is None or wanted.what.action is None else iter(())
    of_audit = _entries(wanted, until=until) if wanted.what is None or wanted.what.action is not None else iter(())
    return heapq.merge(of_log, of_audit, key=lambda read: read[0], reverse=True)


def _runs(wanted: TrailFilter, *, until: datetime | None) -> Iterator[_Read]:
    runs = edits(user=wanted.user, since=wanted.since, until=until, documents_visible=wanted.documents)
    words = wanted.words.casefold()
    while page := list(islice(runs, SUMMARIES_PER_QUERY)):
        documents = Document.objects.in_bulk({run.document_id for run in page})
        for run in page:
            line = _line_of_run(run, documents.get(run.document_id))
            yield run.last_at, line if _is_wanted(line, wanted, words) else None


def _line_of_run(run: RunSummary, document: Document | None) -> TrailLine:
    return TrailLine(
        at=run.last_at,
        user=run.user,
        via=run.via,
        ip=run.ip,
        what=_OF_KIND.get(run.kind, What.EDITED),
        document_id=run.document_id,
        document=document,
        run=run,
    )


def _is_wanted(line: TrailLine, wanted: TrailFilter, words: str) -> bool:
    if wanted.via not in (None, line.via) or wanted.what not in (None, line.what):
        return False
    if not words:
        return True
    names = [] if line.document is None else [line.document.title, line.document.name]
    names += [] if line.user is None else [str(line.user.get_username())]
    return any(words in name.casefold() for name in names)


def _entries(wanted: TrailFilter, *, until: datetime | None) -> Iterator[_Read]:
    """By pages, each behind the last entry of the one before: what is removed meanwhile leaves no hole and no copy."""
    entries = _wanted_entries(wanted)
    if until is not None:
        entries = entries.filter(at__lte=until)
    entries = entries.order_by("-at", "-document_id", "-n").select_related("user")
    last: AuditEntry | None = None
    while True:
        page = list((entries if last is None else entries.filter(_behind(last)))[:ENTRIES_PER_QUERY])
        yield from ((line.at, line) for line in _lines_of_entries(page))
        if len(page) < ENTRIES_PER_QUERY:
            return
        last = page[-1]


def _behind(last: AuditEntry) -> Q:
    same_document = Q(document_id=last.document_id, n__lt=last.n)
    return Q(at__lte=last.at) & (Q(at__lt=last.at) | Q(document_id__lt=last.document_id) | same_document)


def _wanted_entries(wanted: TrailFilter) -> QuerySet[AuditEntry]:
    known = Q() if wanted.beyond else Q(document_id__in=wanted.documents.order_by().values("pk"))
    if wanted.gone_key is not None:
        known |= Q(document_id__in=AuditHead.objects.filter(key=wanted.gone_key).values("document_id"))
    exact = {"user": wanted.user, "via": wanted.via, "at__gte": wanted.since}
    exact["action"] = None if wanted.what is None else wanted.what.action
    entries = AuditEntry.objects.filter(known, **{name: value for name, value in exact.items() if value is not None})
    return entries.filter(_holding(wanted.words)) if wanted.words else entries


def _holding(words: str) -> Q:
    model: Any = get_user_model()
    named = model.objects.filter(**{f"{model.USERNAME_FIELD}__icontains": words}).order_by("pk")
    users = list(named.values_list("pk", flat=True)[:USERS_NAMED_MAX])
    titled = Document.objects.filter(Q(title__icontains=words) | Q(name__icontains=words)).values("pk")
    about = Q(detail__member__in=[str(user) for user in users])
    return Q(document_id__in=titled) | Q(user__in=users) | about | Q(detail__icontains=words)


def _lines_of_entries(entries: Sequence[AuditEntry]) -> list[TrailLine]:
    documents = Document.objects.in_bulk({entry.document_id for entry in entries} - {NO_DOCUMENT})
    members = _names_of({str(entry.detail["member"]) for entry in entries if entry.detail and "member" in entry.detail})
    return [
        TrailLine(
            at=entry.at,
            user=entry.user,
            via=Via(entry.via),
            ip=entry.ip,
            what=What[Action(entry.action).name],
            document_id=entry.document_id,
            document=documents.get(entry.document_id),
            entry=entry.n,
            detail=entry.detail,
            member=members.get(str((entry.detail or {}).get("member"))),
        )
        for entry in entries
    ]


def _names_of(user_keys: set[str]) -> dict[str, str]:
    if not user_keys:
        return {}
    model: Any = get_user_model()
    return {str(user.pk): str(user.get_username()) for user in model.objects.filter(pk__in=user_keys)}
