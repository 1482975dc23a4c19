"""`verify_history` against manifests, in parallel and resumed: nothing is left out and nothing looked at twice."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings

from config.stack.configuration import PROJECT, base_environment
from documents.acts import Actor, acting
from documents.models import Document, Membership, Role
from documents.opening import rename_document
from history.copies import copy_history
from history.crdt.chain import entry_hash
from history.models import AuditEntry, AuditHead, Head, Segment, Session, Update, Version
from history.proof import proving
from history.proof.manifests import audits_of_all_documents, heads_of_all_documents, open_manifest, write_manifest
from history.proof.signing import load_key, make_key, public_pem
from history.proof.verify import verify_document
from history.squash import squash_document
from history.times import microseconds
from history.versions import change_version, delete_version, name_version
from tests.builders import (
    NEVER_WARM,
    append_rows,
    log_of,
    make_document,
    make_history,
    make_session,
    make_user,
    rechain,
    typed,
)

pytestmark = pytest.mark.django_db


class Published:
    """Manifests of this database, and the files to hold it to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key: Ed25519PrivateKey = make_key(folder / "key.pem")
        self._previous = b""
        self.day = timezone.now().astimezone(UTC) - timedelta(days=20)
        """When the next one is made; one follows the other by a day."""
        (folder / "public.pem").write_text(public_pem(self._key.public_key()))
        self.paths: list[str] = []

    def publish(self) -> None:
        path = self._folder / f"manifest-{len(self.paths)}.jsonl"
        with path.open("wb") as out:
            heads, audits = heads_of_all_documents(), audits_of_all_documents()
            written = write_manifest(out, heads, audits, created_at=self.day, previous=self._previous, key=self._key)
        self._previous = written.sha256
        self.day += timedelta(days=1)
        self.paths.append(str(path))

    @property
    def arguments(self) -> list[str]:
        return ["--manifest", *self.paths, "--public-key", str(self._folder / "public.pem")]


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


