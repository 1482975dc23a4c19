"""Emoji that are cut in two: at every seq the log folds to what Yjs says, by whatever way it is read."""

import random
import sys
from typing import Any

import pytest
from pycrdt import Text
from pytest_django import Settings

from documents.models import Document
from history.append import append
from history.crdt.splits import NO_SPLITS, Splits, decode_splits, with_splits
from history.fates import PendingUpdate, Stored
from history.folds import compact, document_at, make_ydoc
from history.gate import Gate
from history.models import Kind, Segment, Snapshot, Split, Update
from history.proof import verify
from history.proof.verify import Difference, Verdict, verify_document
from history.runs import runs_of
from history.sessions import WriteSession
from history.squash import squash_document
from history.writes import restore
from tests.builders import NEVER_WARM, append_rows, make_document, make_session, rechain, typed
from tests.emoji_histories import NOTHING, EmojiRow, Said, emoji_histories, said_by
from tests.histories import replay
from tests.unit.crdt.test_splits import HALVES, text_update

pytestmark = pytest.mark.django_db(transaction=True)

HISTORIES = 100
EMOJI = text_update("a😀b")
BETWEEN = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"  # client 2 types an x between the halves
SECOND_HALF_GONE = b"\x00\x01\x01\x01\x02\x01"


@pytest.fixture(scope="module")
def histories() -> dict[int, list[EmojiRow]]:
    return emoji_histories(1, HISTORIES)


@pytest.fixture
def small_segments(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """And short ways between snapshots, so that all that was deleted is cut out of a later state wherever it can be."""
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 2, "SEGMENT_ROWS_MAX": 16, "SNAPSHOT_DISTANCE_ROWS": 1}
    monkeypatch.setattr("history.folds.STATE_BYTES_A_ROW", sys.maxsize)


