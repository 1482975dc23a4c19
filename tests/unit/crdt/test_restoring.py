"""A restore is one update forward that makes the document say what it said, and takes nothing from anyone."""

import os
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import restoring
from history.crdt.content import canonical
from history.crdt.differing import changes
from history.crdt.guard import Guard
from history.crdt.restoring import RestoreFailed, TakenBack, restored
from history.crdt.updates import decode_update
from tests.histories import Row, random_history, replay, updates_of

CLIENT = 999
BATCH = 20
BATCHES = int(os.environ.get("RESTORE_HISTORIES", "240")) // BATCH
"""RESTORE_HISTORIES=1000 runs the lab's number of histories."""


def taken_back(rows: list[Row], place: int, *, gc: bool = True, **options: Any) -> TakenBack:
    updates = [row.update for row in rows]
    state_at = replay(updates[:place], skip_gc=not gc).get_update()
    head_state = replay(updates, skip_gc=True).get_update()
    return restored(state_at=state_at, head_state=head_state, client_id=CLIENT, **options)


def restoring_update(rows: list[Row], place: int, *, gc: bool = True) -> bytes | None:
    return taken_back(rows, place, gc=gc).update


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_moment_of_a_random_history_is_restored(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rows = random_history(seed, edits=60)
        place = random.Random(seed).randrange(len(rows) + 1)
        update = restoring_update(rows, place, gc=seed % 4 != 0)
        want = canonical(replay(rows[:place]))
        for skip_gc in (False, True):
            head = replay(rows, skip_gc=skip_gc)
            if update is not None:
                Guard.of(head.get_update()).check(update)
                head.apply_update(update)
            assert canonical(head) == want, f"history {seed} at {place}"


@pytest.mark.parametrize("seed", range(20))
def test_what_others_insert_meanwhile_survives_and_all_orders_converge(seed: int) -> None:
    rows = random_history(seed, edits=60)
    update = restoring_update(rows, len(rows) // 2)
    assert update is not None
    peer: Doc[Any] = Doc(client_id=77)
    for row in rows:
        peer.apply_update(row.update)
    [meanwhile] = updates_of(peer, lambda: peer.get("text", type=Text).insert(0, "§meanwhile§", {}))
    after, before = replay([*rows, update, meanwhile]), replay([*rows, meanwhile, update])
    assert canonical(after) == canonical(before)
    assert "§meanwhile§" in str(after.get("text", type=Text))


def test_nothing_is_emitted_when_nothing_differs() -> None:
    rows = random_history(1)
    assert restoring_update(rows, len(rows)) is None


def test_a_document_can_be_restored_to_before_its_first_edit() -> None:
    rows = random_history(1)
    update = restoring_update(rows, 0)
    assert update is not None
    assert canonical(replay([*rows, update])) == "{}"


def test_a_restore_can_be_restored() -> None:
    rows = random_history(8, edits=60)
    head = canonical(replay(rows))
    first = restoring_update(rows, 10)
    assert first is not None
    again = restoring_update([*rows, Row(first, 9)], len(rows))
    assert again is None or canonical(replay([*rows, first, again])) == head


def test_a_restore_is_written_by_the_client_id_it_was_given_alone() -> None:
    rows = random_history(5)
    update = restoring_update(rows, 5)
    assert update is not None
    assert {struct.client for struct in decode_update(update).structs} <= {CLIENT}


def test_a_key_overwritten_in_a_parent_deleted_later_comes_back() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    rows: list[bytes] = []
    doc.observe(lambda event: rows.append(event.update))
    root = doc.get("m", type=Map)
    root["inner"] = Map({"key": "first"})
    place, want = len(rows), canonical(doc)
    root["inner"]["key"] = "second"
    del root["inner"]
    update = restoring_update([Row(row, 1) for row in rows], place)
    assert update is not None
    assert canonical(replay([*rows, update])) == want


def make_everything(doc: Doc[Any]) -> None:
    text = doc.get("text", type=Text)
    text.insert(0, "héllo 😀 ", {"bold": True})
    text.insert_embed(0, {"image": "u"}, {})
    text.insert_embed(1, Map({"e": 1}), {})
    doc.get("map", type=Map)["k"] = Map({"list": Array([1, b"\x01", Text("t"), {"a": [1]}])})
    doc.get("array", type=Array).extend([1, 2.5, Map({"q": None})])
    doc.get("xml", type=XmlFragment).children.append(XmlElement("p", {"a": "1"}, [XmlText("words")]))


def test_the_difference_alone_restores_every_type(monkeypatch: pytest.MonkeyPatch) -> None:
    doc: Doc[Any] = Doc(client_id=1)
    rows: list[bytes] = []
    doc.observe(lambda event: rows.append(event.update))
    make_everything(doc)
    place, want = len(rows), canonical(doc)
    for name, root_type in (("text", Text), ("map", Map), ("array", Array)):
        doc.get(name, type=root_type).clear()
    del doc.get("xml", type=XmlFragment).children[0]
    monkeypatch.setattr(restoring, "_undone", lambda *_: None)
    update = restoring_update([Row(row, 1) for row in rows], place)
    assert update is not None
    assert canonical(replay([*rows, update])) == want


@pytest.mark.parametrize("batch", range(3))
def test_the_difference_alone_restores_random_histories(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "_undone", lambda *_: None)
    outcomes: Counter[str] = Counter()
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rows = random_history(seed, edits=40)
        try:
            restoring_update(rows, len(rows) // 2)
        except RestoreFailed:
            outcomes["failed"] += 1
    # The lab saw 1 in 1,000: formats that pycrdt does not clear.
    assert outcomes["failed"] <= 1


def test_a_restore_that_does_not_verify_is_refused() -> None:
    rows = [row.update for row in random_history(3)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RestoreFailed):
        patch.setattr(restoring, "_undone", lambda *_: None)
        patch.setattr(restoring, "make_equal", lambda *_: None)
        restoring_update([Row(row, 1) for row in rows], 5)


_SEQUENCES = st.lists(st.sampled_from(["", "a", "aaa", "b", "😀"]), max_size=12)


@given(_SEQUENCES, _SEQUENCES)
def test_changes_turn_one_sequence_into_the_other(have: list[str], want: list[str]) -> None:
    result: list[str] = []
    last = 0
    for change in changes(have, want):
        result += have[last : change.have_start] + want[change.want_start : change.want_stop]
        last = change.have_stop
    assert result + have[last:] == want
