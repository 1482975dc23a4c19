"""An export becomes the document that it was: the same key, head, hashes and sessions, in a database in which people
have other keys; and what comes out of it again proves the same."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from pycrdt import Text

from documents.models import Document, Membership, Role
from documents.opening import delete_document
from documents.roles import role_for
from history.copies import copy_history
from history.crdt.chain import row_hash
from history.errors import UpdateRefused
from history.folds import document_at, make_ydoc
from history.imports import whole
from history.models import (
    Action,
    AuditEntry,
    Client,
    Head,
    ImportedAuthor,
    Kind,
    Request,
    Session,
    Split,
    Update,
    Version,
    Via,
)
from history.proof import offline_verify
from history.proof.exports import export_document
from history.proof.told import verify_told
from history.proof.verify import Difference, Verdict, verify_document
from history.sessions import WriteSession
from history.squash import squash_document
from history.undoing import Whose
from history.versions import name_version
from history.writes import append_update, undo, write_session
from tests.builders import (
    NEVER_WARM,
    admitted_session,
    append_rows,
    log_of,
    make_document,
    make_session,
    make_user,
    typed,
)
from tests.emoji_histories import emoji_histories
from tests.histories import random_history
from tests.integration.history.test_exports import Manifests
from tests.integration.history.waiting import kill_where_it_first_writes

pytestmark = pytest.mark.django_db

Line = dict[str, Any]
User = get_user_model()


def a_history() -> Document:
    """By ada, who owns it, bob, nobody and somebody whose account went; squashed in part, with a locked version."""
    ada, bob, gone = make_user("ada"), make_user("bob"), make_user("gone")
    document = make_document("minutes", ada=(ada, Role.OWNER), bob=(bob, Role.EDITOR))
    by_ada = admitted_session(document, ada)
    append_rows(by_ada, typed("abcdefghijklm"))
    append_rows(make_session(document, gone), typed("xyz", client_id=9))
    append_rows(admitted_session(document, bob), typed("nopqrstuvwxyz", client_id=2))
    append_rows(make_session(document), typed("!", client_id=3), kind=Kind.EDIT)
    squash_document(document.pk, older_than=NEVER_WARM, segments_max=2)
    name_version(document, name="draft", seq=13, actor=ada)
    Version.objects.filter(document=document).update(locked=True)
    append_update(write_session(document, actor=bob, via=Via.API), typed("/", client_id=10)[0])
    append_update(write_session(document, actor=ada, via=Via.API), typed("?", client_id=8)[0], request_key="once")
    gone.delete()
    return document


def exported(document: Document, **options: bool) -> str:
    return "".join(export_document(document.pk, **options))


def lines_of(export: str) -> list[Line]:
    return [json.loads(line) for line in export.splitlines()]


def joined(lines: list[Line]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def without_salt_of_the_gone(line: Line) -> Line:
    """Nobody can tell any more whose such a session was, and an account here may have its key."""
    if line["line"] != "session" or line["user"]:
        return line
    committed = offline_verify.commitment(bytes.fromhex(line["salt"]), "", line["via"], line["ip"])
    return line if committed.hex() == line["commitment"] else line | {"salt": ""}


def elsewhere(*, swapped: bool = True) -> None:
    """As in another database: the documents are not there, and people have other keys, even each other's."""
    Document.objects.all().delete()
    names = list(User.objects.order_by("-pk" if swapped else "pk").values_list("username", flat=True))
    keys = sorted(User.objects.values_list("pk", flat=True))
    User.objects.all().delete()
    for key, name in zip(keys, names, strict=True):
        User.objects.create(pk=key, username=name)


def run(folder: Path, export: str, *options: str) -> str:
    path = folder / "export.jsonl"
    path.write_text(export)
    out = io.StringIO()
    try:
        call_command("import_documents", "palimpsest", str(path), *options, stdout=out)
    except CommandError as error:
        error.args = (f"{error}\n{out.getvalue()}",)
        raise
    return out.getvalue()


