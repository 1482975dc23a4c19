"""Verification: each kind of tampering is found, and named by the seq where it begins."""

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.models import F
from pycrdt import Doc, Text

from documents.models import Document
from history.append import append
from history.crdt.packing import PackedRow, pack, unpack
from history.fates import PendingUpdate
from history.folds import compact
from history.models import Head, Run, Segment, Session, Snapshot, Update
from history.proof import verify
from history.proof.verify import Difference, Verdict, verify_document
from history.snapshots import digest, pack_state, unpack_state
from history.squash import squash_document
from tests.builders import (
    NEVER_WARM,
    append_rows,
    in_thread,
    log_of,
    make_document,
    make_history,
    make_session,
    make_user,
    rechain,
    typed,
)
from tests.histories import updates_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def document() -> Document:
    """26 rows, from 14 on by bob: segments 1..10 and 11..20, rows 21..26, a snapshot at 13 and one at 26."""
    document = make_document("minutes")
    append_rows(make_session(document, make_user("ada")), typed("abcdefghijklm"))
    compact(document.pk)
    append_rows(make_session(document, make_user("bob")), typed("nopqrstuvwxyz", client_id=2))
    compact(document.pk)
    squash_document(document.pk, older_than=NEVER_WARM, segments_max=2)
    assert _difference(document) is None
    return document


def _difference(document: Document) -> tuple[int, str] | None:
    outcome = verify_document(document.pk)
    return (outcome.seq, outcome.what) if isinstance(outcome, Difference) else None


def _row(seq: int, /, **fields: object) -> Callable[[Document], object]:
    return lambda document: Update.objects.filter(document=document, seq=seq).update(**fields)


def _drop(seq: int) -> Callable[[Document], object]:
    return lambda document: Update.objects.filter(document=document, seq=seq).delete()


def _swap(first: int, second: int) -> Callable[[Document], object]:
    def act(document: Document) -> None:
        rows = Update.objects.filter(document=document)
        for seq, to in ((first, -1), (second, first), (-1, second)):
            rows.filter(seq=seq).update(seq=to)

    return act


def _segment(change: Callable[[list[PackedRow]], list[PackedRow]]) -> Callable[[Document], object]:
    def act(document: Document) -> None:
        segment = Segment.objects.get(document=document, first_seq=11)
        rows = change(unpack(bytes(segment.payload)))
        Segment.objects.filter(document=document, first_seq=11).update(payload=pack(rows))

    return act


def _altered(row: PackedRow) -> PackedRow:
    return PackedRow(row.session_id, row.kind, row.at_microseconds, row.payload[:-1] + b"!")


def _segment_fields(**fields: object) -> Callable[[Document], object]:
    return lambda document: Segment.objects.filter(document=document, first_seq=11).update(**fields)


def _snapshot(**fields: object) -> Callable[[Document], object]:
    return lambda document: Snapshot.objects.filter(document=document, seq=13).update(**fields)


def _snapshot_of_another(document: Document) -> None:
    """A snapshot that loads, whose digest is right, and that says something else."""
    other = make_document()
    append_rows(make_session(other), typed("abcdefghijklM"))
    compact(other.pk)
    false = Snapshot.objects.get(document=other)
    _snapshot(state=false.state, full_state=false.full_state, sha256=false.sha256)(document)


def _snapshot_of_garbage(document: Document) -> None:
    _snapshot(state=b"\x01\x02\x03", full_state=b"x", sha256=digest(b"\x01\x02\x03", b"x"))(document)


def _author(name: str) -> Callable[[Document], object]:
    return lambda document: Session.objects.filter(document=document, user__username="bob").update(user=make_user(name))


def _truncate_with_its_head(document: Document) -> None:
    Update.objects.filter(document=document, seq__gt=23).delete()
    last = Update.objects.get(document=document, seq=23)
    Head.objects.filter(document=document).update(seq=23, at=last.at)


