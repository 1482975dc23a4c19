"""Folding the log gives one document, whichever way it is folded."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc

from history.crdt.content import canonical
from history.crdt.folding import fold
from history.crdt.idsets import IdSet, delete_set_of
from history.crdt.updates import decode_state_vector, decode_update, missing_dependency
from tests.histories import Row, random_history, replay

SEEDS = st.integers(0, 2**32 - 1)


def place_of(doc: Doc[Any]) -> tuple[str, dict[int, int], IdSet]:
    """What must be the same at a seq: content, state vector, delete set."""
    return canonical(doc), decode_state_vector(doc.get_state()), delete_set_of(doc)


def interleaved(rows: list[Row], rng: random.Random, *, window: int) -> list[Row]:
    """Put rows in another order that keeps each client's own; none overtakes more than `window` rows."""
    queues: dict[int, list[tuple[int, Row]]] = {}
    for place, row in enumerate(rows):
        queues.setdefault(row.user, []).append((place, row))
    order: list[Row] = []
    while any(queues.values()):
        oldest = min(queue[0][0] for queue in queues.values() if queue)
        near = [queue for queue in queues.values() if queue and queue[0][0] <= oldest + window]
        order.append(rng.choice(near).pop(0)[1])
    return order


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 40))
def test_any_order_that_keeps_each_clients_order_converges(seed: int, window: int) -> None:
    rows = random_history(seed, edits=40, concurrency=0.6)
    straight = place_of(replay(rows))
    assert place_of(replay(interleaved(rows, random.Random(seed), window=window))) == straight


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_rows_delivered_twice_change_nothing(seed: int) -> None:
    rows = random_history(seed, edits=30)
    again = random.Random(seed).sample(rows, len(rows))
    assert place_of(replay([*rows, *again])) == place_of(replay(rows))


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.data())
def test_snapshot_and_tail_equal_full_replay_at_every_seq(seed: int, data: st.DataObject) -> None:
    rows = random_history(seed, edits=30)
    snapshot_at = data.draw(st.integers(0, len(rows)))
    snapshot = replay(rows[:snapshot_at]).get_update()
    folded, full = replay([snapshot]), replay(rows[:snapshot_at])
    assert place_of(folded) == place_of(full)
    for row in rows[snapshot_at:]:
        folded.apply_update(row.update)
        full.apply_update(row.update)
        assert place_of(folded) == place_of(full)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40))
def test_folds_that_keep_deleted_content_are_equal_byte_for_byte(seed: int, rows_per_transaction: int) -> None:
    updates = [row.update for row in random_history(seed, edits=40)]
    folded: Doc[Any] = Doc(skip_gc=True)
    assert fold(folded, updates, rows_per_transaction=rows_per_transaction) == len(updates)
    assert folded.get_update() == replay(updates, skip_gc=True).get_update()


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40))
def test_collected_folds_are_equal_in_content_state_vector_and_delete_set(seed: int, rows_per_transaction: int) -> None:
    updates = [row.update for row in random_history(seed, edits=40)]
    folded: Doc[Any] = Doc()
    fold(folded, updates, rows_per_transaction=rows_per_transaction)
    assert place_of(folded) == place_of(replay(updates)) == place_of(replay(updates, skip_gc=True))


@pytest.mark.parametrize("seed", range(5))
def test_histories_are_causal_and_repeat_their_edits(seed: int) -> None:
    rows = random_history(seed)
    assert canonical(replay(rows)) == canonical(replay(random_history(seed)))
    doc: Doc[Any] = Doc()
    for row in rows:
        assert missing_dependency(decode_update(row.update), decode_state_vector(doc.get_state())) is None
        doc.apply_update(row.update)
