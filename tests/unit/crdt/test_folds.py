"""Folding the log gives one document, whichever way it is folded."""

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Text

from history.crdt.content import canonical
from history.crdt.folding import fold
from history.crdt.idsets import IdSet, delete_set_of
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import Id, Kind, Struct, decode_update, missing_dependency
from tests.histories import Row, random_history, replay, updates_of

SEEDS = st.integers(0, 2**32 - 1)
BYTES = 1 << 20
"""More than any history here has."""


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


def units_of(doc: Doc[Any]) -> dict[Id, tuple[object, ...]]:
    """Each unit of a document by its id: kind, content, origins and parent, however units are grouped in structs."""
    units: dict[Id, tuple[object, ...]] = {}
    for struct in decode_update(doc.get_update()).structs:
        for place, content in enumerate(unit_contents(struct)):
            # Within a struct each unit has the one before it as its origin, and its parent from there.
            is_first = place == 0
            origin = struct.origin if is_first else (struct.client, struct.clock + place - 1)
            parent = (struct.parent, struct.parent_key) if is_first else (None, None)
            units[struct.client, struct.clock + place] = struct.kind, content, origin, struct.right_origin, *parent
    return units


def unit_contents(struct: Struct) -> list[object]:
    match struct.kind, struct.content:
        case Kind.STRING, str(text):
            code_units = text.encode("utf-16-le", "surrogatepass")
            return [code_units[at : at + 2] for at in range(0, len(code_units), 2)]
        case Kind.ANY, list(values):
            return list(map(repr, values))
        case _, content:
            return [content] * struct.length


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 40))
@example(seed=5338, rows_per_transaction=7)  # its structs are grouped otherwise: 1,048 bytes against 1,052
def test_folds_that_keep_deleted_content_are_equal_unit_for_unit(seed: int, rows_per_transaction: int) -> None:
    updates = [row.update for row in random_history(seed, edits=40)]
    folded: Doc[Any] = Doc(skip_gc=True)
    count = fold(folded, updates, rows_per_transaction=rows_per_transaction, bytes_per_transaction=BYTES)
    assert count == len(updates)
    straight = replay(updates, skip_gc=True)
    assert place_of(folded) == place_of(straight)
    assert units_of(folded) == units_of(straight)


def test_deleted_text_stays_in_a_fold_that_keeps_it() -> None:
    typed: Doc[Any] = Doc(client_id=1, skip_gc=True)
    text = typed.get("text", type=Text)
    text += "gone 😀"
    del text[0:5]
    folded: Doc[Any] = Doc(skip_gc=True)
    fold(folded, [typed.get_update()], rows_per_transaction=7, bytes_per_transaction=BYTES)
    halves = [content for _, content, *_ in units_of(folded).values()]
    assert b"".join(each for each in halves if isinstance(each, bytes)).decode("utf-16-le") == "gone 😀"


@pytest.mark.parametrize(("rows", "rows_per_transaction", "transactions"), [(2500, 1000, 3), (2500, 500, 5), (1, 9, 1)])
def test_so_many_rows_are_folded_in_one_transaction(rows: int, rows_per_transaction: int, transactions: int) -> None:
    typed: Doc[Any] = Doc(client_id=1)
    text = typed.get("text", type=Text)
    updates = [update for _ in range(rows) for update in updates_of(typed, lambda: text.insert(0, "a"))]
    folded: Doc[Any] = Doc()
    emitted = updates_of(
        folded, lambda: fold(folded, updates, rows_per_transaction=rows_per_transaction, bytes_per_transaction=BYTES)
    )
    assert len(emitted) == transactions


@pytest.mark.parametrize(("sizes", "transactions"), [([400] * 10, 5), ([400, 5000, 400], 3), ([10] * 10, 1)])
def test_so_many_bytes_are_folded_in_one_transaction_and_a_larger_row_alone(
    sizes: list[int], transactions: int
) -> None:
    typed: Doc[Any] = Doc(client_id=1)
    text = typed.get("text", type=Text)
    updates = [update for size in sizes for update in updates_of(typed, partial(text.insert, 0, "a" * size))]
    folded: Doc[Any] = Doc()
    emitted = updates_of(folded, lambda: fold(folded, updates, rows_per_transaction=1000, bytes_per_transaction=1000))
    assert len(emitted) == transactions
    assert place_of(folded) == place_of(typed)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40))
def test_collected_folds_are_equal_in_content_state_vector_and_delete_set(seed: int, rows_per_transaction: int) -> None:
    updates = [row.update for row in random_history(seed, edits=40)]
    folded: Doc[Any] = Doc()
    fold(folded, updates, rows_per_transaction=rows_per_transaction, bytes_per_transaction=BYTES)
    assert place_of(folded) == place_of(replay(updates)) == place_of(replay(updates, skip_gc=True))


@pytest.mark.parametrize("seed", range(5))
def test_histories_are_causal_and_repeat_their_edits(seed: int) -> None:
    rows = random_history(seed)
    assert canonical(replay(rows)) == canonical(replay(random_history(seed)))
    doc: Doc[Any] = Doc()
    for row in rows:
        assert missing_dependency(decode_update(row.update), decode_state_vector(doc.get_state())) is None
        doc.apply_update(row.update)