def assert_proven(document: Document, tmp_path: Path) -> None:
    outcome = verify_document(document.pk)
    assert isinstance(outcome, Verdict), outcome
    assert not hasattr(verify_told(document.pk), "what"), verify_told(document.pk)
    path = tmp_path / "again.jsonl"
    path.write_text(exported(document))
    assert offline_verify.main([str(path)]) == 0


def authors_of(document: Document) -> list[str | None]:
    names = dict(Session.objects.filter(document=document).values_list("id", "user__username"))
    return [names[row[1]] for row in log_of(document)]


@pytest.mark.parametrize("swapped", [False, True], ids=["same keys", "other keys"])
def test_an_export_becomes_the_document_that_it_was(swapped: bool, tmp_path: Path) -> None:
    source = a_history()
    head = Head.objects.get(document=source)
    log, authors, state = log_of(source), authors_of(source), document_at(source.pk, full=True).doc.get_update()
    commitments = dict(Session.objects.filter(document=source).values_list("id", "commitment"))
    export = exported(source)
    elsewhere(swapped=swapped)
    said = run(tmp_path, export)
    assert "minutes: imported, 32 rows in the log" in said
    document = Document.objects.get(key=source.key)
    again = Head.objects.get(document=document)
    assert (again.seq, bytes(again.hash), again.at, again.epoch) == (head.seq, bytes(head.hash), head.at, head.epoch)
    assert (document.name, document.title, document.created_at) == (source.name, source.title, source.created_at)
    assert document_at(document.pk, full=True).doc.get_update() == state
    assert (log_of(document), authors_of(document)) == (log, authors)
    assert dict(Session.objects.filter(document=document).values_list("id", "commitment")) == commitments
    version = Version.objects.get(document=document, automatic=False)
    assert (version.name, version.seq, version.locked) == ("draft", 13, True)
    ada, bob = User.objects.get(username="ada"), User.objects.get(username="bob")
    assert (role_for(ada, document), role_for(bob, document)) == (Role.OWNER, Role.EDITOR)
    assert version.created_by == ada
    owners = {8: str(ada.pk), 10: str(bob.pk)}
    assert dict(Client.objects.filter(document=document).values_list("client_id", "actor")) == owners
    assert Request.objects.get(document=document, key="once").actor == str(ada.pk)
    assert_proven(document, tmp_path)
    if not swapped:
        assert lines_of(exported(document)) == [without_salt_of_the_gone(line) for line in lines_of(export)]


def test_what_was_imported_goes_on(tmp_path: Path) -> None:
    export = exported(a_history())
    elsewhere()
    run(tmp_path, export)
    document = Document.objects.get()
    ada, bob = User.objects.get(username="ada"), User.objects.get(username="bob")

    def by(account: Any) -> WriteSession:
        return write_session(document, actor=account, via=Via.API)

    later = append_update(by(bob), typed("later", client_id=20)[0])
    assert later is not None and later.seq == 33
    again = append_update(by(ada), typed("#", client_id=30)[0], request_key="once")
    assert again is not None and (again.repeated, again.seq) == (True, 32)
    with pytest.raises(UpdateRefused, match="under the client id of somebody else"):
        append_update(by(bob), typed("??", client_id=8)[1])
    assert undo(by(ada), Whose(user_key=ada.pk), first_seq=1, last_seq=13) is not None
    text = str(make_ydoc(document.pk).doc.get("text", type=Text))
    assert "abc" not in text and "nop" in text
    assert squash_document(document.pk, older_than=NEVER_WARM) > 0
    assert_proven(document, tmp_path)
    copy = copy_history(document, actor=ada).document
    assert_proven(copy, tmp_path)
    part = copy_history(document, seq=20, actor=ada).document
    append_rows(make_session(part, bob), typed("+", client_id=40))
    assert_proven(part, tmp_path)