def _truncate_all_of_it(document: Document) -> None:
    last = Update.objects.get(document=document, seq=23)
    _truncate_with_its_head(document)
    Head.objects.filter(document=document).update(hash=last.hash)


def _run(**fields: object) -> Callable[[Document], object]:
    return lambda document: Run.objects.filter(document=document, first_seq=11).update(**fields)


def _run_over_others(document: Document) -> None:
    """Ada's run reaches over what bob wrote in the middle of it, and the sums are right: nobody sees bob."""
    of_bob = Run.objects.get(document=document, first_seq=14)
    ada = Run.objects.filter(document=document, first_seq=11)
    held = ("updates", "bytes", "inserted", "deleted")
    ada.update(**{name: F(name) + getattr(of_bob, name) for name in held})
    Run.objects.filter(document=document, first_seq=14).delete()


def _what_was_deleted(document: Document) -> None:
    """What the newest snapshot keeps of a text that is gone, and would give back, is another one."""
    append_rows(make_session(document), _typed_and_deleted("secret"))
    compact(document.pk)
    newest = Snapshot.objects.get(document=document, seq=28)
    full_state = pack_state(unpack_state(bytes(newest.full_state)).replace(b"secret", b"public"))
    sha256 = digest(bytes(newest.state), full_state)
    Snapshot.objects.filter(document=document, seq=28).update(full_state=full_state, sha256=sha256)


def _typed_and_deleted(text: str) -> list[bytes]:
    doc: Doc[Any] = Doc(client_id=9, skip_gc=True)
    root = doc.get("text", type=Text)
    return [*updates_of(doc, lambda: root.insert(0, text)), *updates_of(doc, lambda: root.clear())]


def _yes_and_no(first_client: int, second_client: int) -> list[bytes]:
    (yes,) = typed(["yes"], client_id=first_client)
    doc: Doc[Any] = Doc(client_id=second_client)
    doc.apply_update(yes)
    root = doc.get("text", type=Text)
    return [yes, *updates_of(doc, lambda: root.insert(3, "no!"))]


def _whose_words_are_whose(document: Document) -> None:
    """The snapshot says the same, but what each of two clients wrote the other one did."""
    before = [row[-1] for row in log_of(document)]
    append_rows(make_session(document), _yes_and_no(5, 6))
    compact(document.pk)
    forged: Doc[Any] = Doc(skip_gc=True)
    for payload in (*before, *_yes_and_no(6, 5)):
        forged.apply_update(payload)
    state = pack_state(forged.get_update())
    stored = {"state": state, "full_state": state, "sha256": digest(state, state)}
    Snapshot.objects.filter(document=document, seq=28).update(**stored)


