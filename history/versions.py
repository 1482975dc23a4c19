"""Versions: moments of a document that people named, and those that are kept by themselves while people work.

A locked version is neither renamed nor deleted nor thinned; triggers hold that against raw SQL too. All changes to the
versions of one document come one after the other, behind the row that a change of its rights writes."""

import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from documents.conf import conf
from documents.models import Access, Document, Role
from documents.naming import BIDI_CONTROLS, clean_line, has_control_characters
from documents.roles import document_for
from history.audit.entries import record
from history.authors import Author, author_of
from history.errors import HistoryError, NoSuchSeq
from history.log import consistent_read, head_of, read_log
from history.models import VERSION_NAME_LENGTH_MAX, VERSION_NOTE_LENGTH_MAX, Action, Version

VERSIONS_PER_PAGE = 50

LOOKBACK = timedelta(days=7)
"""A document becomes due by being edited; one whose turn nobody took for this long waits for its next edit."""

# Documents with edits behind their last version, the first of them old enough. Of an edit that is squashed the time is
# taken for that of its segment's last: a version may then come later, by at most what a segment spans.
DUE_FOR_A_VERSION = """
SELECT head.document_id, head.seq, head.at
FROM history_head head
JOIN documents_document document ON document.id = head.document_id AND document.deleted_at IS NULL
CROSS JOIN LATERAL (
    SELECT COALESCE(MAX(seq), 0) AS seq FROM history_version
    WHERE document_id = head.document_id AND seq <= head.seq
) last
LEFT JOIN history_update row ON row.document_id = head.document_id AND row.seq = last.seq + 1
LEFT JOIN LATERAL (
    SELECT last_at FROM history_segment
    WHERE document_id = head.document_id AND first_seq <= last.seq + 1 ORDER BY first_seq DESC LIMIT 1
) segment ON true
WHERE head.seq > last.seq AND head.at > %(since)s AND COALESCE(row.at, segment.last_at) <= %(older_than)s
  AND head.document_id = COALESCE(%(document_id)s, head.document_id)
ORDER BY head.at LIMIT %(limit)s
"""
THIN = """
DELETE FROM history_version old
WHERE document_id = %(document_id)s AND automatic AND note = '' AND NOT locked AND at < %(older_than)s AND EXISTS (
    SELECT 1 FROM history_version later
    WHERE later.document_id = old.document_id AND later.automatic AND later.seq > old.seq
      AND later.at < %(older_than)s
      AND date_trunc('week', later.at AT TIME ZONE 'UTC') = date_trunc('week', old.at AT TIME ZONE 'UTC')
)
"""


class NoSuchVersion(HistoryError):
    """Raised for a version that the document does not have, or no longer."""

    def __init__(self, document_id: int, version_id: int) -> None:
        super().__init__(f"document {document_id} has no version {version_id}")


class VersionNameTaken(HistoryError):
    """Raised when another version of the document has that name."""

    def __init__(self, document_id: int) -> None:
        super().__init__(f"document {document_id} has a version of that name")


class VersionLocked(HistoryError):
    """Raised when a locked version was to be changed or deleted."""

    def __init__(self, document_id: int, version_id: int) -> None:
        super().__init__(f"version {version_id} of document {document_id} is locked")


class TooManyVersions(HistoryError):
    """Raised when people have named VERSIONS_MAX versions of the document."""

    def __init__(self, document_id: int) -> None:
        super().__init__(f"document {document_id} has as many named versions as it may have")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLine:
    """A version as it is shown. `is_beyond`: the log was set back and ends before it; its moment cannot be opened."""

    version: Version
    author: Author
    is_beyond: bool


@dataclass(frozen=True, slots=True)
class VersionCursor:
    """Go on behind this version."""

    seq: int
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPage:
    """Lines, the version of the last moment first; `next_cursor` asks for the rest, None on the last page."""

    lines: list[VersionLine]
    next_cursor: VersionCursor | None


def version_page(
    document: Document, *, cursor: VersionCursor | None = None, limit: int = VERSIONS_PER_PAGE
) -> VersionPage:
    """A document's versions, at most `limit`. One query, over all of its versions. The caller has passed the gate."""
    with consistent_read():
        head_seq = head_of(document.pk).seq
        versions = Version.objects.filter(document=document).select_related("created_by").order_by("-seq", "-id")
        if cursor is not None:
            versions = versions.filter(Q(seq__lt=cursor.seq) | Q(seq=cursor.seq, id__lt=cursor.id))
        found = list(versions[: limit + 1])
    shown = found[:limit]
    rest = VersionCursor(shown[-1].seq, shown[-1].id) if len(found) > limit else None
    return VersionPage(lines=[_line(version, head_seq) for version in shown], next_cursor=rest)