def imported(tmp_path: Path, *options: str, swapped: bool = True) -> Document:
    export = exported(a_history())
    elsewhere(swapped=swapped)
    run(tmp_path, export, *options)
    return Document.objects.get()


def differs(document: Document) -> str:
    outcome = verify_document(document.pk)
    assert isinstance(outcome, Difference), outcome
    return outcome.what


def test_an_author_who_is_altered_in_an_imported_history_is_found(tmp_path: Path) -> None:
    document = imported(tmp_path)
    ada, bob = User.objects.get(username="ada"), User.objects.get(username="bob")
    key_of_ada = ImportedAuthor.objects.get(document=document, user=ada).key
    assert key_of_ada == str(bob.pk), "bob here has the key that ada had there"
    sessions = Session.objects.filter(document=document, user=ada)
    ids = list(sessions.values_list("id", flat=True))
    sessions.update(user=bob)
    assert "who wrote it was altered" in differs(document)
    Session.objects.filter(document=document, id__in=ids).update(user=None)
    assert "who wrote it was taken away" in differs(document)
    Session.objects.filter(document=document, id__in=ids).update(user=ada)
    assert_proven(document, tmp_path)


@pytest.mark.parametrize(
    "alter",
    [
        lambda authors: authors.filter(user__username="ada").update(user=User.objects.get(username="bob")),
        lambda authors: authors.filter(user__username="ada").delete(),
        lambda authors: authors.update(last_seq=99),
        lambda authors: authors.create(
            document=authors[0].document, key="77", user=authors[0].user, last_seq=authors[0].last_seq
        ),
    ],
)
def test_whose_a_key_was_is_held_to_what_the_audit_was_told(alter: Callable[[Any], object], tmp_path: Path) -> None:
    document = imported(tmp_path)
    alter(ImportedAuthor.objects.filter(document=document))
    told = verify_told(document.pk)
    assert "whose an imported history is" in getattr(told, "what", ""), told


def test_the_audit_tells_of_an_import_and_of_each_account(tmp_path: Path) -> None:
    document = imported(tmp_path)
    entries = AuditEntry.objects.filter(document_id=document.pk).order_by("n")
    assert {entry.get_via_display() for entry in entries} == {"import"}
    actions = [entry.action for entry in entries]
    assert actions == [Action.CREATED, Action.MEMBER_ADDED, Action.MEMBER_ADDED, *[Action.AUTHOR_MATCHED] * 2]


def test_an_account_that_is_deleted_after_an_import_leaves_a_history_that_holds(tmp_path: Path) -> None:
    document = imported(tmp_path)
    User.objects.get(username="ada").delete()
    outcome = verify_document(document.pk)
    assert isinstance(outcome, Verdict) and outcome.authors_unknown == 3
    assert not hasattr(verify_told(document.pk), "what")
    copy_history(document, actor=make_user("root", is_superuser=True))
    assert [type(verify_document(each.pk)) for each in Document.objects.all()] == [Verdict] * 2


def test_people_who_are_not_here_are_told_and_nobody_takes_their_place(tmp_path: Path) -> None:
    export = exported(a_history())
    elsewhere()
    User.objects.get(username="bob").delete()
    said = run(tmp_path, export)
    assert "not here: bob (1 in all); 2 sessions are of nobody" in said
    document = Document.objects.get()
    assert authors_of(document).count("ada") == 14
    assert {client for (client,) in Client.objects.filter(document=document).values_list("client_id")} == {8}
    assert_proven(document, tmp_path)


def test_people_are_made_where_that_is_asked_for_and_cannot_sign_in(tmp_path: Path) -> None:
    export = exported(a_history())
    elsewhere()
    User.objects.all().delete()
    make_user("olga")
    said = run(tmp_path, export, "--users", "create", "--owner", "olga")
    assert "accounts made, which cannot sign in: ada, bob" in said
    document = Document.objects.get()
    ada = User.objects.get(username="ada")
    assert (ada.is_active, ada.has_usable_password()) == (False, False)
    assert authors_of(document).count("ada") == 14
    roles = Membership.objects.filter(document=document, role=Role.OWNER).values_list("user__username", flat=True)
    assert set(roles) == {"ada", "olga"}
    assert_proven(document, tmp_path)


