"""What a restore or an undo makes of a document holds in Yjs too, told row by row and loaded whole, and live."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from history.crdt.content import canonical_json, trees_of
from history.crdt.guard import Guard
from history.crdt.restoring import restored
from history.crdt.undoing import Row, undone
from history.crdt.updates import decode_update
from history.models import Kind
from tests.clients.driver import NodeClients
from tests.clients.people import a_cast
from tests.clients.stack import Stack, a_room, assert_log_holds, until
from tests.fuzz.yjs import Yjs, comparable
from tests.histories import random_history, replay
from tests.taking_back import CLIENT, HISTORIES, Case, cases

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


class Restore(NamedTuple):
    """A document restored as a whole to a moment; `rows` are its log before that, `place` how many the moment had."""

    seed: int
    rows: Sequence[bytes]
    place: int


def assert_yjs_reads_the_moments_again(yjs: Yjs, batch: Sequence[Restore]) -> None:
    """Told row by row and loaded whole, Yjs reads after each restore what it reads at the moment itself."""
    episodes: list[dict[str, Any]] = []
    said: list[Any] = []
    for restore in batch:
        at = replay(restore.rows[: restore.place])
        head_state = replay(restore.rows, skip_gc=True).get_update()
        taken = restored(state_at=at.get_update(), head_state=head_state, client_id=CLIENT)
        kinds = {name: kind.value for name, kind in taken.kinds.items()}
        after = [*restore.rows, *([taken.update] if taken.update else [])]
        for log in (restore.rows[: restore.place], after):
            snapshot = replay(log).get_update().hex()
            episodes.append({"rows": [row.hex() for row in log], "snapshot": snapshot, "kinds": kinds})
        said.append(trees_of(at, taken.kinds))
    read = yjs.judge(episodes)
    for restore, want, moment, again in zip(batch, said, read[::2], read[1::2], strict=True):
        for which, each in (("moment", moment), ("restored", again)):
            assert "error" not in each, f"history {restore.seed}, {which}: {each['error']}"
            for way in ("live", "loaded"):
                have = canonical_json(comparable(each[way]["trees"]))
                assert have == canonical_json(comparable(want)), f"history {restore.seed}, {which}, {way}"


def test_yjs_reads_a_moment_again_to_which_a_random_history_was_restored() -> None:
    with Yjs() as yjs:
        for start in range(0, HISTORIES, BATCH):
            batch = []
            for seed in range(start, start + BATCH):
                rows = [row.update for row in random_history(seed, edits=60)]
                batch.append(Restore(seed, rows, random.Random(seed).randrange(len(rows) + 1)))
            assert_yjs_reads_the_moments_again(yjs, batch)


def test_yjs_reads_a_moment_again_to_which_what_it_wrote_itself_was_restored() -> None:
    with Yjs() as yjs:
        recorded = [each.rows for each in yjs.record(seed=5, histories=HISTORIES // 2, edits=40) if not each.splits]
        batch = [
            Restore(seed, rows, random.Random(seed).randrange(len(rows) + 1))
            for seed, rows in enumerate(recorded)
            if not cuts_emoji(rows)
        ]
        assert_yjs_reads_the_moments_again(yjs, batch)


def test_yjs_reads_what_was_taken_back_from_random_histories() -> None:
    with Yjs() as yjs:
        for start in range(0, HISTORIES, BATCH):
            batch = [case for seed in range(start, start + BATCH) for case in cases(seed)]
            assert_yjs_reads_the_same(yjs, batch)


def test_yjs_reads_what_was_taken_back_from_what_it_wrote_itself() -> None:
    """Which rows are undone is drawn at random: rows of one client, and of nobody where they only delete."""
    with Yjs() as yjs:
        recorded = [each.rows for each in yjs.record(seed=4, histories=HISTORIES // 2, edits=40) if not each.splits]
        batch = [_undone_by_chance(number, rows) for number, rows in enumerate(recorded) if not cuts_emoji(rows)]
        assert sum(case.taken.update is not None for case in batch) > len(batch) // 2
        assert_yjs_reads_the_same(yjs, batch)


def cuts_emoji(rows: list[bytes]) -> bool:
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
        head_state=replay(updates, skip_gc=True).get_update(),
        rows=rows[first - 1 :],
        sessions=frozenset({rng.choice(rows[first - 1 :]).session_id, 0}),
        first_seq=first,
        last_seq=len(updates),
        acts=list,
        client_id=CLIENT,
        rows_max=10_000,
    )
    return Case(f"undo of recorded history {seed}", updates, taken, dict(taken.kinds))


async def test_both_keep_what_they_type_while_an_undo_lands(members_stack: Stack, node: NodeClients) -> None:
    cast = await members_stack.database.run(a_cast, a_room("being undone"))
    olga = await members_stack.join(node, "olga undoes", cast.room, on=0, headers=cast.cookies["olga"])
    ed = await members_stack.join(node, "ed is undone", cast.room, on=1, headers=cast.cookies["ed"])
    await olga.type("HELLO ")
    await ed.watch("HELLO ")
    await ed.type("BAD WORDS ")
    await olga.watch("BAD WORDS ")
    written = datetime.now(UTC).isoformat()
    head = members_stack.database.head_seq(cast.room)

    typing = [
        asyncio.ensure_future(client.type(letter * 2_000, interval_ms=2)) for client, letter in ((olga, "o"), (ed, "e"))
    ]
    await until("both are typing", lambda: members_stack.database.head_seq(cast.room) > head + 20)
    who = ("undo_account", f"ed of {cast.room}", "--since", "2020-01-01T00:00:00Z", "--until", written)
    said = await asyncio.to_thread(members_stack.manage, *who, "--carry-out")
    seq = members_stack.database.head_seq(cast.room)
    await until("both have typed on", lambda: members_stack.database.head_seq(cast.room) > seq + 20)
    await olga.stop()
    await ed.stop()
    typed = Counter(o=await typing[0], e=await typing[1])

    assert "undone in 1 documents" in said
    await assert_log_holds(members_stack, node, cast.room, olga, ed)
    text = (await olga.content()).text()
    assert "BAD" not in text
    assert Counter(text) == Counter("HELLO ") + typed
    assert Kind.UNDO in {row.kind for row in members_stack.database.rows(cast.room)}
