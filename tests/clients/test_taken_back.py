"""What a restore or an undo makes of a document holds in Yjs too, told row by row and loaded whole."""

import random
from collections.abc import Sequence
from typing import Any

from history.crdt.content import canonical_json, trees_of
from history.crdt.guard import Guard
from history.crdt.undoing import Row, undone
from history.crdt.updates import decode_update
from tests.fuzz.yjs import Yjs, comparable
from tests.histories import replay
from tests.taking_back import HISTORIES, Case, cases

BATCH = 50


def assert_yjs_reads_the_same(yjs: Yjs, batch: Sequence[Case]) -> None:
    episodes: list[dict[str, Any]] = []
    said: list[Any] = []
    for case in batch:
        doc = replay(case.all_rows)
        said.append(trees_of(doc, case.kinds))
        episodes.append(
            {
                "rows": [row.hex() for row in case.all_rows],
                "snapshot": doc.get_update().hex(),
                "kinds": {name: kind.value for name, kind in case.kinds.items()},
            }
        )
    for case, want, read in zip(batch, said, yjs.judge(episodes), strict=True):
        assert "error" not in read, f"{case.name}: {read['error']}"
        for way in ("live", "loaded"):
            have = canonical_json(comparable(read[way]["trees"]))
            assert have == canonical_json(comparable(want)), f"{case.name}, {way}"


def test_yjs_reads_what_was_taken_back_from_random_histories() -> None:
    with Yjs() as yjs:
        for start in range(0, HISTORIES, BATCH):
            batch = [case for seed in range(start, start + BATCH) for case in cases(seed)]
            assert_yjs_reads_the_same(yjs, batch)


def test_yjs_reads_what_was_taken_back_from_what_it_wrote_itself() -> None:
    """Which rows are undone is drawn at random: rows of one client, and of nobody where they only delete."""
    with Yjs() as yjs:
        recorded = [each.rows for each in yjs.record(seed=4, histories=HISTORIES // 2, edits=40) if not each.splits]
        batch = [_undone_by_chance(number, rows) for number, rows in enumerate(recorded) if not _cuts_emoji(rows)]
        assert sum(case.taken.update is not None for case in batch) > len(batch) // 2
        assert_yjs_reads_the_same(yjs, batch)


def _cuts_emoji(rows: list[bytes]) -> bool:
    """The log has rows of its own for that, and these here have not."""
    guard = Guard()
    for row in rows:
        verdict = guard.check(row)
        if verdict.splits or verdict.own_splits:
            return True
        guard.commit(verdict)
    return False


def _undone_by_chance(seed: int, updates: list[bytes]) -> Case:
    rng = random.Random(seed)
    first = rng.randrange(1, len(updates) // 2)
    rows: list[Row] = []
    for seq, update in enumerate(updates, 1):
        structs = decode_update(update).structs
        rows.append(Row(seq, structs[0].client if structs else rng.randrange(3), update))
    taken, _ = undone(
        state_before=replay(updates[: first - 1], skip_gc=True).get_update(),
        rows=rows[first - 1 :],
        sessions=frozenset({rng.choice(rows[first - 1 :]).session_id, 0}),
        first_seq=first,
        last_seq=len(updates),
        acts=list,
        client_id=999,
        rows_max=10_000,
    )
    return Case(f"undo of recorded history {seed}", updates, taken, dict(taken.kinds))