def test_nobody_is_matched_where_that_is_asked_for(tmp_path: Path) -> None:
    document = imported(tmp_path, "--users", "none")
    assert set(authors_of(document)) == {None}
    assert not Membership.objects.filter(document=document).exists()
    assert_proven(document, tmp_path)


def test_a_pseudonymous_export_comes_in_without_people(tmp_path: Path) -> None:
    source = a_history()
    head = bytes(Head.objects.get(document=source).hash)
    export = exported(source, pseudonymous=True)
    elsewhere(swapped=False)
    assert "nobody owns it" in run(tmp_path, export)
    document = Document.objects.get()
    assert bytes(Head.objects.get(document=document).hash) == head
    assert set(authors_of(document)) == {None}
    assert_proven(document, tmp_path)


def test_what_manifests_published_vouches_for_the_export_of_an_import(tmp_path: Path) -> None:
    manifests = Manifests(tmp_path)
    source = a_history()
    manifests.publish()
    export = exported(source)
    elsewhere()
    run(tmp_path, export)
    again = tmp_path / "again.jsonl"
    again.write_text(exported(Document.objects.get()))
    assert offline_verify.main([str(again), *manifests.arguments]) == 0


def test_an_export_of_before_is_read_as_well(tmp_path: Path) -> None:
    source = a_history()
    lines = [line for line in lines_of(exported(source)) if line["line"] not in ("client", "request", "member")]
    lines[0]["format"] = "palimpsest-document-1"
    lines[-1] = {name: lines[-1][name] for name in ("line", "sessions", "rows", "versions")}
    elsewhere()
    run(tmp_path, joined(lines))
    assert_proven(Document.objects.get(), tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_history_and_its_split_emoji_are_the_same(seed: int, tmp_path: Path) -> None:
    source = make_document("random")
    session = make_session(source)
    with_emoji = [row.update for rows in emoji_histories(seed, 1).values() for row in rows]
    for update in with_emoji if seed % 2 else [row.update for row in random_history(seed, edits=20, skip_gc=True)]:
        append_update(session, update)
    splits = set(Split.objects.filter(document=source).values_list("client", "clock", "seq"))
    assert bool(splits) == bool(seed % 2)
    state = document_at(source.pk, full=True).doc.get_update()
    export = exported(source)
    elsewhere()
    run(tmp_path, export)
    document = Document.objects.get()
    assert set(Split.objects.filter(document=document).values_list("client", "clock", "seq")) == splits
    assert document_at(document.pk, full=True).doc.get_update() == state
    assert_proven(document, tmp_path)


def test_a_history_that_was_imported_twice_over_is_still_proven(tmp_path: Path) -> None:
    document = imported(tmp_path)
    append_update(
        write_session(document, actor=User.objects.get(username="bob"), via=Via.API), typed("2", client_id=20)[0]
    )
    export = exported(document)
    authors = authors_of(document)
    elsewhere()
    run(tmp_path, export)
    assert authors_of(Document.objects.get()) == authors
    assert_proven(Document.objects.get(), tmp_path)


def test_a_second_run_does_nothing_also_where_people_have_written_since(tmp_path: Path) -> None:
    export = exported(a_history())
    assert "minutes: already there" in run(tmp_path, export)
    elsewhere()
    run(tmp_path, export)
    document = Document.objects.get()
    append_rows(make_session(document), typed("later", client_id=30))
    for _ in range(2):
        before = log_of(document)
        assert "minutes: already there, 0" not in run(tmp_path, export)
        assert log_of(document) == before
        squash_document(document.pk, older_than=NEVER_WARM)
    delete_document(document)
    assert "already there (deleted since)" in run(tmp_path, export)


def test_another_history_under_the_key_or_the_name_is_told(tmp_path: Path) -> None:
    source = a_history()
    lines = lines_of(exported(source))
    Update.objects.filter(document=source, seq=32).delete()
    Head.objects.filter(document=source).update(seq=31)
    with pytest.raises(CommandError, match="a document of its key whose history is another one"):
        run(tmp_path, joined(lines))
    elsewhere()
    make_document("minutes")
    with pytest.raises(CommandError, match="there is another document of that name"):
        run(tmp_path, joined(lines))
    assert "first: imported" in run(tmp_path, joined(lines), "--rename", "minutes", "first")


def _of(kind: str, number: int, /, **fields: object) -> Callable[[list[Line]], object]:
    return lambda lines: [line for line in lines if line["line"] == kind][number].update(fields)


def _swap(lines: list[Line]) -> None:
    lines[10], lines[11] = lines[11], lines[10]


def _unchained(payload: bytes) -> Callable[[list[Line]], object]:
    """The first row says something else, and all hashes are made to fit: anybody can do that."""

    def change(lines: list[Line]) -> None:
        rows = [line for line in lines if line["line"] == "row"]
        rows[0]["payload"] = base64.b64encode(payload).decode()
        commitments = {line["id"]: line["commitment"] for line in lines if line["line"] == "session"}
        hash_ = b""
        for row in rows:
            hash_ = row_hash(
                hash_,
                document_key=UUID(lines[0]["document"]).bytes,
                seq=row["seq"],
                kind=row["kind"],
                at_microseconds=row["at_microseconds"],
                session_commitment=bytes.fromhex(commitments[row["session"]]),
                payload=base64.b64decode(row["payload"]),
            )
            row["hash"] = hash_.hex()
        lines[0]["hash"] = hash_.hex()

    return change


DEEP = b"\x01\x01\x01\x00\x08\x01\x04text\x01" + b"\x75\x01" * 30_000 + b"\x7e\x00"
"""Values nested 30,000 deep, which end a process that has yrs read them."""

CHANGES: dict[str, tuple[Callable[[list[Line]], object], str]] = {
    "a payload": (_of("row", 9, payload="AAA="), "seq 10 was altered"),
    "a payload that is no base64": (_of("row", 9, payload="?"), "payload is no base64"),
    "a kind": (_of("row", 9, kind=3), "seq 10 was altered"),
    "a time": (_of("row", 9, at_microseconds=1), "it is no row behind seq 9"),
    "a time to come": (_of("row", 31, at_microseconds=2**52), "has not come yet"),
    "no time": (_of("row", 9, at_microseconds=None), "no whole number"),
    "a session": (_of("row", 9, session=1), "no such session"),
    "an author": (_of("session", 0, user="99", username="ada"), "who wrote it was altered"),
    "a door": (_of("session", 0, via=99), "no such door"),
    "rows swapped": (_swap, "it is no row behind seq"),
    "a row dropped": (lambda lines: lines.pop(12), "it is no row behind seq"),
    "the last row dropped": (lambda lines: lines.pop(38), ""),
    "the end dropped": (lambda lines: lines.pop(), "the export is cut off"),
    "something behind the end": (lambda lines: lines.append(lines[-1]), "it has no place there"),
    "a version's seq": (_of("version", 0, seq=99), "the log has no seq 99"),
    "a request's seq": (_of("request", 0, seq=99), "the log has no seq 99"),
    "a role": (_of("member", 0, role="king"), "there is no such role"),
    "the head": (_of("document", 0, hash="00" * 32), "the rows do not lead to the head"),
    "the format": (_of("document", 0, format="other"), "a format that is not known"),
    "the key": (_of("document", 0, document="minutes"), "document is no key"),
    "a count": (_of("end", 0, members=7), "another number of lines of the kind member"),
    "half a character": (_of("session", 0, user_agent="\ud83d"), "user_agent is no text"),
    "a number that leaves none behind it": (_of("document", 0, epoch=2**63 - 1), "epoch is no whole number"),
    "a version's name": (_of("version", 0, name="\u202etfard"), "no version has such a name"),
    "a version's note": (_of("version", 0, note="\x1b[2J"), "no version has such a name or note"),
    "a name that no room has": (_of("document", 0, name="chat/x"), "cannot be a room's name"),
    "bytes that pycrdt dies of": (_unchained(DEEP), "seq 1 is no update that a log may hold"),
    "bytes that are no update": (_unchained(b"\x01\x02"), "seq 1 is no update that a log may hold"),
    "a beginning that is missing": (_unchained(b"\0\0"), "seq 2 is no update that a log may hold"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_an_export_that_was_changed_is_not_imported_and_says_where(kind: str, tmp_path: Path) -> None:
    change, what = CHANGES[kind]
    lines = lines_of(exported(a_history()))
    elsewhere()
    change(lines)
    with pytest.raises(CommandError) as raised:
        run(tmp_path, joined(lines))
    assert what in str(raised.value)
    assert not Document.objects.exists()


def test_an_export_that_is_cut_at_any_byte_is_not_imported(tmp_path: Path) -> None:
    whole = exported(a_history())
    elsewhere()
    for length in [0, *range(1, len(whole) - 1, 997), len(whole) - 2]:
        with pytest.raises(CommandError):
            run(tmp_path, whole[:length])
    assert not Document.objects.exists()


def test_exports_of_several_documents_come_back_from_a_folder(tmp_path: Path) -> None:
    first, second = a_history(), make_document("empty")
    out = io.StringIO()
    call_command("export_document", "--all", "--to", str(tmp_path / "exports"), stdout=out)
    assert out.getvalue() == f"minutes: {first.key}.jsonl\nempty: {second.key}.jsonl\n"
    elsewhere()
    said = io.StringIO()
    call_command("import_documents", "palimpsest", str(tmp_path / "exports"), stdout=said)
    assert "2 imported, 0 already there, 0 not imported; 32 rows in the log" in said.getvalue()
    assert {each.key for each in Document.objects.all()} == {first.key, second.key}
    for options in (["minutes", "empty"], ["--all"], [], ["minutes", "--all", "--to", "x"]):
        with pytest.raises(CommandError):
            call_command("export_document", *options, stdout=io.StringIO())


def test_nothing_is_left_out_of_an_export(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="as it is or not at all"):
        run(tmp_path, "", "--skip-bad")


def test_an_owner_who_was_a_member_owns_what_comes_in(tmp_path: Path) -> None:
    export = exported(a_history())
    elsewhere()
    run(tmp_path, export, "--owner", "bob")
    document = Document.objects.get()
    roles = Membership.objects.filter(document=document).values_list("user__username", "role")
    assert dict(roles) == {"ada": Role.OWNER, "bob": Role.OWNER}


def test_a_terminal_sees_how_far_an_export_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "ROWS_PER_BATCH", 10)
    path = tmp_path / "export.jsonl"
    path.write_text(exported(a_history()))
    elsewhere()
    bar = io.StringIO()
    monkeypatch.setattr(bar, "isatty", lambda: True)
    call_command("import_documents", "palimpsest", str(path), stdout=(out := io.StringIO()), stderr=bar)
    assert "] 0/1 documents, 10 rows" in bar.getvalue()
    assert f"0 bad rows, {path.stat().st_size:,} bytes read" in out.getvalue()


KILLED = """
import sys, django
django.setup()
from django.core.management import call_command
call_command("import_documents", "palimpsest", sys.argv[1])
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", ["history_update", "history_importedauthor"])
def test_an_import_that_is_killed_leaves_nothing_and_is_taken_up_again(table: str, tmp_path: Path) -> None:
    export = exported(a_history())
    elsewhere()
    path = tmp_path / "export.jsonl"
    path.write_text(export)
    kill_where_it_first_writes(KILLED, path, table=table)
    assert not Document.objects.exists()
    run(tmp_path, export)
    assert_proven(Document.objects.get(), tmp_path)
