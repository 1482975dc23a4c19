"""Manifests: signed once a day, never replaced, read only where a known key has signed every byte."""

import json
import os
import resource
import select
import shlex
import stat
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from documents.models import Chore
from history.checks import check_manifests
from history.models import Head, Manifest
from history.proof.claims import PublishedAudit, PublishedHead
from history.proof.manifests import (
    ManifestRefused,
    claims_by_document,
    heads_of_all_documents,
    missing_links,
    open_manifest,
    write_manifest,
)
from history.proof.published_days import false_days, overdue
from history.proof.publishing import TRY_LOCK, NotDelivered, publish_manifest
from history.proof.signing import KeyRefused, load_key, load_public_key, make_key, public_pem
from history.tasks import sign_manifest
from tests.builders import append_rows, in_thread, make_document, make_history, make_session, typed

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    return make_key(tmp_path / "manifest.pem")


@pytest.fixture
def published(tmp_path: Path, key: Ed25519PrivateKey, settings: Settings) -> Path:
    """The folder that manifests go to, set up."""
    folder = tmp_path / "published"
    folder.mkdir()
    settings.PALIMPSEST = {"MANIFEST_KEY": str(tmp_path / "manifest.pem"), "MANIFEST_DIRECTORY": str(folder)}
    return folder


def _publish(days: int = 0) -> Manifest | None:
    return publish_manifest(now=NOON + timedelta(days=days))


def _head(number: int, **fields: Any) -> PublishedHead:
    ours = {"key": UUID(int=number), "epoch": 1, "seq": 3, "hash": number.to_bytes(32), "at_microseconds": 5}
    return PublishedHead(**{**ours, "is_deleted": False, **fields})


def _bytes(key: Ed25519PrivateKey, *heads: PublishedHead, previous: bytes = b"", at: datetime = NOON) -> bytes:
    out = BytesIO()
    write_manifest(out, heads, created_at=at, previous=previous, key=key)
    return out.getvalue()


def test_a_manifest_holds_the_head_of_every_document_and_says_which_are_deleted(
    published: Path, key: Ed25519PrivateKey
) -> None:
    documents = [make_history(1), make_history(2), make_document()]
    documents[1].deleted_at = NOON
    documents[1].save()
    row = _publish()
    assert row is not None
    (path,) = published.iterdir()
    assert path.name == "manifest-2026-11-20.jsonl"
    manifest = open_manifest(path, keys=[key.public_key()])
    assert (manifest.documents, manifest.created_at, manifest.previous) == (3, NOON, b"")
    assert bytes(row.sha256) == manifest.sha256
    claims = {claim.head.key: claim.head for claim in manifest.claims()}
    assert list(claims) == sorted(document.key for document in documents)
    for document in documents:
        head = Head.objects.get(document=document)
        said = claims[document.key]
        assert (said.seq, said.hash, said.epoch) == (head.seq, bytes(head.hash), head.epoch)
        assert said.is_deleted == (document is documents[1])


def test_equal_heads_make_equal_bytes_that_outlive_this_code(key: Ed25519PrivateKey) -> None:
    assert _bytes(key, _head(1), _head(2)) == _bytes(key, _head(1), _head(2))
    lines = _bytes(key, _head(1, is_deleted=True), previous=b"\xff").splitlines()
    assert lines[1] == (
        b'{"at_microseconds":5,"deleted":true,"document":"00000000-0000-0000-0000-000000000001","epoch":1,'
        b'"hash":"' + b"01".rjust(64, b"0") + b'","seq":3}'
    )
    assert json.loads(lines[0])["format"] == "palimpsest-manifest-1"
    assert json.loads(lines[0])["previous"] == "ff"
    assert lines[2] == b'{"audits":0,"documents":1}'
    audit = PublishedAudit(document_id=7, key=UUID(int=1), n=2, hash=b"\x03", at_microseconds=5)
    out = BytesIO()
    write_manifest(out, [], [audit], created_at=NOON, previous=b"", key=key)
    assert out.getvalue().splitlines()[1] == (
        b'{"at_microseconds":5,"audit":"00000000-0000-0000-0000-000000000001","hash":"03","id":7,"n":2}'
    )