TAMPERINGS: dict[str, tuple[Callable[[Document], object], int, str]] = {
    "a payload": (_row(23, payload=b"\x00\x00"), 23, "altered"),
    "a time": (_row(23, at=F("at") + timedelta(microseconds=1)), 23, "altered"),
    "a time that falls": (_row(23, at=F("at") - timedelta(days=1)), 23, "before"),
    "a kind": (_row(23, kind=3), 23, "altered"),
    "a stored hash": (_row(23, hash=bytes(32)), 23, "altered"),
    "the last row": (_row(26, payload=b"\x00\x00"), 26, "altered"),
    "a session that is none": (_row(23, session_id=1), 23, "session 1 is missing"),
    "an author": (_author("eve"), 14, "who wrote it"),
    "a door": (lambda document: Session.objects.filter(user__username="ada").update(via=1), 1, "who wrote it"),
    "a commitment": (
        lambda document: Session.objects.filter(user__username="bob").update(commitment=bytes(32)),
        14,
        "who wrote it",
    ),
    "a row dropped": (_drop(23), 23, "missing"),
    "a row dropped after the segments": (_drop(21), 21, "missing"),
    "two rows swapped": (_swap(22, 24), 22, "altered|before"),
    "the end cut off": (lambda document: Update.objects.filter(seq__gt=23).delete(), 24, "missing"),
    "the end cut off, head moved": (_truncate_with_its_head, 23, "hash"),
    "the end cut off, head rewritten": (_truncate_all_of_it, 26, "snapshot"),
    "a row beyond the head": (lambda document: Head.objects.update(seq=25), 26, "beyond"),
    "the head's time": (lambda document: Head.objects.update(at=F("at") + timedelta(1)), 26, "head's time"),
    "the head gone": (lambda document: Head.objects.all().delete(), 0, "head"),
    "a segment's payload": (_segment(lambda rows: [*rows[:4], _altered(rows[4]), *rows[5:]]), 11, "11..20 was altered"),
    "a segment's order": (_segment(lambda rows: rows[::-1]), 18, "before"),
    "a segment cut": (_segment(lambda rows: rows[:-1]), 11, "holds 9 rows"),
    "a segment's bytes": (_segment_fields(payload=b"\x01garbage"), 11, "unpacked"),
    "a segment's start": (_segment_fields(start_hash=bytes(32)), 11, "start"),
    "a segment's end": (_segment_fields(end_hash=bytes(32)), 11, "altered"),
    "a segment's time": (_segment_fields(last_at=F("last_at") + timedelta(1)), 11, "times"),
    "a segment dropped": (lambda document: Segment.objects.filter(first_seq=11).delete(), 11, "missing"),
    "the first segment dropped": (lambda document: Segment.objects.filter(first_seq=1).delete(), 1, "follow"),
    "a row that is in a segment too": (_row(21, seq=20), 20, "segment too"),
    "a run's author": (_run(session_id=1), 11, "run"),
    "a run's count": (_run(updates=99), 11, "run"),
    "a run's extent": (_run(inserted=99), 11, "run"),
    "a run over another's": (_run_over_others, 11, "run"),
    "a run dropped": (lambda document: Run.objects.filter(first_seq=11).delete(), 11, "runs"),
    "a snapshot's bytes": (_snapshot(state=b"\x00\x00"), 13, "sha256"),
    "a snapshot's content": (_snapshot_of_another, 13, "not the document"),
    "a snapshot of garbage": (_snapshot_of_garbage, 13, "cannot be applied"),
    "a snapshot's deleted text": (_what_was_deleted, 28, "otherwise than the log"),
    "a snapshot's authors": (_whose_words_are_whose, 28, "otherwise than the log"),
    "a snapshot's place": (_snapshot(seq=12), 12, "not the document"),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_tampering_is_found_and_named(document: Document, kind: str) -> None:
    tamper, seq, what = TAMPERINGS[kind]
    tamper(document)
    difference = _difference(document)
    assert difference is not None
    assert difference[0] == seq, difference
    assert any(each in difference[1] for each in what.split("|")), difference


@pytest.mark.parametrize("seed", range(5))
def test_a_random_history_holds_through_snapshots_and_squash(seed: int) -> None:
    document = make_history(300 + seed, edits=40)
    head = Head.objects.get(document=document).seq
    compact(document.pk)
    squash_document(document.pk, older_than=NEVER_WARM)
    verdict = verify_document(document.pk)
    assert isinstance(verdict, Verdict), verdict
    assert (verdict.head_seq, verdict.snapshots, verdict.authors_unknown) == (head, 1, 0)
    assert verdict.rows == Update.objects.filter(document=document).count()
    assert verdict.segments == Segment.objects.filter(document=document).count()


def test_more_sessions_than_are_kept_in_memory_are_all_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SESSIONS_KEPT_MAX", 3)
    monkeypatch.setattr(verify, "ROWS_PER_FETCH", 5)
    document = make_document()
    sessions = [make_session(document, make_user()) for _ in range(30)]
    append([PendingUpdate(session=session, payload=b"\x00\x00") for session in (*sessions, *sessions)])
    squash_document(document.pk, older_than=NEVER_WARM, segments_max=2)
    assert _difference(document) is None
    Session.objects.filter(document=document, id=sessions[27].id).update(ip="192.0.2.1")
    assert (_difference(document) or (0,))[0] == 28


def test_a_row_altered_at_any_seq_is_named() -> None:
    document = make_history(400, edits=12)
    for row in Update.objects.filter(document=document):
        payload = bytes(row.payload)
        rows = Update.objects.filter(document=document, seq=row.seq)
        rows.update(payload=payload + b"\x00")
        assert (_difference(document) or (0,))[0] == row.seq
        rows.update(payload=payload)
    assert _difference(document) is None


def test_a_log_that_was_hashed_anew_no_longer_fits_its_segments_and_sessions(document: Document) -> None:
    Update.objects.filter(document=document, seq=23).update(payload=b"\x00\x00")
    rechain(document)  # from the genesis: who cannot rewrite the segments is found
    assert (_difference(document) or (0,))[0] == 21


def test_a_deleted_account_leaves_a_proven_log_with_an_unknown_author(document: Document) -> None:
    Session.objects.get(user__username="bob").user.delete()  # type: ignore[union-attr]
    verdict = verify_document(document.pk)
    assert isinstance(verdict, Verdict)
    assert verdict.authors_unknown == 1


def test_a_pseudonymised_session_leaves_a_proven_log(document: Document) -> None:
    Session.objects.filter(user__username="bob").update(user=None, salt=b"", ip=None)
    assert isinstance(verify_document(document.pk), Verdict)


def test_appends_and_squashes_during_a_verification_are_no_difference(document: Document) -> None:
    moved: list[int] = []

    def move_on(seq: int, head: int) -> None:
        if not moved:
            moved.extend(in_thread(lambda: append_rows(make_session(document), typed("!", client_id=3))).result(30))
            assert in_thread(lambda: squash_document(document.pk, older_than=NEVER_WARM)).result(30) == 7

    verdict = verify_document(document.pk, progress=move_on)
    assert isinstance(verdict, Verdict), verdict
    assert (moved, verdict.head_seq, verdict.segments) == ([27], 26, 2)
    assert _difference(document) is None


def _command(*documents: str) -> str:
    out = io.StringIO()
    call_command("verify_history", *documents, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_command_prints_a_line_for_each_document(document: Document) -> None:
    other = make_history(1)
    lines = _command().splitlines()
    assert len(lines) == 3
    assert f"minutes ({document.key}): 1..26 proven in 6 rows and 2 segments, 2 snapshots" in lines[:2]
    assert any(line.startswith(other.name) for line in lines[:2])
    assert len(_command("minutes").splitlines()) == len(_command(str(other.key)).splitlines()) == 2


def _failing(*arguments: str) -> tuple[int, str]:
    """The exit code of the command and all that it said."""
    out = io.StringIO()
    with pytest.raises(CommandError) as error:
        call_command("verify_history", *arguments, stdout=out, stderr=out)
    return error.value.returncode, out.getvalue() + str(error.value)


def test_the_command_names_the_first_difference_of_each_document(document: Document) -> None:
    other = make_history(1)
    Update.objects.filter(document=document, seq=24).update(payload=b"\x00\x00")
    Update.objects.filter(document=other, seq=3).delete()
    code, said = _failing()
    assert code == 1
    assert f"minutes ({document.key}): seq 24: the row was altered" in said
    assert f"{other.name} ({other.key}): seq 3: the row is missing" in said
    assert "[history_update]" in said
    assert said.endswith("2 of 2 documents differ")


def test_the_command_knows_when_there_is_no_such_document() -> None:
    assert _failing("nowhere") == (2, "there is no document of the name or key 'nowhere'")


def test_verification_changes_nothing(document: Document) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id_if_assigned()")
        assert cursor.fetchone() == (None,)
    assert isinstance(verify_document(document.pk), Verdict)