def _run(*arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    out = io.StringIO()
    try:
        call_command("verify_history", *arguments, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


@pytest.fixture
def document() -> Document:
    """26 rows by ada and bob, of which the first 10 are squashed."""
    document = make_document("minutes")
    append_rows(make_session(document, make_user("ada")), typed("abcdefghijklm"))
    append_rows(make_session(document, make_user("bob")), typed("nopqrstuvwxyz", client_id=2))
    squash_document(document.pk, older_than=NEVER_WARM, segments_max=1)
    return document


def test_heads_that_were_published_are_found_in_rows_and_in_segments(document: Document, published: Published) -> None:
    published.publish()
    append_rows(make_session(document), typed("more", client_id=3))
    published.publish()
    squash_document(document.pk, older_than=NEVER_WARM)
    assert Segment.objects.filter(last_seq__gte=26).exists()
    append_rows(make_session(document), typed("!", client_id=4))
    code, said = _run(*published.arguments)
    assert code == 0
    assert "1..31 proven" in said
    assert "as 2 manifests say" in said


def _unsquash(document: Document) -> None:
    """As one who can write to all of the database: no segment is left that says otherwise."""
    rows = log_of(document)
    Segment.objects.filter(document=document).delete()
    Update.objects.filter(document=document).delete()
    Update.objects.bulk_create(
        [
            Update(document=document, seq=seq, session_id=session, kind=kind, at=at, payload=payload, hash=b"")
            for seq, session, kind, at, payload in rows
        ]
    )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM history_run WHERE document_id = %s", [document.pk])


def _payload(document: Document) -> None:
    Update.objects.filter(document=document, seq=20).update(payload=b"\x00\x00")


def _author(document: Document) -> None:
    ada = Session.objects.get(document=document, user__username="ada").id
    Update.objects.filter(document=document, seq=20).update(session_id=ada)


def _dated(document: Document, at: datetime) -> None:
    """Every row says that it was written then."""
    _unsquash(document)
    rechain(document, at=lambda _: at)


def test_a_row_that_is_dated_back_behind_a_manifest_is_told_by_it(document: Document, published: Published) -> None:
    long_ago = timezone.now() - timedelta(days=300)
    _dated(document, long_ago)
    published.publish()
    append_rows(make_session(document), typed("later", client_id=3))
    assert _run(*published.arguments)[0] == 0
    _dated(document, long_ago)
    assert _run()[0] == 0, "it agrees with itself"
    code, said = _run(*published.arguments)
    assert (code, "seq 27: its time is before manifest-0.jsonl was made" in said) == (1, True), said
    assert "[history_manifest]" in said
    squash_document(document.pk, older_than=NEVER_WARM)
    assert "seq 27: its time is before manifest-0.jsonl was made" in _run(*published.arguments)[1]


def test_the_first_row_of_a_log_that_was_published_empty_is_no_older_than_that(published: Published) -> None:
    document = make_document("empty")
    published.publish()
    append_rows(make_session(document), typed("a"))
    assert _run(*published.arguments)[0] == 0
    _dated(document, timezone.now() - timedelta(days=300))
    assert "seq 1: its time is before manifest-0.jsonl was made" in _run(*published.arguments)[1]


@pytest.mark.parametrize(("minutes", "code"), [(14, 0), (16, 1)])
def test_clocks_may_be_some_minutes_apart(document: Document, published: Published, minutes: int, code: int) -> None:
    written_at = published.day - timedelta(minutes=minutes)
    _dated(document, written_at)
    published.publish()
    append_rows(make_session(document), typed("!", client_id=3))
    _dated(document, written_at)
    assert _run(*published.arguments)[0] == code


def _cut(document: Document) -> None:
    Update.objects.filter(document=document, seq__gte=20).delete()


REWRITTEN: dict[str, tuple[Callable[[Document], None], str]] = {
    "a payload": (_payload, "seq 26: manifest-0.jsonl published another hash of 26"),
    "an author": (_author, "seq 26: manifest-0.jsonl published another hash of 26"),
    "the end": (_cut, "seq 20: the log ends at 19, but manifest-0.jsonl published 26"),
}


@pytest.mark.parametrize("kind", REWRITTEN)
def test_a_log_that_was_hashed_anew_no_longer_matches_what_was_published(
    document: Document, published: Published, kind: str
) -> None:
    tamper, what = REWRITTEN[kind]
    published.publish()
    _unsquash(document)
    tamper(document)
    rechain(document)
    assert _run()[0] == 0, "it agrees with itself"
    code, said = _run(*published.arguments)
    assert (code, what in said, "[history_manifest]" in said) == (1, True, True), said


def test_the_last_manifest_that_holds_tells_since_when_it_was_rewritten(
    document: Document, published: Published
) -> None:
    published.publish()
    append_rows(make_session(document), typed("more", client_id=3))
    published.publish()
    _unsquash(document)
    Update.objects.filter(document=document, seq=28).update(payload=b"\x00\x00")
    rechain(document)
    code, said = _run(*published.arguments)
    assert code == 1
    assert "the log was rewritten at or before it, after 26, which manifest-0.jsonl proves" in said


def test_a_restored_backup_is_told_by_its_epoch(document: Document, published: Published) -> None:
    published.publish()
    _unsquash(document)
    _cut(document)
    rechain(document)
    Head.objects.filter(document=document).update(epoch=2)
    assert "epoch 1 became 2, as when a backup is restored" in _run(*published.arguments)[1]


def test_an_epoch_that_falls_is_a_difference(document: Document, published: Published) -> None:
    Head.objects.filter(document=document).update(epoch=2)
    published.publish()
    Head.objects.filter(document=document).update(epoch=1)
    code, said = _run(*published.arguments)
    assert (code, "published epoch 2" in said, "[history_head]" in said) == (1, True, True), said


def test_purged_documents_are_told_apart_from_those_that_were_made_away_with(
    document: Document, published: Published
) -> None:
    deleted, vanished = make_history(1), make_history(2)
    published.publish()
    Document.objects.filter(pk=deleted.pk).update(deleted_at=timezone.now())
    published.publish()
    keys = deleted.key, vanished.key
    deleted.delete()
    vanished.delete()
    code, said = _run(*published.arguments)
    assert code == 1
    deleted_by = published.day - timedelta(days=1)
    assert f"{keys[0]}: purged; it was deleted by {deleted_by:%Y-%m-%d %H:%M} UTC" in said
    assert f"{keys[1]}: missing; manifest-1.jsonl published seq" in said
    assert said.endswith("1 of 3 documents differ")


def test_some_documents_are_held_to_manifests_of_all(document: Document, published: Published) -> None:
    for seed in range(3):
        make_history(seed)
    published.publish()
    code, said = _run("minutes", *published.arguments)
    assert (code, len(said.splitlines()), "as 1 manifests say" in said) == (0, 2, True), said


def test_a_manifest_that_is_left_out_or_replaced_is_pointed_at(document: Document, published: Published) -> None:
    for _ in range(3):
        published.publish()
    del published.paths[1]
    code, said = _run(*published.arguments)
    assert code == 0
    assert "manifest-2.jsonl does not follow manifest-0.jsonl" in said


def test_what_cannot_be_verified_has_an_exit_code_of_its_own(document: Document, published: Published) -> None:
    published.publish()
    assert _run("--manifest", *published.paths)[0] == 2
    assert _run("--jobs", "0")[0] == 2
    Path(published.paths[0]).write_bytes(Path(published.paths[0]).read_bytes().replace(b'"seq":26', b'"seq":25'))
    code, said = _run(*published.arguments)
    assert (code, "not those that were signed" in said) == (2, True)


def test_a_verification_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = sorted((make_history(seed, edits=5) for seed in range(6)), key=lambda document: document.key)
    published.publish()
    Update.objects.filter(document=documents[1], seq=2).delete()
    record = tmp_path / "record"
    seen: list[int] = []

    def dies_at_the_fourth(document_id: int, **options: object) -> object:
        if document_id == documents[3].pk and documents[3].pk not in seen:
            seen.append(document_id)
            raise OSError("killed")
        seen.append(document_id)
        return verify_document(document_id, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("history.proof.proving.verify_document", dies_at_the_fourth)
    arguments = [*published.arguments, "--resume", str(record)]
    assert _run(*arguments)[0] == 2
    with record.open("ab") as file:
        file.write(b'{"document": "half a li')
    code, said = _run(*arguments)
    assert seen == [each.pk for each in (*documents[:4], *documents[3:])]
    assert (code, said.count("seq 2: the row is missing")) == (1, 1)
    assert said.endswith("1 of 6 documents differ")
    assert len(record.read_text().splitlines()) == 8
    assert "has ended" in _run(*arguments)[1]


def test_a_record_is_of_the_manifests_that_it_was_begun_with(tmp_path: Path, published: Published) -> None:
    make_history(1)
    published.publish()
    record = tmp_path / "record"
    with proving.Record(record, manifests=[]):
        pass
    code, said = _run(*published.arguments, "--resume", str(record))
    assert (code, "not the record of a verification with these manifests" in said) == (2, True)
    record.write_bytes(b"notes\n")
    assert "is not the record of a verification" in _run("--resume", str(record))[1]


@pytest.mark.django_db(transaction=True)
def test_several_processes_find_what_one_finds(document: Document, published: Published, tmp_path: Path) -> None:
    """In a process of its own, as an operator starts it: its workers are new processes too."""
    documents = [make_history(seed, edits=5) for seed in range(4)]
    published.publish()
    Update.objects.filter(document=documents[2], seq=2).update(payload=b"\x00\x00")
    documents[3].delete()
    given = connection.settings_dict
    url = f"postgres://{given['USER']}@{given['HOST'].replace('/', '%2F')}:{given['PORT']}/{given['NAME']}"
    environment = {**base_environment(), **os.environ, "DATABASE_URL": url}
    command = [sys.executable, "manage.py", "verify_history", "--no-color", *published.arguments, "--jobs", "2"]
    together = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True)
    code, alone = _run(*published.arguments)
    assert together.returncode == code == 1, together.stderr
    assert together.stdout.splitlines() == alone.splitlines()[:5]
    assert "2 of 5 documents differ" in together.stderr


def _renamed(document: Document, *titles: str) -> None:
    for title in titles:
        rename_document(document, title=title)


def _hash_audit_anew(document: Document) -> None:
    """As one who can write to all of the database."""
    head = AuditHead.objects.get(document_id=document.pk)
    hash_ = bytes(head.removed_hash)
    for entry in AuditEntry.objects.filter(document_id=document.pk).order_by("n"):
        hash_ = entry_hash(
            hash_,
            document_key=head.key.bytes,
            n=entry.n,
            action=entry.action,
            at_microseconds=microseconds(entry.at),
            actor_commitment=bytes(entry.commitment),
            detail_sha256=bytes(entry.detail_sha256),
        )
        AuditEntry.objects.filter(document_id=document.pk, n=entry.n).update(hash=hash_)
        AuditHead.objects.filter(document_id=document.pk).update(n=entry.n, hash=hash_, at=entry.at)


def test_an_audit_that_was_hashed_anew_no_longer_matches_what_was_published(
    document: Document, published: Published
) -> None:
    _renamed(document, "one", "two")
    published.publish()
    _renamed(document, "three")
    published.publish()
    assert _run(*published.arguments)[0] == 0
    first = AuditEntry.objects.filter(document_id=document.pk).order_by("n")[0]
    AuditEntry.objects.filter(document_id=document.pk, n=first.n).update(action=first.action + 1)
    _hash_audit_anew(document)
    assert _run()[0] == 0, "it agrees with itself"
    code, said = _run("minutes", *published.arguments)
    assert code == 1
    assert said.count("the audit was rewritten at or before it [history_audithead]") == 1


def test_an_audit_that_was_cut_off_or_made_away_with_is_missed(document: Document, published: Published) -> None:
    _renamed(document, "one", "two")
    published.publish()
    n = AuditEntry.objects.filter(document_id=document.pk).count()
    AuditEntry.objects.filter(document_id=document.pk, n=n).delete()
    _hash_audit_anew(document)
    code, said = _run(*published.arguments)
    assert (code, f"the audit ends at {n - 1}, but manifest-0.jsonl" in said) == (1, True), said
    AuditHead.objects.filter(document_id=document.pk).update(key=UUID(int=5))
    assert "the audit is of 00000000-0000-0000-0000-000000000005" in _run(*published.arguments)[1]
    AuditEntry.objects.filter(document_id=document.pk).delete()
    AuditHead.objects.filter(document_id=document.pk).delete()
    assert f"the audit is missing; manifest-0.jsonl published entry {n}" in _run(*published.arguments)[1]


def test_an_entry_that_is_dated_back_behind_a_manifest_is_told_by_it(document: Document, published: Published) -> None:
    published.day -= timedelta(days=200)
    _renamed(document, "one")
    published.publish()
    _renamed(document, "two")
    assert _run(*published.arguments)[0] == 0
    AuditEntry.objects.filter(document_id=document.pk).update(at=published.day - timedelta(days=300))
    _hash_audit_anew(document)
    assert _run()[0] == 0, "it agrees with itself"
    code, said = _run(*published.arguments)
    last = AuditHead.objects.get(document_id=document.pk).n
    assert code == 1
    assert f"entry {last} is of before manifest-0.jsonl was made" in said, said


def _aged(document: Document) -> None:
    """What was done today was done a hundred days ago."""
    today = AuditEntry.objects.filter(document_id=document.pk, at__gt=timezone.now() - timedelta(days=1))
    today.update(at=F("at") - timedelta(days=100))
    _hash_audit_anew(document)


def test_entries_that_retention_took_are_not_missed_and_the_last_of_them_still_holds(
    document: Document, published: Published, settings: Settings
) -> None:
    settings.PALIMPSEST = {"AUDIT_DAYS": 90}
    published.day -= timedelta(days=100)
    _renamed(document, "one")
    _aged(document)
    published.publish()
    _renamed(document, "two")
    _aged(document)
    published.publish()
    _renamed(document, "three")
    entries = list(AuditEntry.objects.filter(document_id=document.pk).order_by("n"))
    for entry in entries[:-1]:
        AuditHead.objects.filter(document_id=document.pk).update(removed_n=entry.n, removed_hash=entry.hash)
        entry.delete()
        assert _run(*published.arguments)[0] == 0
    AuditHead.objects.filter(document_id=document.pk).update(removed_hash=bytes(32))
    _hash_audit_anew(document)
    assert "published another hash of" in _run(*published.arguments)[1]


def test_entries_that_retention_would_have_kept_are_missed(
    document: Document, published: Published, settings: Settings
) -> None:
    """Who can write to the database can also write that the oldest entries went by retention."""
    _renamed(document, "one", "two")
    published.publish()
    _renamed(document, "three")
    for days in (0, 90):
        settings.PALIMPSEST = {"AUDIT_DAYS": days}
        assert _run(*published.arguments)[0] == 0
    last = AuditEntry.objects.filter(document_id=document.pk).order_by("n")[2]
    AuditHead.objects.filter(document_id=document.pk).update(removed_n=last.n, removed_hash=last.hash)
    AuditEntry.objects.filter(document_id=document.pk, n__lte=last.n).delete()
    assert _run()[0] == 0, "it agrees with itself"
    for days in (0, 90):
        settings.PALIMPSEST = {"AUDIT_DAYS": days}
        code, said = _run(*published.arguments)
        assert (code, "the entries up to 3 are gone, though AUDIT_DAYS keeps" in said) == (1, True), said


def _raw(query: str, value: int) -> None:
    """As one who can write to all of the database: no trigger holds him."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(query, [value])
        cursor.execute("SET LOCAL session_replication_role = origin")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE history_version SET seq = seq - 1 WHERE id = %s",
        "UPDATE history_version SET name = 'other' WHERE id = %s",
        "UPDATE history_version SET locked = false WHERE id = %s",
        "DELETE FROM history_version WHERE id = %s",
    ],
)
def test_a_locked_version_that_was_altered_is_told_by_the_audit(document: Document, change: str) -> None:
    kept, changed, gone = (
        name_version(document, name=name, seq=seq, actor=None).version.id
        for seq, name in enumerate(("kept", "changed", "gone"), 10)
    )
    change_version(document, kept, locked=True, actor=None)
    change_version(document, changed, locked=True, name="signed", actor=None)
    change_version(document, changed, locked=False, actor=None)
    delete_version(document, gone, actor=None)
    Version.objects.create(document=document, id=1, seq=5, created_at=timezone.now(), automatic=True)
    assert _run()[0] == 0
    _raw(change, kept)
    code, said = _run()
    assert (code, f"version {kept} of seq 10 is not what it says: history_version was altered" in said) == (1, True)


@pytest.mark.parametrize("change", ["name", "title"])
def test_a_room_name_or_title_that_was_altered_is_told_by_the_audit(document: Document, change: str) -> None:
    _renamed(document, "Minutes of May")
    assert _run()[0] == 0
    _raw(f"UPDATE documents_document SET {change} = 'other' WHERE id = %s", document.pk)
    code, said = _run()
    what = "room name" if change == "name" else "title"
    assert (code, f"the {what} is not what it says: documents_document was altered" in said) == (1, True), said


def test_a_title_is_held_to_its_entry_also_where_its_detail_was_erased(document: Document) -> None:
    _raw("UPDATE history_auditentry SET detail = NULL WHERE document_id = %s", document.pk)
    code, said = _run()
    assert (code, "1 entries of the audit without detail" in said) == (0, True), said
    _raw("UPDATE documents_document SET title = 'other' WHERE id = %s", document.pk)
    assert _run()[0] == 1


@pytest.mark.parametrize(
    ("table", "what"), [("session", "who wrote it was taken away"), ("auditentry", "who did it was taken away")]
)
def test_a_name_that_was_taken_away_is_told_while_its_account_is_there(
    document: Document, table: str, what: str
) -> None:
    ada = get_user_model().objects.get(username="ada")
    with acting(Actor(user=ada)):
        _renamed(document, "one", "two")
    assert _run()[0] == 0
    _raw(f"UPDATE history_{table} SET user_id = NULL WHERE document_id = %s", document.pk)
    code, said = _run()
    assert (code, what in said, f"[history_{table}]" in said) == (1, True, True), said


def test_what_an_account_did_that_was_deleted_is_counted(document: Document) -> None:
    ada = get_user_model().objects.get(username="ada")
    with acting(Actor(user=ada)):
        _renamed(document, "one", "two")
    ada.delete()
    code, said = _run()
    assert code == 0
    assert "1 sessions of unknown authors, 2 entries of the audit of unknown authors" in said


def test_versions_of_a_copy_and_those_that_were_named_later_hold(document: Document) -> None:
    owner = make_user("owner")
    Membership.objects.create(document=document, user=owner, role=Role.OWNER)
    change_version(
        document, name_version(document, name="one", seq=5, actor=owner).version.id, locked=True, actor=owner
    )
    copied = copy_history(document, actor=owner).document
    (version,) = Version.objects.filter(document=copied)
    change_version(copied, version.id, locked=False, actor=owner)
    change_version(copied, version.id, name="two", note="again", actor=owner)
    for number in (1, 2, 3):
        Version.objects.create(document=copied, id=number, seq=number, created_at=timezone.now(), automatic=True)
    change_version(copied, 1, name="three", locked=True, actor=owner)
    for number in (2, 3):
        change_version(copied, number, locked=True, actor=owner)
    change_version(copied, 3, locked=False, actor=owner)
    Version.objects.filter(document=copied, id=3).delete()  # thinned
    assert _run()[0] == 0
    _raw("DELETE FROM history_version WHERE id = %s", 2)
    assert _run()[0] == 1


def test_documents_come_page_by_page_in_the_order_of_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "DOCUMENTS_PER_FETCH", 2)
    keys = sorted(make_document().key for _ in range(5))
    assert [subject.key for subject in proving.subjects()] == keys
    assert [subject.key for subject in proving.subjects(after=keys[1])] == keys[2:]
    assert [subject.key for subject in proving.subjects(keys=keys[:1])] == keys[:1]


def test_the_helper_that_publishes_signs_what_anybody_can_check(published: Published, tmp_path: Path) -> None:
    published.publish()
    key = load_key(tmp_path / "key.pem").public_key()
    assert open_manifest(Path(published.paths[0]), keys=[key]).documents == 0