def version_line(document: Document, version_id: int) -> VersionLine:
    """One version. Raises: NoSuchVersion. The caller has passed the gate."""
    with consistent_read():
        return _line(_version(document.pk, version_id), head_of(document.pk).seq)


def name_version(
    document: Document, *, name: str, note: str = "", seq: int | None = None, actor: Any | None
) -> VersionLine:
    """Name a seq; the head of this moment without one. One seq may have several names, a name one seq.

    Editors may; without an actor the code that calls is trusted. For a squashed seq its segment is unpacked.
    Raises: ValidationError, NoSuchSeq, VersionNameTaken, TooManyVersions, LogHole; Http404, PermissionDenied."""
    name, note = clean_name(name), clean_note(note)
    seq, at, head_seq = _moment(document.pk, seq)
    with _writing(document.pk, actor=actor, role=Role.EDITOR):
        named = Version.objects.filter(document=document, automatic=False)
        if named.filter(name=name).exists():
            raise VersionNameTaken(document.pk)
        if named.count() >= conf().versions_max:
            raise TooManyVersions(document.pk)
        version = Version.objects.create(
            document=document,
            id=_new_id(),
            seq=seq,
            at=at,
            name=name,
            note=note,
            created_by=actor if actor is not None and actor.is_authenticated else None,
            created_at=timezone.now(),
        )
        record(Action.VERSION_NAMED, document=document, user=actor, detail=_told(version))
    return _line(version, head_seq)


def change_version(
    document: Document,
    version_id: int,
    *,
    name: str | None = None,
    note: str | None = None,
    locked: bool | None = None,
    actor: Any | None,
) -> VersionLine:
    """Change what is given. Editors rename and annotate, owners lock and unlock; unlocking comes first and locking
    last. A version that came by itself is a person's once it is named.

    Raises: ValidationError, NoSuchVersion, VersionNameTaken, VersionLocked, TooManyVersions; Http404,
    PermissionDenied."""
    name, note = None if name is None else clean_name(name), None if note is None else clean_note(note)
    with _writing(document.pk, actor=actor, role=Role.EDITOR if locked is None else Role.OWNER):
        version = _version(document.pk, version_id)
        was, was_locked = _told(version), version.locked
        if locked is False:
            _save(version, locked=False)
        if name is not None or note is not None:
            if version.locked:
                raise VersionLocked(document.pk, version_id)
            _rename(version, name=name, note=note)
        if locked:
            _save(version, locked=True)
        told = _told(version)
        if told["name"] != was["name"]:
            record(Action.VERSION_RENAMED, document=document, user=actor, detail={**told, "was": was["name"]})
        if version.locked != was_locked:
            action = Action.VERSION_LOCKED if version.locked else Action.VERSION_UNLOCKED
            record(action, document=document, user=actor, detail=told)
        head_seq = head_of(document.pk).seq
    return _line(version, head_seq)


def delete_version(document: Document, version_id: int, *, actor: Any | None) -> None:
    """Forget that a seq was named; the log has it still. Editors may. One that came by itself and is of the head may
    come again.

    Raises: NoSuchVersion, VersionLocked; Http404, PermissionDenied."""
    with _writing(document.pk, actor=actor, role=Role.EDITOR):
        version = _version(document.pk, version_id)
        if version.locked:
            raise VersionLocked(document.pk, version_id)
        told = _told(version)
        version.delete()
        record(Action.VERSION_DELETED, document=document, user=actor, detail=told)


def documents_due_for_a_version(*, now: datetime, limit: int) -> list[int]:
    """Documents with edits behind their last version of which the first is AUTOMATIC_VERSION_HOURS old.

    One query over the heads that moved since LOOKBACK before that."""
    return [document_id for document_id, _, _ in _due(now=now, document_id=None, limit=limit)]


