"""Histories that real Yjs clients (13.6) wrote, with the content that Yjs read at their end.

Three clients, collecting and not, made random edits of every kind of root, some of them offline for a while;
`rows` are their updates in hex in the order of arrival, `trees` are in the form of `history.crdt.content.Tree`."""

import json
from pathlib import Path
from typing import Any

import pytest

from history.crdt.content import canonical, canonical_json
from history.crdt.guard import Guard
from history.crdt.restoring import restored
from tests.histories import replay

HISTORIES: list[Any] = json.loads(Path(__file__).with_name("yjs_histories.json").read_text())


@pytest.fixture(params=HISTORIES, ids=range(len(HISTORIES)))
def rows(request: pytest.FixtureRequest) -> list[bytes]:
    return [bytes.fromhex(row) for row in request.param["rows"]]


@pytest.mark.parametrize("history", HISTORIES, ids=range(len(HISTORIES)))
def test_yjs_and_the_server_read_the_same_content(history: Any) -> None:
    assert canonical(replay(map(bytes.fromhex, history["rows"]))) == canonical_json(history["trees"])


def test_no_row_is_refused_not_even_after_a_rebuild_at_any_place(rows: list[bytes]) -> None:
    guard = Guard()
    for place, row in enumerate(rows):
        if place % 7 == 0:
            rebuilt = Guard.of(replay(rows[:place]).get_update())
            for later in rows[place : place + 7]:
                rebuilt.commit(rebuilt.check(later))
        guard.commit(guard.check(row))


def test_any_moment_is_restored(rows: list[bytes]) -> None:
    head = replay(rows, skip_gc=True).get_update()
    for place in range(0, len(rows), 5):
        at = replay(rows[:place])
        update = restored(state_at=at.get_update(), head_state=head, client_id=999).update
        assert canonical(replay([head, *([update] if update else [])])) == canonical(at)
