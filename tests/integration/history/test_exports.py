"""An export holds all of a document's history, and whoever has it proves it with Python alone."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from config.stack.configuration import PROJECT
from documents.models import Document
from history.models import Head, Session, Update, Version
from history.proof import offline_verify
from history.proof.exports import NotExported, export_document
from history.proof.manifests import audits_of_all_documents, heads_of_all_documents, write_manifest
from history.proof.signing import load_key, make_key, public_pem
from history.squash import squash_document
from history.times import microseconds
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

Line = dict[str, Any]


@pytest.fixture
def document() -> Document:
    """26 rows by ada and bob, of which the first 20 are squashed, and a version that ada named."""
    document = make_document("minutes")
    ada = make_session(document, make_user("ada"), ip="192.0.2.7", user_agent="a browser")
    append_rows(ada, typed("abcdefghijklm"))
    append_rows(make_session(document, make_user("bob")), typed("nopqrstuvwxyz", client_id=2))
    squash_document(document.pk, older_than=NEVER_WARM, segments_max=2)
    Version.objects.create(
        document=document, id=1, seq=13, name="draft", created_by=ada.user, created_at=timezone.now(), at=timezone.now()
    )
    return document


def _lines(document: Document, **options: bool) -> list[Line]:
    return [json.loads(line) for line in export_document(document.pk, **options)]


def test_an_export_holds_every_row_session_and_hash(document: Document) -> None:
    lines = _lines(document)
    assert [line["line"] for line in lines] == [
        "document",
        *["session"] * 2,
        *["row"] * 26,
        "version",
        "end",
    ]
    head = Head.objects.get(document=document)
    assert (lines[0]["document"], lines[0]["seq"], lines[0]["hash"]) == (
        str(document.key),
        26,
        bytes(head.hash).hex(),
    )
    rows = [line for line in lines if line["line"] == "row"]
    assert [
        (row["seq"], row["session"], row["kind"], row["at_microseconds"], base64.b64decode(row["payload"]))
        for row in rows
    ] == [(seq, session, kind, microseconds(at), payload) for seq, session, kind, at, payload in log_of(document)]
    assert rows[-1]["hash"] == bytes(head.hash).hex()
    ada, version = (line for line in lines if line.get("username") == "ada")
    assert (ada["ip"], ada["user_agent"]) == ("192.0.2.7", "a browser")
    assert (version["name"], version["seq"], version["user"]) == ("draft", 13, ada["user"])


def test_an_export_is_the_same_before_and_after_squash(document: Document) -> None:
    before = list(export_document(document.pk))
    squash_document(document.pk, older_than=NEVER_WARM)
    assert list(export_document(document.pk)) == before


def test_a_pseudonymous_export_says_nothing_of_people_and_is_proven_all_the_same(
    document: Document, tmp_path: Path
) -> None:
    written = "".join(export_document(document.pk, pseudonymous=True))
    assert not any(word in written for word in ('"ada"', '"bob"', "192.0.2.7", "browser", "salt"))
    code, said = _offline(tmp_path, written)
    assert code == 0
    assert "2 of which have unknown authors" in said


def test_what_does_not_lead_to_its_head_is_not_exported(document: Document) -> None:
    Update.objects.filter(document=document, seq=23).update(payload=b"\x00\x00")
    lines: list[str] = []
    with pytest.raises(NotExported, match="verify_history"):
        lines.extend(export_document(document.pk))
    with pytest.raises(CommandError, match="not exported"):
        call_command("export_document", "minutes", stdout=io.StringIO())
    Session.objects.filter(document=document, user__username="bob").delete()
    with pytest.raises(NotExported, match="seq 14: its session is missing"):
        lines.extend(export_document(document.pk))
    assert not any('"line":"end"' in line for line in lines)


class Manifests:
    """Signed now and then, in files."""

    def __init__(self, folder: Path) -> None:
        self._key = make_key(folder / "key.pem")
        self._folder = folder
        self._previous = b""
        self.paths: list[str] = []
        self.public_key = folder / "public.pem"
        self.public_key.write_text(public_pem(self._key.public_key()))

    def publish(self) -> None:
        path = self._folder / f"manifest-{len(self.paths)}.jsonl"
        at = timezone.now() + timedelta(days=len(self.paths) - 20)
        with path.open("wb") as out:
            heads, audits = heads_of_all_documents(), audits_of_all_documents()
            written = write_manifest(out, heads, audits, created_at=at, previous=self._previous, key=self._key)
        self._previous = written.sha256
        self.paths.append(str(path))

    @property
    def arguments(self) -> list[str]:
        return ["--manifest", *self.paths, "--public-key", str(self.public_key)]


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    return Manifests(tmp_path)


def _offline(folder: Path, export: str, *arguments: str) -> tuple[int, str]:
    """Exit code and all that the script said, run in this process."""
    path = folder / "export.jsonl"
    path.write_text(export)
    with redirect_stdout(io.StringIO()) as said:
        code = offline_verify.main([str(path), *arguments])
    return code, said.getvalue()


def test_the_script_proves_an_export_against_manifests_with_nothing_but_python(
    document: Document, manifests: Manifests, tmp_path: Path
) -> None:
    for seed in range(2):
        make_history(seed, edits=5)
    manifests.publish()
    append_rows(make_session(document), typed("!?", client_id=3))
    out = io.StringIO()
    call_command("export_document", str(document.key), stdout=out)
    script = PROJECT / "history" / "proof" / "offline_verify.py"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", str(script), "-", *manifests.arguments],
        input=out.getvalue(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "agrees: rows 1..26 are what was published" in ended.stdout
    assert f"{document.key}: rows 1..28 hold, of 3 sessions, 0 of which have unknown authors" in ended.stdout
    assert "rows 27..28 are in no manifest given" in ended.stdout


def _line_of(line: str, number: int, /, **fields: object) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        [each for each in lines if each["line"] == line][number].update(fields)

    return change


def _drop(place: int) -> Callable[[list[Line]], None]:
    return lambda lines: lines.__delitem__(place)


def _swap(lines: list[Line]) -> None:
    lines[10], lines[11] = lines[11], lines[10]


def _bob_as_the_first_session(place: int) -> Callable[[list[Line]], None]:
    """A second answer to who the first session was: true by itself, and for the last to be believed."""

    def change(lines: list[Line]) -> None:
        bob = next(line for line in lines if line.get("username") == "bob")
        lines.insert(place, bob | {"id": lines[1]["id"]})

    return change


CHANGES: dict[str, tuple[Callable[[list[Line]], None], str]] = {
    "a payload": (_line_of("row", 9, payload="AAA="), "seq 10: the row was altered"),
    "a kind": (_line_of("row", 9, kind=3), "seq 10: the row was altered"),
    "a time": (_line_of("row", 25, at_microseconds=2**60), "seq 26: the row was altered"),
    "a time that falls": (_line_of("row", 9, at_microseconds=1), "seq 10: its time is before"),
    "a session": (_line_of("row", 9, session=1), "seq 10: its session 1 is missing"),
    "a hash": (_line_of("row", 9, hash="00" * 32), "seq 10: the row was altered"),
    "an author": (_line_of("session", 0, user="99"), "is not what its commitment says"),
    "an address": (_line_of("session", 0, ip="192.0.2.99"), "is not what its commitment says"),
    "a commitment": (_line_of("session", 0, commitment="00" * 32), "is not what its commitment says"),
    "a row dropped": (_drop(12), "seq 10 is missing; the next row is 11"),
    "rows swapped": (_swap, "seq 8 is missing; the next row is 9"),
    "a session dropped": (_drop(1), "its session"),
    "the last row dropped": (_drop(-3), "the export should have 2 sessions, 26 rows and 1 versions"),
    "a version dropped": (_drop(-2), "the export should have 2 sessions, 26 rows and 1 versions"),
    "a version's place": (_line_of("version", 0, seq=27), "a version is of seq 27"),
    "the end dropped": (_drop(-1), "cut off behind seq 26"),
    "the head": (_line_of("document", 0, hash="00" * 32), "not to the head 26"),
    "an author of whom nothing is proven": (_line_of("session", 0, salt="", ip=""), "is not what its commitment says"),
    "a name without an account": (_line_of("session", 0, user=""), "is not what its commitment says"),
    "a session that another one replaces": (_bob_as_the_first_session(3), "is there twice"),
    "a session that another one replaces at the end": (_bob_as_the_first_session(-2), "no place there: 'session'"),
    "a second title": (lambda lines: lines.insert(3, lines[0] | {"title": "other"}), "no place there: 'document'"),
    "the key": (_line_of("document", 0, document="00000000-0000-0000-0000-000000000001"), "seq 1: the row was altered"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_the_script_names_what_was_changed_in_an_export(document: Document, tmp_path: Path, kind: str) -> None:
    change, what = CHANGES[kind]
    lines = _lines(document)
    change(lines)
    code, said = _offline(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))
    assert (code, what in said) == (1, True), said


def test_nobodys_edits_are_not_given_a_name(tmp_path: Path) -> None:
    document = make_document()
    append_rows(make_session(document), typed("ab"))
    lines = _lines(document)
    assert (lines[1]["user"], lines[1]["username"]) == ("", "")
    lines[1]["username"] = "bob"
    assert _offline(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))[0] == 1


def test_a_line_that_says_a_thing_twice_proves_nothing(document: Document, tmp_path: Path) -> None:
    """One reader takes the first payload of such a row, the script the last."""
    whole = "".join(export_document(document.pk))
    assert _offline(tmp_path, whole.replace('"payload":', '"payload":"AAA=","payload":', 1))[0] == 1


def test_what_is_of_no_export_is_said_in_a_sentence(document: Document, tmp_path: Path) -> None:
    whole = "".join(export_document(document.pk))
    key = f'"{document.key}"'
    for key_there in ("7", '"no key"', "null"):
        assert _offline(tmp_path, whole.replace(key, key_there))[0] == 2
    assert _offline(tmp_path, whole.replace('"user":"', '"user":7,"was":"', 1))[0] == 2
    assert _offline(tmp_path, "[" * 100_000 + "\n")[0] == 1


def test_an_export_that_was_cut_at_any_byte_is_not_whole(document: Document, tmp_path: Path) -> None:
    whole = "".join(export_document(document.pk))
    for length in [*range(1, len(whole) - 1, 97), len(whole) - 2]:
        assert _offline(tmp_path, whole[:length])[0] != 0


def test_a_log_that_was_hashed_anew_is_told_by_the_manifest_alone(
    document: Document, manifests: Manifests, tmp_path: Path
) -> None:
    manifests.publish()
    other = make_document()  # the same document, as somebody would have liked it to be
    append_rows(make_session(other), typed("abcdefghijklmnopqrstuvwxy!"))
    Document.objects.filter(pk=document.pk).delete()
    forged_key = other.key
    Document.objects.filter(pk=other.pk).update(key=document.key)
    other.refresh_from_db()
    rechain(other)
    assert forged_key != other.key
    export = "".join(export_document(other.pk))
    assert _offline(tmp_path, export)[0] == 0
    code, said = _offline(tmp_path, export, *manifests.arguments)
    assert (code, "seq 26" in said, "published another hash" in said) == (1, True, True), said


def test_a_row_that_is_dated_back_behind_a_manifest_is_told_by_the_script(manifests: Manifests, tmp_path: Path) -> None:
    document = make_document()
    append_rows(make_session(document), typed("abc"))
    long_ago = timezone.now() - timedelta(days=300)
    rechain(document, at=lambda _: long_ago)
    manifests.publish()
    append_rows(make_session(document), typed("!", client_id=3))
    assert _offline(tmp_path, "".join(export_document(document.pk)), *manifests.arguments)[0] == 0
    rechain(document, at=lambda _: long_ago)
    export = "".join(export_document(document.pk))
    assert _offline(tmp_path, export)[0] == 0
    code, said = _offline(tmp_path, export, *manifests.arguments)
    assert (code, "seq 4: its time is before" in said) == (1, True), said


def test_an_export_that_ends_before_what_was_published_is_no_proof(
    document: Document, manifests: Manifests, tmp_path: Path
) -> None:
    export = "".join(export_document(document.pk))
    append_rows(make_session(document), typed("!", client_id=3))
    manifests.publish()
    code, said = _offline(tmp_path, export, *manifests.arguments)
    assert (code, "ends at 26" in said) == (1, True)


def test_manifests_that_cannot_be_believed_prove_nothing(
    document: Document, manifests: Manifests, tmp_path: Path
) -> None:
    manifests.publish()
    export = "".join(export_document(document.pk))
    path = Path(manifests.paths[0])
    assert _offline(tmp_path, export, "--manifest", str(path))[0] == 2
    signed = path.read_bytes()
    make_key(tmp_path / "other.pem")
    (tmp_path / "not.pem").write_text("no key")
    assert _offline(tmp_path, export, "--manifest", str(path), "--public-key", str(tmp_path / "not.pem"))[0] == 2
    for changed in (signed.replace(b'"epoch":1', b'"epoch":2', 1), signed[:-1], signed.rpartition(b"\n{")[0], b""):
        if changed == signed[:-1]:
            continue  # a line feed says nothing
        path.write_bytes(changed)
        assert _offline(tmp_path, export, *manifests.arguments)[0] == 2
    other = public_pem(load_key(tmp_path / "other.pem").public_key())
    path.write_bytes(signed)
    manifests.public_key.write_text(other)
    code, said = _offline(tmp_path, export, *manifests.arguments)
    assert (code, "signed by none of the keys" in said) == (2, True)


def test_a_manifest_from_before_the_document_says_nothing_of_it(manifests: Manifests, tmp_path: Path) -> None:
    manifests.publish()
    document = make_history(1, edits=3)
    export = "".join(export_document(document.pk))
    code, said = _offline(tmp_path, export, *manifests.arguments)
    assert (code, "does not speak of this document" in said, "made it all up" in said) == (2, True, True)
    manifests.publish()
    code, said = _offline(tmp_path, export, *manifests.arguments)
    assert (code, "does not speak of this document" in said) == (0, True)


def test_a_deleted_account_leaves_an_author_unknown(document: Document, tmp_path: Path) -> None:
    Session.objects.get(user__username="bob").user.delete()  # type: ignore[union-attr]
    code, said = _offline(tmp_path, "".join(export_document(document.pk)))
    assert (code, "1 of which have unknown authors" in said) == (0, True)


def test_an_empty_document_is_exported_and_proven(tmp_path: Path) -> None:
    document = make_document()
    document.deleted_at = timezone.now()
    document.save()
    code, said = _offline(tmp_path, "".join(export_document(document.pk)))
    assert (code, "rows 1..0 hold" in said) == (0, True)