class TwoProcesses:
    """One gate in each of two worker processes: what one takes the other follows."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.gates = [Gate.load(document.pk), Gate.load(document.pk)]
        self.sessions: dict[int, WriteSession] = {}

    def write(self, row: EmojiRow) -> Stored | None:
        """Write as the person of the row, who is on the process of an odd or of an even number."""
        mine, other = self.gates[row.user % 2], self.gates[1 - row.user % 2]
        session = self.sessions.setdefault(row.user, make_session(self.document))
        taken = mine.take(row.update, session)
        if taken is None:
            return None
        (fate,) = append([PendingUpdate(session=session, payload=taken.update, splits=taken.splits)])
        assert isinstance(fate, Stored)
        mine.follow(fate.seq, taken.update, known=True)
        other.follow(fate.seq, taken.update, known=False, splits=taken.splits)
        return fate


def write_history(document: Document, rows: list[EmojiRow]) -> list[Said]:
    """Log a history, with a snapshot halfway; return what Yjs says at every seq from 0 on. A split says nothing."""
    processes = TwoProcesses(document)
    yjs = [NOTHING]
    for place, row in enumerate(rows):
        fate = processes.write(row)
        if fate is None:
            assert row.yjs == yjs[-1]
        else:
            yjs += [yjs[-1]] * (fate.seq - fate.first_seq) + [row.yjs]
        if place == len(rows) // 2:
            compact(document.pk)
    for gate in processes.gates:
        assert said_by(gate.intake) == yjs[-1]
    return yjs


def assert_says(document: Document, yjs: list[Said], *, rng: random.Random) -> None:
    head = len(yjs) - 1
    recorded = Update.objects.filter(document=document, kind=Kind.SPLIT).values_list("seq", flat=True)
    around_splits = {near for seq in recorded for near in (seq - 1, seq, seq + 1)}
    for seq in {head, *rng.sample(range(head + 1), 5), *rng.sample(sorted(around_splits), min(6, len(around_splits)))}:
        for full in (False, True):
            assert said_by(document_at(document.pk, seq=seq, full=full).doc) == yjs[seq], (seq, full)


@pytest.mark.parametrize("part", range(4))
def test_at_every_seq_the_log_folds_to_what_yjs_says(
    histories: dict[int, list[EmojiRow]], small_segments: None, part: int
) -> None:
    split = 0
    for seed in range(part + 1, HISTORIES + 1, 4):
        rng, document = random.Random(seed), make_document()
        yjs = write_history(document, histories[seed])
        assert_says(document, yjs, rng=rng)
        assert said_by(make_ydoc(document.pk).doc) == yjs[-1]
        assert said_by(replay([compact(document.pk).doc.get_update()])) == yjs[-1]
        assert isinstance(verify_document(document.pk), Verdict)

        squash_document(document.pk, older_than=NEVER_WARM)
        assert_says(document, yjs, rng=rng)
        Snapshot.objects.filter(document=document).delete()
        assert_says(document, yjs, rng=rng)
        assert isinstance(verify_document(document.pk), Verdict)
        split += Split.objects.filter(document=document).exists()
    assert split > HISTORIES // 8, "these histories are to split emoji"


def test_without_the_splits_the_log_folds_to_something_else(
    histories: dict[int, list[EmojiRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("history.folds.read_splits", lambda document_id, until: NO_SPLITS)
    wrong = 0
    for seed in range(1, 11):
        document = make_document()
        processes = TwoProcesses(document)
        fates = [processes.write(row) for row in histories[seed]]
        assert any(fate and fate.split_seq for fate in fates)
        try:
            wrong += said_by(document_at(document.pk).doc) != histories[seed][-1].yjs
        except BaseException as error:  # noqa: BLE001  (pyo3's PanicException is no Exception)
            assert type(error).__name__ == "PanicException"
            wrong += 1
    assert wrong > 5


def _write(document: Document, update: bytes, **fields: Any) -> Stored:
    taken = Gate.load(document.pk).take(update, make_session(document))
    assert taken is not None
    pending = PendingUpdate(session=make_session(document), payload=taken.update, splits=taken.splits, **fields)
    (fate,) = append([pending])
    assert isinstance(fate, Stored)
    return fate


def test_a_split_is_a_row_of_the_same_session_right_before_the_edit_that_splits() -> None:
    document = make_document()
    _write(document, EMOJI)
    fate = _write(document, BETWEEN, request_key="once")
    assert (fate.first_seq, fate.seq) == (2, 3)
    rows = list(Update.objects.filter(document=document).order_by("seq"))
    assert [row.kind for row in rows] == [Kind.SYNC, Kind.SPLIT, Kind.SYNC]
    assert rows[1].session_id == rows[2].session_id
    assert decode_splits(bytes(rows[1].payload)) == {(1, 2)}
    assert [said_by_text(document, seq) for seq in range(4)] == ["", "a😀b", "a😀b", "a\ufffdx\ufffdb"]
    again = PendingUpdate(session=make_session(document), payload=BETWEEN, request_key="once")
    (repeated,) = append([again])
    assert isinstance(repeated, Stored) and (repeated.seq, repeated.first_seq) == (3, 3)


def said_by_text(document: Document, seq: int | None = None) -> str:
    return str(document_at(document.pk, seq=seq).doc.get("text", type=Text))


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_a_split_that_two_processes_find_at_the_same_moment_is_recorded_once(in_one_batch: bool) -> None:
    document = make_document()
    _write(document, EMOJI)
    gates = Gate.load(document.pk), Gate.load(document.pk)
    found = [
        gate.take(update, make_session(document))
        for gate, update in zip(gates, (BETWEEN, SECOND_HALF_GONE), strict=True)
    ]
    pending = [
        PendingUpdate(session=make_session(document), payload=taken.update, splits=taken.splits)
        for taken in found
        if taken is not None
    ]
    fates = append(pending) if in_one_batch else [fate for item in pending for fate in append([item])]
    assert [(fate.first_seq, fate.seq) for fate in fates if isinstance(fate, Stored)] == [(2, 3), (4, 4)]
    assert said_by_text(document) == "a\ufffdxb"
    assert isinstance(verify_document(document.pk), Verdict)


def test_what_a_refused_edit_would_have_split_stays_whole() -> None:
    document = make_document()
    _write(document, EMOJI)
    taken = Gate.load(document.pk).take(BETWEEN, make_session(document))
    assert taken is not None
    append([PendingUpdate(session=make_session(document), payload=taken.update, splits=taken.splits, expected_seq=7)])
    assert not Split.objects.filter(document=document).exists()
    assert said_by_text(document) == "a😀b"


def test_an_edit_that_says_nothing_new_splits_nothing() -> None:
    document = make_document()
    _write(document, EMOJI)
    _write(document, b"\x00\x01\x01\x01\x01\x02")  # all of it is deleted
    gate = Gate.load(document.pk)
    assert gate.take(SECOND_HALF_GONE, make_session(document)) is None
    taken = gate.take(BETWEEN, make_session(document))
    assert taken is not None and taken.splits == {(1, 2)}


def test_what_was_said_before_the_split_can_be_restored() -> None:
    document = make_document()
    _write(document, EMOJI)
    _write(document, BETWEEN)
    assert restore(make_session(document), 1) is not None
    assert said_by_text(document) == "a😀b"
    assert restore(make_session(document), 3) is not None
    assert said_by_text(document) == f"a{HALVES[0]}x{HALVES[1]}b"
    assert isinstance(verify_document(document.pk), Verdict)


def test_any_moment_of_careless_emoji_editing_can_be_restored(histories: dict[int, list[EmojiRow]]) -> None:
    for seed in range(1, 13):
        document = make_document()
        yjs = write_history(document, histories[seed])
        for seq in random.Random(seed).sample(range(len(yjs)), 4):
            restore(make_session(document), seq)
            said = said_by(document_at(document.pk).doc)
            assert (said.text, said.delta) == (yjs[seq].text, yjs[seq].delta), (seed, seq)
        assert isinstance(verify_document(document.pk), Verdict)


@pytest.mark.parametrize("damage", ["taken away", "moved", "made up"])
def test_verify_finds_a_table_of_splits_that_is_not_what_the_log_says(damage: str) -> None:
    document = make_document()
    _write(document, EMOJI)
    _write(document, BETWEEN)
    splits = Split.objects.filter(document=document)
    match damage:
        case "taken away":
            splits.delete()
        case "moved":
            splits.update(seq=3)
        case "made up":
            Split.objects.create(document=document, client=1, clock=5, seq=2)
    found = verify_document(document.pk)
    assert isinstance(found, Difference) and found.seq in (2, 3), found


def test_verify_finds_a_split_row_that_cannot_be_read() -> None:
    document = make_document()
    _write(document, EMOJI)
    _write(document, BETWEEN)
    Update.objects.filter(document=document, seq=2).update(payload=b"\x02\x01\x02")
    rechain(document)
    found = verify_document(document.pk)
    assert isinstance(found, Difference) and found.seq == 2


def test_a_segment_ends_behind_the_edit_that_cut_an_emoji_and_not_before_it(settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 2, "SEGMENT_ROWS_MAX": 4}
    document = make_document()
    ada, bob = make_session(document), make_session(document)
    append_rows(ada, [EMOJI, b"\0\0", b"\0\0"], kind=Kind.EDIT)
    append([PendingUpdate(session=bob, payload=BETWEEN, splits=frozenset({(1, 2)}), kind=Kind.EDIT)])
    append_rows(bob, [b"\0\0"] * 3, kind=Kind.EDIT)
    before = runs_of(document.pk)
    assert [(run.first_seq, run.last_seq, run.kind) for run in before] == [(4, 8, Kind.EDIT), (1, 3, Kind.EDIT)]
    assert squash_document(document.pk, older_than=NEVER_WARM) == 7
    assert list(Segment.objects.order_by("first_seq").values_list("first_seq", "last_seq")) == [(1, 3), (4, 7)]
    assert runs_of(document.pk) == before


def test_a_proof_does_not_read_the_document_anew_for_each_split(monkeypatch: pytest.MonkeyPatch) -> None:
    document = make_document()
    session = make_session(document)
    append_rows(session, typed(["\U0001f600" * 500]))
    for number in range(30):
        append([PendingUpdate(session=session, payload=b"\0\0", splits=frozenset({(1, 2 * number + 1)}))])
    compact(document.pk)
    read = 0

    def counting(update: bytes, splits: Splits) -> bytes:
        nonlocal read
        read += len(update) > 1000
        return with_splits(update, splits)

    monkeypatch.setattr(verify, "with_splits", counting)
    assert isinstance(verify_document(document.pk), Verdict)
    assert read <= 3


@pytest.mark.parametrize("damage", ["taken away", "made up"])
def test_a_proof_up_to_a_snapshot_finds_a_table_of_splits_that_is_not_what_the_log_says(damage: str) -> None:
    document = make_document()
    session = make_session(document)
    append_rows(session, [text_update("a\U0001f600b\U0001f600")])
    append([PendingUpdate(session=session, payload=b"\0\0", splits=frozenset({(1, 2)}))])
    compact(document.pk)
    assert isinstance(verify_document(document.pk), Verdict)
    if damage == "taken away":
        Split.objects.filter(document=document).delete()
    else:
        Split.objects.create(document=document, client=1, clock=5, seq=2)
    found = verify_document(document.pk)
    assert isinstance(found, Difference) and found.table == "split", found