def test_the_number_of_documents_does_not_show_in_memory(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    def peak_bytes(documents: int) -> int:
        path = tmp_path / f"{documents}.jsonl"
        tracemalloc.start()
        with path.open("wb") as out:
            write_manifest(out, map(_head, range(documents)), created_at=NOON, previous=b"", key=key)
        manifest = open_manifest(path, keys=[key.public_key()])
        assert sum(len(claims) for _, claims in claims_by_document([manifest, manifest])) == 2 * documents
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(10)  # what is loaded once
    assert peak_bytes(5000) < peak_bytes(50) + 64 * 1024


def test_every_byte_of_a_manifest_is_signed(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    whole = _bytes(key, _head(1), _head(2))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(whole)
    open_manifest(path, keys=[key.public_key()])
    signed = whole.rindex(b'{"sha256"')
    for place in [*range(0, signed, 7), *range(signed, len(whole) - 1)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ManifestRefused):
            open_manifest(path, keys=[key.public_key()])
    lines = whole.splitlines(keepends=True)
    for changed in (lines[:-1], [lines[0], lines[2], lines[1], *lines[3:]], [*lines[:1], *lines[2:]], lines[-1:], []):
        path.write_bytes(b"".join(changed))
        with pytest.raises(ManifestRefused):
            open_manifest(path, keys=[key.public_key()])
    path.write_bytes(whole[:-1])
    with pytest.raises(ManifestRefused, match="cut off"):
        open_manifest(path, keys=[key.public_key()])


def test_a_manifest_of_another_key_is_refused_and_one_of_several_keys_is_enough(
    tmp_path: Path, key: Ed25519PrivateKey
) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(_bytes(key))
    other = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(ManifestRefused, match="none of the given keys"):
        open_manifest(path, keys=[other])
    assert open_manifest(path, keys=[other, key.public_key()]).documents == 0


def test_a_manifest_that_changes_while_it_is_read_is_noticed(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(_bytes(key, _head(1)))
    manifest = open_manifest(path, keys=[key.public_key()])
    path.write_bytes(_bytes(key, _head(2)))
    with pytest.raises(ManifestRefused, match="changed"):
        list(manifest.claims())


def test_what_several_manifests_say_comes_document_by_document(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_bytes(_bytes(key, _head(1), _head(3), at=NOON))
    manifest = open_manifest(first, keys=[key.public_key()])
    later = NOON + timedelta(days=1)
    second.write_bytes(_bytes(key, _head(1, seq=9), _head(2), previous=manifest.sha256, at=later))
    manifests = [open_manifest(path, keys=[key.public_key()]) for path in (second, first)]
    found = [(uuid.int, [claim.head.seq for claim in claims]) for uuid, claims in claims_by_document(manifests)]
    assert found == [(1, [3, 9]), (2, [3]), (3, [3])]
    assert list(missing_links(manifests)) == []
    second.write_bytes(_bytes(key, previous=b"\x01" * 32, at=later))
    again = [open_manifest(path, keys=[key.public_key()]) for path in (second, first)]
    assert [(one.name, two.name) for one, two in missing_links(again)] == [("1.jsonl", "2.jsonl")]


def test_more_manifests_are_read_together_than_a_process_may_hold_open(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    paths = [tmp_path / f"{day}.jsonl" for day in range(60)]
    for path in paths:
        path.write_bytes(_bytes(key, *(_head(number) for number in range(200))))
    manifests = [open_manifest(path, keys=[key.public_key()]) for path in paths]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        found = [len(claims) for _, claims in claims_by_document(manifests)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [60] * 200


@pytest.mark.parametrize("bytes_", [1, 7, 100_000])
def test_a_manifest_is_the_same_however_much_is_read_at_once(
    tmp_path: Path, key: Ed25519PrivateKey, bytes_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.jsonl"
    path.write_bytes(_bytes(key, _head(1), _head(2)))
    whole = list(open_manifest(path, keys=[key.public_key()]).claims())
    monkeypatch.setattr("history.proof.manifests.BLOCK_BYTES", bytes_)
    assert list(open_manifest(path, keys=[key.public_key()]).claims()) == whole
    assert len(whole) == 2


def test_one_manifest_a_day_is_published_each_naming_the_one_before(published: Path, key: Ed25519PrivateKey) -> None:
    make_history(1)
    assert [_publish() is None, _publish() is None] == [False, True]
    assert _publish(days=1) is not None
    today, tomorrow = (open_manifest(path, keys=[key.public_key()]) for path in sorted(published.iterdir()))
    assert tomorrow.previous == today.sha256
    assert Manifest.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_second_worker_turns_away_while_the_first_is_at_it(published: Path) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TRY_LOCK)
        assert in_thread(_publish).result(30) is None
    assert list(published.iterdir()) == []
    assert _publish() is not None


def test_a_worker_killed_before_its_commit_leaves_a_manifest_that_the_next_one_takes_as_it_is(
    published: Path, key: Ed25519PrivateKey
) -> None:
    document = make_document()
    assert _publish() is not None
    Manifest.objects.all().delete()  # what the commit would have left
    (published / ".manifest-2026-11-21.jsonl.part").write_bytes(b"half of the next day")
    before = (published / "manifest-2026-11-20.jsonl").read_bytes()
    append_rows(make_session(document), typed("abc"))
    again = _publish()
    assert again is not None
    assert (published / "manifest-2026-11-20.jsonl").read_bytes() == before
    assert bytes(again.sha256) == open_manifest(published / "manifest-2026-11-20.jsonl", keys=[key.public_key()]).sha256
    assert _publish(days=1) is not None
    names = sorted(path.name for path in published.iterdir())
    assert names == ["manifest-2026-11-20.jsonl", "manifest-2026-11-21.jsonl"]


def test_a_file_of_todays_name_that_this_key_did_not_sign_is_left_alone(published: Path) -> None:
    path = published / "manifest-2026-11-20.jsonl"
    path.write_bytes(_bytes(Ed25519PrivateKey.generate()))
    with pytest.raises(ManifestRefused):
        _publish()
    assert not Manifest.objects.exists()


def test_a_command_is_given_the_manifest_and_its_name(
    tmp_path: Path, key: Ed25519PrivateKey, settings: Settings
) -> None:
    settings.PALIMPSEST = {
        "MANIFEST_KEY": str(tmp_path / "manifest.pem"),
        "MANIFEST_COMMAND": f'sh -c \'cat > "$1"\' sh "{tmp_path}/to {{name}}"',
    }
    make_history(1)
    assert _publish() is not None
    assert open_manifest(tmp_path / "to manifest-2026-11-20.jsonl", keys=[key.public_key()]).documents == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [("false", "exit code 1"), ("sleep 60", "did not end"), ("/no/such/command", "could not be run")],
)
def test_a_command_that_fails_is_tried_again_at_the_next_turn(
    tmp_path: Path, key: Ed25519PrivateKey, settings: Settings, command: str, says: str
) -> None:
    ours = {"MANIFEST_KEY": str(tmp_path / "manifest.pem"), "MANIFEST_COMMAND_SECONDS": 0.2}
    settings.PALIMPSEST = {**ours, "MANIFEST_COMMAND": command}
    with pytest.raises(NotDelivered, match=says):
        _publish()
    assert not Manifest.objects.exists()
    settings.PALIMPSEST = {**ours, "MANIFEST_COMMAND": "true", "MANIFEST_COMMAND_SECONDS": 30}
    assert _publish() is not None


def test_what_a_command_says_goes_into_the_log_as_a_beginning(
    tmp_path: Path, key: Ed25519PrivateKey, settings: Settings, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    loud = f"{shlex.quote(sys.executable)} -c 'import sys; sys.stderr.write(chr(120) * 300_000); sys.exit(1)'"
    settings.PALIMPSEST = {"MANIFEST_KEY": str(tmp_path / "manifest.pem"), "MANIFEST_COMMAND": loud}
    with pytest.raises(NotDelivered, match="exit code 1"):
        _publish()
    assert capfd.readouterr().err.count("x") < 5000
    assert caplog.text.count("x" * 1000) == 1
    assert "x" * 1001 not in caplog.text


def test_what_was_not_delivered_leaves_nothing_in_the_folder(published: Path, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "MANIFEST_COMMAND": "false"}
    with pytest.raises(NotDelivered):
        _publish()
    assert list(published.iterdir()) == []


def test_a_manifest_of_a_day_that_has_not_come_is_told_and_keeps_no_other_from_being_made(
    published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = timezone.now()
    day = (now + timedelta(days=3)).date()
    Manifest.objects.create(day=day, sha256=b"", documents=0, key_id="", created_at=now, published_at=now)
    assert sign_manifest() is True
    assert f"a manifest of {day} is said to be published, a day that has not come" in caplog.text
    (turn,) = Chore.objects.filter(task="history.tasks.sign_manifest")
    assert turn.findings[0]["table"] == "manifest"
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("verify_history", stdout=out, stderr=out)
    assert "[history_manifest]" in out.getvalue()


def test_a_manifest_of_a_day_on_which_it_was_not_made_is_told(published: Path) -> None:
    now = timezone.now()
    Manifest.objects.create(day=now.date(), sha256=b"", documents=0, key_id="", created_at=NOON, published_at=now)
    Manifest.objects.update(created_at=now - timedelta(days=3))
    assert ["on another day" in what for what in false_days(now=now)] == [True]
    Manifest.objects.update(created_at=now)
    assert list(false_days(now=now)) == []


def test_that_publishing_has_stopped_is_said(published: Path, settings: Settings) -> None:
    now = timezone.now()
    assert "ever published" in (overdue(now=now) or "")
    assert publish_manifest(now=now) is not None
    assert overdue(now=now + timedelta(days=1)) is None
    assert "publishing has stopped" in (overdue(now=now + timedelta(days=2, seconds=1)) or "")
    Manifest.objects.update(day=(now - timedelta(days=3)).date(), created_at=now - timedelta(days=3))
    out = StringIO()
    call_command("verify_history", stdout=out, stderr=out)
    assert "publishing has stopped" in out.getvalue()
    settings.PALIMPSEST = {}
    assert overdue(now=now) is None


def test_what_a_command_started_ends_with_it(tmp_path: Path, key: Ed25519PrivateKey, settings: Settings) -> None:
    """Each turn would leave another one behind."""
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    settings.PALIMPSEST = {
        "MANIFEST_KEY": str(tmp_path / "manifest.pem"),
        "MANIFEST_COMMAND": f"sh -c 'sleep 60 > {tmp_path}/held & sleep 60'",
        "MANIFEST_COMMAND_SECONDS": 2,
    }
    with pytest.raises(NotDelivered, match="did not end"):
        _publish()
    ended, _, _ = select.select([held], [], [], 20)
    assert ended == [held]
    assert os.read(held, 1) == b""
    os.close(held)


def test_the_task_publishes_once_and_logs_what_goes_wrong(
    published: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    make_history(1)
    assert [sign_manifest(), sign_manifest()] == [True, False]
    assert [path.name for path in published.iterdir()] == [f"manifest-{timezone.now():%Y-%m-%d}.jsonl"]
    Manifest.objects.all().delete()
    settings.PALIMPSEST = {**settings.PALIMPSEST, "MANIFEST_DIRECTORY": str(published / "gone")}
    assert sign_manifest() is False
    assert "manifest not published" in caplog.text


def test_nothing_is_signed_without_a_key(settings: Settings) -> None:
    settings.PALIMPSEST = {}
    assert sign_manifest() is False
    assert _publish() is None


def test_heads_are_read_as_one_statement_says_them(django_assert_num_queries: Callable[[int], Any]) -> None:
    for seed in range(3):
        make_history(seed, edits=5)
    with transaction.atomic(), django_assert_num_queries(1):
        assert len(list(heads_of_all_documents())) == 3


def test_the_key_is_its_owners_alone_and_never_made_twice(tmp_path: Path) -> None:
    out, path = StringIO(), tmp_path / "manifest.pem"
    call_command("manifest_key", path, stdout=out, stderr=StringIO())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert out.getvalue() == public_pem(load_key(path).public_key())
    before = path.read_bytes()
    with pytest.raises(CommandError, match="there already"):
        call_command("manifest_key", path, stdout=out, stderr=StringIO())
    assert path.read_bytes() == before
    shown = StringIO()
    call_command("manifest_key", path, "--show", stdout=shown, stderr=StringIO())
    assert shown.getvalue() == public_pem(load_key(path).public_key())
    (tmp_path / "public.pem").write_text(shown.getvalue())
    assert public_pem(load_public_key(tmp_path / "public.pem")) == shown.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_without_a_word_of_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    for load in (load_key, load_public_key):
        with pytest.raises(KeyRefused) as refused:
            load(path)
        assert "secret" not in str(refused.value)


def test_the_check_names_half_of_a_setup_and_a_key_that_others_may_read(
    published: Path, tmp_path: Path, settings: Settings
) -> None:
    assert check_manifests() == []
    os.chmod(tmp_path / "manifest.pem", 0o640)
    assert [each.id for each in check_manifests()] == ["history.W002"]
    for half in ({"MANIFEST_KEY": "/key"}, {"MANIFEST_COMMAND": "true"}, {"MANIFEST_DIRECTORY": "/here"}):
        settings.PALIMPSEST = half
        assert [each.id for each in check_manifests()] == ["history.W001"]
    settings.PALIMPSEST = {}
    assert check_manifests() == []
