"""Versions: what people name, what locks hold, and what is kept by itself."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, connection, transaction
from django.http import Http404
from django.utils import timezone
from pytest_django import Settings

from documents.models import Access, Document, Membership, Role
from documents.opening import delete_document
from documents.tasks import purge_deleted
from history.errors import NoSuchSeq
from history.models import Head, Update, Version
from history.proof.verify import Difference, verify_document
from history.squash import squash_document
from history.tasks import keep_versions
from history.versions import (
    NoSuchVersion,
    TooManyVersions,
    VersionCursor,
    VersionLocked,
    VersionNameTaken,
    change_version,
    delete_version,
    name_version,
    version_page,
)
from tests.builders import (
    NEVER_WARM,
    append_rows,
    in_thread,
    make_document,
    make_session,
    make_user,
    rechain,
    typed,
)
from tests.integration.history.waiting import backend_waiting_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.fromisoformat("2026-03-18T12:00:00Z")
"""A Wednesday."""


def a_written_document(*members: tuple[Any, Role], rows: int = 12) -> Document:
    document = make_document()
    for user, role in members:
        Membership.objects.create(document=document, user=user, role=role)
    append_rows(make_session(document), typed("abcdefghijklmnopqrstuvwxyz"[:rows]))
    return document


def named(document: Document) -> dict[str, int]:
    return dict(Version.objects.filter(document=document, automatic=False).values_list("name", "seq"))


def test_a_version_has_its_seq_time_author_and_note() -> None:
    ann = make_user("ann")
    document = a_written_document((ann, Role.EDITOR))
    line = name_version(document, name="  First \n draft ", note="for Bea  \n\n", seq=3, actor=ann)
    version = line.version
    assert (version.name, version.note, version.seq) == ("First draft", "for Bea", 3)
    assert (version.created_by, line.author.name, line.is_beyond) == (ann, "ann", False)
    assert version.at == Update.objects.get(document=document, seq=3).at
    squash_document(document.pk, older_than=NEVER_WARM)
    assert name_version(document, name="The same", seq=3, actor=ann).version.at == version.at


def test_without_a_seq_the_head_is_named_and_seq_0_has_no_time() -> None:
    document = a_written_document()
    assert name_version(document, name="Now", actor=None).version.seq == 12
    start = name_version(document, name="Before the first word", seq=0, actor=None).version
    assert (start.seq, start.at) == (0, None)
    with pytest.raises(NoSuchSeq):
        name_version(document, name="Later", seq=13, actor=None)


@pytest.mark.parametrize("name", ["", " \n ", "x" * 201, "a\x00b", "a\ud800", "\x07", "a\u202eb", "a\u2066b"])
def test_a_name_that_nobody_could_read_is_refused(name: str) -> None:
    document = a_written_document()
    with pytest.raises(ValidationError):
        name_version(document, name=name, actor=None)
    with pytest.raises(ValidationError):
        name_version(document, name="Fine", note=name if name.strip() and len(name) < 200 else "y" * 2001, actor=None)


def test_a_name_is_given_once_in_a_document_and_again_in_another() -> None:
    document, other = a_written_document(), a_written_document()
    name_version(document, name="Café", seq=1, actor=None)
    with pytest.raises(VersionNameTaken):
        name_version(document, name="Cafe\u0301", seq=2, actor=None)
    second = name_version(document, name="Second", seq=2, actor=None).version
    with pytest.raises(VersionNameTaken):
        change_version(document, second.id, name="Café", actor=None)
    name_version(other, name="Café", actor=None)
    assert named(document) == {"Café": 1, "Second": 2}


def test_of_two_who_give_one_name_at_once_one_is_told_that_it_is_taken() -> None:
    document = a_written_document()
    with transaction.atomic():
        name_version(document, name="Ours", seq=1, actor=None)
        other = in_thread(lambda: name_version(document, name="Ours", seq=2, actor=None))
        backend_waiting_for_a_lock()
    with pytest.raises(VersionNameTaken):
        other.result(timeout=30)
    assert named(document) == {"Ours": 1}


def test_a_right_that_is_taken_lets_no_naming_through_from_its_commit_on() -> None:
    ann = make_user()
    document = a_written_document((ann, Role.EDITOR))
    with transaction.atomic():
        Membership.objects.filter(document=document, user=ann).update(role=Role.VIEWER)
        late = in_thread(lambda: name_version(document, name="Late", actor=ann))
        backend_waiting_for_a_lock()
    with pytest.raises(PermissionDenied):
        late.result(timeout=30)
    assert named(document) == {}


# What each may do: list, name, rename, lock, delete. True, or what it is refused with.
RIGHTS: dict[str, tuple[Any, Any, Any]] = {
    "stranger": (Http404, Http404, Http404),
    "viewer": (PermissionDenied, PermissionDenied, PermissionDenied),
    "editor": (True, True, PermissionDenied),
    "owner": (True, True, True),
}


@pytest.mark.parametrize("who", RIGHTS)
def test_editors_name_and_owners_lock(who: str) -> None:
    roles = {"viewer": Role.VIEWER, "editor": Role.EDITOR, "owner": Role.OWNER}
    user = make_user(who)
    document = a_written_document(*[(user, roles[who])] if who in roles else [])
    version = name_version(document, name="Theirs", actor=None).version
    acts: tuple[Callable[[], object], ...] = (
        lambda: name_version(document, name="Mine", actor=user),
        lambda: change_version(document, version.id, name="Renamed", note="said", actor=user),
        lambda: change_version(document, version.id, locked=True, actor=user),
    )
    for act, outcome in zip(acts, RIGHTS[who], strict=True):
        if outcome is True:
            act()
        else:
            with pytest.raises(outcome):
                act()
    if RIGHTS[who][0] is not True:
        with pytest.raises(RIGHTS[who][0]):
            delete_version(document, version.id, actor=user)


def test_a_locked_version_is_neither_renamed_nor_deleted_until_an_owner_unlocks_it() -> None:
    document = a_written_document()
    version = name_version(document, name="Signed", actor=None).version
    change_version(document, version.id, note="by all", locked=True, actor=None)
    with pytest.raises(VersionLocked):
        change_version(document, version.id, name="Forged", actor=None)
    with pytest.raises(VersionLocked):
        change_version(document, version.id, note="by none", actor=None)
    with pytest.raises(VersionLocked):
        delete_version(document, version.id, actor=None)
    line = change_version(document, version.id, name="Draft again", locked=False, actor=None)
    assert (line.version.name, line.version.note, line.version.locked) == ("Draft again", "by all", False)
    delete_version(document, version.id, actor=None)
    with pytest.raises(NoSuchVersion):
        delete_version(document, version.id, actor=None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE history_version SET name = 'forged'",
        "UPDATE history_version SET note = 'forged'",
        "UPDATE history_version SET seq = 1",
        "UPDATE history_version SET at = now()",
        "UPDATE history_version SET locked = false, name = 'forged'",
        "UPDATE history_version SET id = 1",
        "UPDATE history_version SET automatic = true, name = ''",
        "UPDATE history_version SET created_by_id = (SELECT id FROM auth_user WHERE username = 'other')",
        "DELETE FROM history_version",
    ],
)
def test_raw_sql_does_not_get_past_a_lock(statement: str) -> None:
    make_user("other")
    document = a_written_document()
    version = name_version(document, name="Signed", actor=None).version
    change_version(document, version.id, locked=True, actor=None)
    with pytest.raises(IntegrityError, match="is locked"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert named(document) == {"Signed": 12}


def test_a_locked_version_outlives_its_author_and_goes_with_its_document() -> None:
    ann = make_user()
    document = a_written_document((ann, Role.OWNER))
    version = name_version(document, name="Signed", actor=ann).version
    change_version(document, version.id, locked=True, actor=ann)
    ann.delete()
    (line,) = version_page(document).lines
    assert (line.version.created_by, line.version.locked, line.author.is_known) == (None, True, False)
    delete_document(document, now=timezone.now() - timedelta(days=365))
    assert purge_deleted() == 1
    assert not Version.objects.exists()


def test_no_more_versions_are_named_than_a_document_may_have(settings: Settings) -> None:
    settings.PALIMPSEST = {"VERSIONS_MAX": 2}
    document = a_written_document()
    automatic = Version.objects.create(document=document, id=5, seq=1, at=NOW, created_at=NOW, automatic=True)
    for name in ("One", "Two"):
        name_version(document, name=name, actor=None)
    with pytest.raises(TooManyVersions):
        name_version(document, name="Three", actor=None)
    with pytest.raises(TooManyVersions):
        change_version(document, automatic.id, name="Three", actor=None)


def test_pages_go_through_all_versions_once_the_last_moment_first() -> None:
    document = a_written_document()
    for number, seq in enumerate((3, 12, 3, 3, 7), 1):
        name_version(document, name=str(number), seq=seq, actor=None)
    seen: list[int] = []
    cursor: VersionCursor | None = None
    while True:
        page = version_page(document, cursor=cursor, limit=2)
        seen += [line.version.seq for line in page.lines]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [12, 7, 3, 3, 3]


def test_a_version_behind_the_end_of_a_log_that_was_set_back_says_so() -> None:
    document = a_written_document()
    name_version(document, name="Kept", seq=4, actor=None)
    lost = name_version(document, name="Lost", actor=None).version
    Update.objects.filter(document=document, seq__gt=5).delete()
    rechain(document)
    Head.objects.filter(document=document).update(epoch=2)
    assert {line.version.name: line.is_beyond for line in version_page(document).lines} == {"Kept": False, "Lost": True}
    assert change_version(document, lost.id, note="gone", actor=None).is_beyond
    outcome = verify_document(document.pk)
    assert isinstance(outcome, Difference) and (outcome.seq, "version of 12" in outcome.what) == (6, True)
    age(document, hours=9)
    assert keep_versions() == 1  # what the log has is kept all the same
    delete_version(document, lost.id, actor=None)


def age(document: Document, *, hours: float, apart_seconds: float = 0) -> None:
    """Let the first edit be that many hours old and each further one that much younger."""
    first = timezone.now() - timedelta(hours=hours)
    rechain(document, at=lambda seq: first + timedelta(seconds=apart_seconds * (seq - 1)))


def automatic_seqs(document: Document) -> list[int]:
    return sorted(Version.objects.filter(document=document, automatic=True).values_list("seq", flat=True))


def test_a_document_that_is_worked_on_gets_a_version_by_itself_once() -> None:
    worked_on, fresh, untouched = a_written_document(), a_written_document(), make_document()
    age(worked_on, hours=8.1, apart_seconds=60)
    age(fresh, hours=7.9)
    assert keep_versions() == 1
    assert keep_versions() == 0
    assert [automatic_seqs(each) for each in (worked_on, fresh, untouched)] == [[12], [], []]
    (line,) = version_page(worked_on).lines
    assert (line.version.at, line.version.name) == (Head.objects.get(document=worked_on).at, "")


def test_edits_behind_the_last_version_have_hours_of_their_own() -> None:
    document = a_written_document()
    age(document, hours=20, apart_seconds=3600)  # one an hour: the last is 9 hours old
    name_version(document, name="By hand", seq=12, actor=None)
    assert keep_versions() == 0
    Version.objects.all().delete()
    name_version(document, name="By hand", seq=11, actor=None)
    assert keep_versions() == 1
    append_rows(make_session(document), typed("more", client_id=2))
    assert keep_versions() == 0
    assert automatic_seqs(document) == [12]


def test_edits_that_are_squashed_count_as_well() -> None:
    document = a_written_document(rows=10)
    age(document, hours=30)
    assert squash_document(document.pk, older_than=NEVER_WARM) == 10
    assert keep_versions() == 1
    assert automatic_seqs(document) == [10]


def test_nothing_is_kept_by_itself_where_that_is_off_or_the_document_is_deleted(settings: Settings) -> None:
    document = a_written_document()
    age(document, hours=9)
    settings.PALIMPSEST = {"AUTOMATIC_VERSION_HOURS": 0}
    assert keep_versions() == 0
    settings.PALIMPSEST = {}
    delete_document(document)
    assert keep_versions() == 0


def test_a_second_worker_makes_no_second_version() -> None:
    """It finds the document due, waits, and by then somebody has also written on."""
    document = a_written_document()
    age(document, hours=9)
    with transaction.atomic():
        Access.objects.select_for_update().get(document=document)
        second = in_thread(keep_versions)
        backend_waiting_for_a_lock()
        assert keep_versions() == 1
        append_rows(make_session(document), typed("more", client_id=2))
    assert second.result(timeout=30) == 0
    assert automatic_seqs(document) == [12]


def test_old_versions_that_came_by_themselves_are_thinned_to_the_last_of_each_week() -> None:
    document = a_written_document(rows=12)
    now = timezone.now()
    monday = (now - timedelta(days=60)).replace(hour=0, minute=0, second=1)
    monday -= timedelta(days=monday.weekday())
    days = {1: 0, 2: 1, 3: 3, 4: 6, 5: 7, 6: 8}  # a week, and two of the next
    for seq, day in days.items():
        Version.objects.create(
            document=document, id=seq, seq=seq, at=monday + timedelta(days=day), created_at=now, automatic=True
        )
    for seq in (7, 8):
        at = now - timedelta(days=2)
        Version.objects.create(document=document, id=seq, seq=seq, at=at, created_at=now, automatic=True)
    change_version(document, 1, locked=True, actor=None)
    change_version(document, 2, note="the one that Bea liked", actor=None)
    change_version(document, 3, name="Named since", actor=None)
    age(document, hours=9)
    assert keep_versions() == 1
    assert automatic_seqs(document) == [1, 2, 4, 6, 7, 8, 12]
    assert named(document) == {"Named since": 3}


def test_an_author_who_may_not_see_the_document_names_nothing_through_an_old_object() -> None:
    ann: User = make_user()
    document = a_written_document((ann, Role.EDITOR))
    delete_document(Document.objects.get(pk=document.pk))
    with pytest.raises(Http404):
        name_version(document, name="Gone", actor=ann)