def keep_version(document_id: int, *, now: datetime) -> bool:
    """Make the head a version if that is due still, and thin older ones that came by themselves; twice is once."""
    with _writing(document_id, actor=None, role=Role.EDITOR):
        for _, seq, at in _due(now=now, document_id=document_id, limit=1):
            Version.objects.create(
                document_id=document_id, id=_new_id(), seq=seq, at=at, created_at=now, automatic=True
            )
            _thin(document_id, now=now)
            return True
    return False


def clean_name(name: str) -> str:
    """A version's name in one line. Raises: ValidationError."""
    return clean_line(name, what="A name", length_max=VERSION_NAME_LENGTH_MAX)


def clean_note(note: str) -> str:
    """A version's note, of any lines; it may be empty. Raises: ValidationError."""
    cleaned = unicodedata.normalize("NFC", "\n".join(line.rstrip() for line in note.splitlines()).strip())
    if len(cleaned) > VERSION_NOTE_LENGTH_MAX or has_control_characters(cleaned.translate({0x09: None, 0x0A: None})):
        what = f"A note has at most {VERSION_NOTE_LENGTH_MAX} characters, none of them a control character."
        raise ValidationError(what)
    if not BIDI_CONTROLS.isdisjoint(cleaned):
        raise ValidationError("A note has no characters that turn the direction of text.")
    return cleaned


@contextmanager
def _writing(document_id: int, *, actor: Any | None, role: Role) -> Iterator[None]:
    """One transaction, alone with this document's versions and rights: a right that was taken lets nothing through
    from its commit on, and a change of rights waits for what is under way.

    The access row and not the head's: live appends go on. Raises: Http404, PermissionDenied."""
    with transaction.atomic():
        list(Access.objects.select_for_update(no_key=True).filter(document_id=document_id))
        if actor is not None:
            document_for(actor, role=role, pk=document_id)
        yield


def _moment(document_id: int, seq: int | None) -> tuple[int, datetime | None, int]:
    """The seq, its time and the head's seq. Raises: NoSuchSeq, LogHole."""
    with consistent_read():
        head = head_of(document_id)
        seq = head.seq if seq is None else seq
        if not 0 <= seq <= head.seq:
            raise NoSuchSeq(document_id, seq, head.seq)
        if seq in (0, head.seq):
            return seq, head.at if seq else None, head.seq
        return seq, next(read_log(document_id, after=seq - 1, until=seq)).at, head.seq


def _version(document_id: int, version_id: int) -> Version:
    versions = Version.objects.select_related("created_by").filter(document_id=document_id, id=version_id)
    version = versions.first()
    if version is None:
        raise NoSuchVersion(document_id, version_id)
    return version


def _rename(version: Version, *, name: str | None, note: str | None) -> None:
    if name is not None and name != version.name:
        named = Version.objects.filter(document_id=version.document_id, automatic=False)
        if named.filter(name=name).exists():
            raise VersionNameTaken(version.document_id)
        if version.automatic and named.count() >= conf().versions_max:
            raise TooManyVersions(version.document_id)
        _save(version, name=name, automatic=False)
    if note is not None:
        _save(version, note=note)


def _save(version: Version, **fields: Any) -> None:
    for field, value in fields.items():
        setattr(version, field, value)
    version.save(update_fields=list(fields))


def _told(version: Version) -> dict[str, str | int | None]:
    """What the audit is told of a version."""
    return {"version": version.id, "name": version.name, "seq": version.seq}


def _new_id() -> int:
    return secrets.randbits(52)  # a JavaScript number holds it


def _line(version: Version, head_seq: int) -> VersionLine:
    return VersionLine(
        version=version,
        author=author_of(version.created_by),
        is_beyond=version.seq > head_seq,
    )


def _due(*, now: datetime, document_id: int | None, limit: int) -> list[tuple[int, int, datetime]]:
    if not conf().automatic_version_hours:
        return []
    older_than = now - timedelta(hours=conf().automatic_version_hours)
    asked = {"document_id": document_id, "older_than": older_than, "since": older_than - LOOKBACK, "limit": limit}
    with connection.cursor() as cursor:
        cursor.execute(DUE_FOR_A_VERSION, asked)
        return [(found, seq, at) for found, seq, at in cursor.fetchall()]


def _thin(document_id: int, *, now: datetime) -> None:
    days = conf().automatic_version_days
    if days:
        with connection.cursor() as cursor:
            cursor.execute(THIN, {"document_id": document_id, "older_than": now - timedelta(days=days)})
