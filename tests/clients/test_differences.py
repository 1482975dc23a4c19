"""What changed between two moments is so in Yjs too: put on its document of before as edits, the difference makes the
content of after; taken off again by what it says of before, it gives that back."""

import os
import random
from collections.abc import Iterable, Sequence
from typing import Any

from history.crdt.changes import changes_by
from history.crdt.content import canonical_json
from history.crdt.roots import root_kinds
from tests.clients.test_taken_back import cuts_emoji
from tests.fuzz.yjs import Yjs, comparable
from tests.histories import random_history, replay

HISTORIES = int(os.environ.get("CHANGES_HISTORIES", "120"))
"""`CHANGES_HISTORIES=5000 make test ARGS="tests/clients/test_differences.py -o timeout=0"` compares so many."""

BATCH = 60


def a_difference(seed: int, rows: Sequence[bytes]) -> dict[str, Any]:
    """Between two random moments of a history."""
    first, last = sorted(random.Random(seed).sample(range(len(rows) + 1), 2))
    before, after = replay(rows[:first]), replay(rows[:last])
    update = after.get_update(before.get_state())
    kinds = root_kinds(before.get_update(), update)
    return {
        "before": [row.hex() for row in rows[:first]],
        "after": [row.hex() for row in rows[:last]],
        "kinds": {name: kind.value for name, kind in kinds.items()},
        "changes": changes_by(before, update, kinds=kinds),
    }


def assert_so_in_yjs(yjs: Yjs, histories: Iterable[tuple[int, Sequence[bytes]]]) -> None:
    named = [(seed, a_difference(seed, rows)) for seed, rows in histories]
    assert sum(bool(difference["changes"]) for _, difference in named) > len(named) * 0.9
    for (seed, _), said in zip(named, yjs.change([difference for _, difference in named]), strict=True):
        assert "error" not in said, f"history {seed}: {said['error']}"
        tree = {which: canonical_json(comparable(each)) for which, each in said.items()}
        assert tree["put_on"] == tree["after"], f"history {seed}, put on"
        assert tree["taken_off"] == tree["before"], f"history {seed}, taken off"


def test_differences_of_random_histories_are_so_in_yjs() -> None:
    with Yjs() as yjs:
        for start in range(0, HISTORIES, BATCH):
            seeds = range(start, min(start + BATCH, HISTORIES))
            assert_so_in_yjs(yjs, ((seed, [row.update for row in random_history(seed, edits=60)]) for seed in seeds))


def test_differences_of_what_yjs_wrote_itself_are_so_in_yjs() -> None:
    with Yjs() as yjs:
        recorded = [each.rows for each in yjs.record(seed=11, histories=HISTORIES, edits=40) if not each.splits]
        assert_so_in_yjs(yjs, ((seed, rows) for seed, rows in enumerate(recorded) if not cuts_emoji(rows)))
