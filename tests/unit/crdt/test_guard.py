"""The guard takes every honest update, refuses what yrs cannot bear, and changes nothing by judging."""

import gc
import random
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import guard as guard_module
from history.crdt import updates
from history.crdt.guard import TYPE_DEPTH_MAX, Guard, Holds, Limits, MissingDependency, RefusedUpdate
from history.crdt.lib0 import Malformed, var_string, var_uint
from history.crdt.order import Astray
from history.crdt.state_vectors import decode_state_vector
from history.crdt.straightening import straightened
from history.crdt.updates import UpdateTooLarge, decode_update
from tests.histories import random_history, replay, updates_of
from tests.unit.crdt.test_updates import one_struct


def guard_of(*updates: bytes) -> Guard:
    guard = Guard()
    for update in updates:
        guard.commit(guard.check(update))
    return guard


def known_to(guard: Guard) -> dict[int, int]:
    """The state vector of what was committed."""
    return guard._facts.known


@pytest.mark.parametrize("batch", range(10))
def test_no_row_of_a_random_history_is_refused(batch: int) -> None:
    for seed in range(batch * 20, batch * 20 + 20):
        rows = random_history(seed, concurrency=(0.3, 0.8)[seed % 2], skip_gc=seed % 3 == 0)
        guard = guard_of(*(row.update for row in rows))
        assert known_to(guard) == decode_state_vector(replay(rows).get_state())


@pytest.mark.parametrize("skip_gc", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_a_guard_rebuilt_from_a_snapshot_refuses_no_later_row(seed: int, skip_gc: bool) -> None:
    rows = random_history(seed, edits=60)
    middle = len(rows) // 2
    guard = Guard.of(replay(rows[:middle], skip_gc=skip_gc).get_update())
    for row in rows[middle:]:
        guard.commit(guard.check(row.update))


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_document_sent_at_once_is_taken(seed: int) -> None:
    doc = replay(random_history(seed))
    assert known_to(guard_of(doc.get_update())) == decode_state_vector(doc.get_state())


@pytest.mark.parametrize("seed", range(5))
def test_an_update_sent_twice_is_taken(seed: int) -> None:
    updates = [row.update for row in random_history(seed)]
    guard_of(*(update for update in updates for _ in range(2)), *updates)


def test_a_guard_that_is_let_go_leaves_nothing_to_be_collected() -> None:
    updates = [row.update for row in random_history(1)]
    gc.collect()
    gc.disable()
    try:
        guard_of(*updates)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_judging_changes_nothing() -> None:
    rows = random_history(4)
    guard = Guard()
    for row in rows:
        twin = deepcopy(guard)
        guard.check(row.update)
        verdict = guard.check(row.update)
        assert known_to(guard) == known_to(twin) and guard.roots() == twin.roots()
        with pytest.raises(Malformed):
            guard.check(row.update[:-1])
        guard.commit(verdict)


def test_the_branches_of_an_update_that_is_not_committed_are_gone_with_the_next() -> None:
    text, other, later = (
        one_struct(var_string("abc"), kind=4),
        b"\x01\x01\x02\x00\xc4\x01\x00\x01\x01\x01x\x00",
        b"\x01\x01\x03\x00\xc4\x01\x01\x01\x02\x01y\x00",
    )
    guard = guard_of(text)
    stale = guard.check(other)
    guard.commit(guard.check(later))
    assert list(guard._facts.branches.rows.starts) == list(guard_of(text, later)._facts.branches.rows.starts)
    with pytest.raises(AssertionError, match="last update"):
        guard.commit(stale)


def test_truncation_at_every_byte_is_malformed() -> None:
    rows = random_history(6)
    guard = Guard()
    for row in rows:
        for stop in range(len(row.update)):
            with pytest.raises(Malformed):
                guard.check(row.update[:stop])
        guard.commit(guard.check(row.update))


def test_text_in_an_array_is_refused_because_reading_it_never_ends() -> None:
    array = one_struct(b"\x01\x7d\x01", kind=8)
    with pytest.raises(RefusedUpdate, match="string content"):
        guard_of(array).check(bytes.fromhex("0101020044010006e697a5e69cac00"))


def test_a_value_among_xml_nodes_is_refused_because_reading_them_panics() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    fragment = doc.get("r", type=XmlFragment)
    fragment.children.append(XmlElement("p"))
    guard = guard_of(doc.get_update())
    with pytest.raises(RefusedUpdate, match="any content"):
        guard.check(b"\x01\x01\x02\x00\x88\x01\x00\x01\x7e\x00")
    with pytest.raises(RefusedUpdate, match="type content"):
        guard.check(b"\x01\x01\x02\x00\x87\x01\x00\x01\x00")


def test_content_without_a_key_in_a_nested_map_is_refused() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("r", type=Array).append(Map())
    with pytest.raises(RefusedUpdate, match="keys only"):
        guard_of(doc.get_update()).check(b"\x01\x01\x02\x00\x08\x00\x01\x00\x01\x7e\x00")


def test_a_parent_that_is_no_type_is_refused() -> None:
    with pytest.raises(RefusedUpdate, match="not a shared type"):
        guard_of(one_struct(var_string("a"), kind=4)).check(b"\x01\x01\x02\x00\x04\x00\x01\x00\x01b\x00")


def test_a_parent_that_was_deleted_and_collected_is_taken() -> None:
    server: Doc[Any] = Doc(client_id=1)
    array = server.get("r", type=Array)
    array.append(Array([1]))
    peer: Doc[Any] = Doc(client_id=2)
    peer.apply_update(server.get_update())
    del array[0]
    [late] = updates_of(peer, lambda: peer.get("r", type=Array)[0].append(2))
    [fresh] = updates_of(peer, lambda: peer.get("r", type=Array)[0].insert(0, Text("x")))
    guard = Guard.of(server.get_update())
    for update in (late, fresh):
        guard.commit(guard.check(update))
        server.apply_update(update)
    assert array.to_py() == []


def test_neighbours_in_different_roots_are_refused() -> None:
    texts = b"\x01\x02\x01\x00\x04\x01\x01a\x01a\x04\x01\x01b\x01b\x00"
    with pytest.raises(RefusedUpdate, match="neighbours"):
        guard_of(texts).check(b"\x01\x01\x02\x00\xc4\x01\x00\x01\x01\x01x\x00")


def nested_types(depth: int) -> bytes:
    """An update of client 1 with that many arrays inside each other."""
    inner = b"".join(b"\x07\x00\x01" + var_uint(clock) + b"\x00" for clock in range(depth - 1))
    return b"\x01" + var_uint(depth) + b"\x01\x00" + b"\x07\x01\x01r\x00" + inner + b"\x00"


def test_types_nested_too_deep_are_refused() -> None:
    guard_of(nested_types(TYPE_DEPTH_MAX))
    for depth in (TYPE_DEPTH_MAX + 1, 40_000):
        with pytest.raises(RefusedUpdate, match="nested"):
            Guard().check(nested_types(depth))


def test_depth_is_counted_over_updates_and_snapshots() -> None:
    deepest = nested_types(TYPE_DEPTH_MAX)
    one_more = b"\x01\x01\x02\x00\x07\x00\x01" + var_uint(TYPE_DEPTH_MAX - 1) + b"\x00\x00"
    for guard in (guard_of(deepest), Guard.of(deepest)):
        with pytest.raises(RefusedUpdate, match="nested"):
            guard.check(one_more)


def test_too_many_roots_are_refused() -> None:
    def roots(count: int) -> bytes:
        structs = b"".join(b"\x08\x01" + var_string(str(number)) + b"\x01\x7e" for number in range(count))
        return b"\x01" + var_uint(count) + b"\x01\x00" + structs + b"\x00"

    guard = Guard(Limits(roots=3))
    with pytest.raises(RefusedUpdate, match="roots"):
        guard.check(roots(4))
    guard.commit(guard.check(roots(3)))
    with pytest.raises(RefusedUpdate, match="roots"):
        guard.check(b"\x01\x01\x02\x00\x08\x01\x04more\x01\x7e\x00")


def test_one_update_brings_no_more_parts_than_a_process_can_spare_the_time_for() -> None:
    values = b"\x01\x01\x01\x00\x08\x01\x01r\x05" + b"\x7e" * 5 + b"\x00"
    nested = b"\x01\x01\x01\x00\x08\x01\x01r\x01\x75\x05" + b"\x7e" * 5 + b"\x00"
    deletes = b"\x00\x01\x01\x05" + b"".join(bytes((2 * place, 1)) for place in range(5))
    for update in (values, nested, deletes):
        with pytest.raises(UpdateTooLarge):
            Guard(Limits(update_parts=4)).check(update)
    assert Guard.of(values, limits=Limits(update_parts=4)).roots()  # the server's own state is taken as it is
    Guard(Limits(update_parts=8)).check(values)


def test_a_missing_update_is_named_and_taken_once_it_is_there() -> None:
    doc: Doc[Text] = Doc(client_id=5)
    text = doc.get("text", type=Text)
    updates = [updates_of(doc, partial(text.insert, place, "abc"[place]))[0] for place in range(3)]
    guard = guard_of(updates[0])
    with pytest.raises(MissingDependency) as missing:
        guard.check(updates[2])
    assert (missing.value.client, missing.value.clock) == (5, 1)
    guard.commit(guard.check(updates[1]))
    guard.commit(guard.check(updates[2]))


def test_deleting_what_is_unknown_is_a_missing_dependency() -> None:
    with pytest.raises(MissingDependency):
        guard_of(one_struct(var_string("ab"), kind=4)).check(b"\x00\x01\x01\x01\x01\x02")


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(b"\x01\x01\x02\x00\x84\x01\x01\x01x\x00", id="an insert"),
        pytest.param(b"\x00\x01\x01\x01\x02\x01", id="a delete"),
        pytest.param(b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00", id="an insert before the second half"),
    ],
)
def test_an_update_that_splits_an_emoji_says_where(update: bytes) -> None:
    guard = guard_of(one_struct(var_string("a😀b"), kind=4))
    assert guard.check(update).splits == {(1, 2)}
    assert guard.check(b"\x01\x01\x02\x00\x84\x01\x02\x01x\x00").splits == frozenset()
    assert Guard.of(one_struct(var_string("a😀b"), kind=4)).check(update).splits == {(1, 2)}


def test_a_struct_known_in_part_splits_where_the_known_part_ends() -> None:
    guard = guard_of(one_struct(var_string("ab"), kind=4))
    assert guard.check(b"\x01\x01\x01\x01\x84\x01\x00\x04\xf0\x9f\x98\x80\x00").own_splits == {(1, 2)}


def test_halves_that_are_told_of_again_split_nothing() -> None:
    guard = guard_of(one_struct(var_string("😀"), kind=4))
    halves = b"\x01\x02\x01\x00\x04\x01\x01a\x03\xef\xbf\xbd\x84\x01\x00\x03\xef\xbf\xbd\x00"
    assert guard.check(halves).splits == frozenset()


def test_what_is_split_once_is_not_split_again() -> None:
    guard = guard_of(one_struct(var_string("a😀b"), kind=4))
    between = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"
    guard.commit(guard.check(between))
    assert guard.check(b"\x00\x01\x01\x01\x02\x01").splits == frozenset()


def test_a_struct_that_goes_on_elsewhere_than_its_known_part_is_refused() -> None:
    guard = guard_of(b"\x01\x02\x01\x00\x04\x01\x01a\x01a\x04\x01\x01b\x01b\x00")
    with pytest.raises(RefusedUpdate, match="goes on"):
        guard.check(b"\x01\x01\x01\x01\x84\x01\x00\x02xy\x00")


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(b"\x01\x01\x01\x00\x00\x02\x00", id="was collected"),
        pytest.param(b"\x02\x01\x02\x00\x00\x01\x01\x01\x00\x84\x02\x00\x02xy\x00", id="was behind it"),
    ],
)
def test_a_struct_that_goes_on_where_its_known_part_is_gone_is_refused_because_a_reload_drops_it(known: bytes) -> None:
    for guard in (guard_of(known), Guard.of(known)):
        with pytest.raises(RefusedUpdate, match="goes on"):
            guard.check(one_struct(var_string("xyz"), kind=4))
        guard.check(b"\x01\x01\x01\x00\x00\x03\x00")


def test_a_rebuild_judges_nothing_or_nobody_could_write_to_the_document_again() -> None:
    texts = b"\x01\x02\x01\x00\x04\x01\x01a\x01a\x04\x01\x01b\x01b\x00"
    assert known_to(Guard.of(texts, b"\x01\x01\x02\x00\xc4\x01\x00\x01\x01\x01x\x00")) == {1: 2, 2: 1}


def test_a_root_keeps_what_it_holds_through_the_rebuild() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("x", type=XmlFragment).children.append(XmlText("hello"))
    doc.get("m", type=Map)["key"] = 1
    assert guard_of(doc.get_update()).roots() == Guard.of(doc.get_update()).roots()


def test_a_text_of_which_only_an_embedded_type_is_left_takes_text_after_a_rebuild() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    text = doc.get("r", type=Text)
    text.insert(0, "words")
    text.insert_embed(5, Map({"e": 1}))
    del text[0:5]
    guard = Guard.of(doc.get_update())
    [update] = updates_of(doc, lambda: text.insert(1, "more"))
    guard.commit(guard.check(update))
    assert guard.roots() == {"r": Holds.TEXT}


def test_an_array_of_types_takes_no_text() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("r", type=Array).append(Map())
    for guard in (guard_of(doc.get_update()), Guard.of(doc.get_update())):
        with pytest.raises(RefusedUpdate, match="string content"):
            guard.check(b"\x01\x01\x02\x00\x84\x01\x00\x01x\x00")


def test_an_array_of_types_stays_one_after_a_rebuild_that_meets_its_xml_first() -> None:
    array, xml = b"\x01\x07\x00\x07\x01\x01r\x00", b"\x01\x08\x00\x07\x01\x01r\x03\x01p"
    live = guard_of(b"\x01" + array + b"\x00", b"\x01" + xml + b"\x00")
    assert live.roots() == {"r": Holds.VALUES}
    assert Guard.of(b"\x02" + xml + array + b"\x00").roots() == live.roots()


def test_a_document_has_no_more_clients_than_its_state_vector_may_name() -> None:
    shared: Doc[Any] = Doc(client_id=1)
    shared.get("text", type=Text).insert(0, "x")
    guard = Guard.of(shared.get_update(), limits=Limits(clients=3))
    for client_id in (2, 3):
        update = typed_by(client_id, shared)
        guard.commit(guard.check(update))
        shared.apply_update(update)
    with pytest.raises(RefusedUpdate, match="more than 3 client ids"):
        guard.check(typed_by(4, shared))
    guard.check(typed_by(3, shared))


def typed_by(client_id: int, shared: Doc[Any]) -> bytes:
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.apply_update(shared.get_update())
    before = doc.get_state()
    text = doc.get("text", type=Text)
    text.insert(len(str(text)), "y")
    return doc.get_update(before)


@pytest.mark.parametrize(("info", "content"), [(b"\x24", b"\x01a"), (b"\x25", b"\x011"), (b"\x26", b"\x01b\x011")])
def test_what_is_no_value_under_a_key_is_refused_because_yrs_and_yjs_read_different_ones(
    info: bytes, content: bytes
) -> None:
    with pytest.raises(RefusedUpdate, match="under a key"):
        Guard().check(b"\x01\x01\x01\x00" + info + b"\x01\x01m\x01k" + content + b"\x00")


def test_a_value_before_another_one_of_its_key_is_refused() -> None:
    guard = guard_of(b"\x01\x01\x01\x00\x28\x01\x01m\x01k\x01\x7e\x00")
    guard.check(b"\x01\x01\x02\x00\xa8\x01\x00\x01\x7e\x00")
    with pytest.raises(RefusedUpdate, match="before another one of its key"):
        guard.check(b"\x01\x01\x02\x00\x68\x01\x00\x01\x7e\x00")


def test_an_insert_between_what_was_collected_and_what_is_there_is_refused_because_yjs_drops_it() -> None:
    guard = guard_of(b"\x01\x02\x01\x00\x00\x01\x04\x01\x01t\x01a\x00")
    with pytest.raises(RefusedUpdate, match="was collected"):
        guard.check(b"\x01\x01\x02\x00\xc4\x01\x00\x01\x01\x01x\x00")


@pytest.mark.parametrize(
    "misplaced",
    [
        pytest.param(b"\xc4\x01\x02\x01\x00\x01x", id="to the left"),
        pytest.param(b"\xc4\x01\x02\x01\x01\x01x", id="next to the left"),
        pytest.param(b"\x44\x01\x01\x01x", id="not first, from the start"),
        pytest.param(b"\xc4\x01\x00\x01\x02\x01x", id="with one in between"),
        pytest.param(b"\xc4\x03\x00\x02\x00\x01x", id="among concurrent ones, the wrong way round"),
        pytest.param(b"\xc4\x01\x01\x01\x01\x01x", id="before and behind the same one"),
    ],
)
def test_an_insert_whose_right_neighbour_is_elsewhere_is_taken_without_it_alone(misplaced: bytes) -> None:
    guard = guard_of(
        one_struct(var_string("abc"), kind=4),
        b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01y\x00",
        b"\x01\x01\x03\x00\xc4\x01\x01\x01\x02\x01z\x00",
    )
    guard.check(b"\x01\x01\x04\x00\xc4\x02\x00\x01\x02\x01x\x00")
    for judging in (guard, Guard.of(guard_state())):
        for update in (
            b"\x01\x01\x04\x00" + misplaced + b"\x00",
            b"\x01\x03\x04\x00" + misplaced * 3 + b"\x00",
            b"\x01\x02\x04\x00" + misplaced + b"\x84\x04\x00\x01w\x00",
        ):
            with pytest.raises(Astray, match="right neighbour") as refused:
                judging.check(update)
            straight = straightened(update, refused.value.inserts)
            first, *others = decode_update(update).structs
            parent = "r" if first.origin is None else None
            assert decode_update(straight).structs[0] == first._replace(right_origin=None, parent=parent)
            assert decode_update(straight).structs[-1].content == (others or [first])[-1].content
            judging.check(straight)


@pytest.mark.parametrize(
    "one_more",
    [
        pytest.param(b"\x44\x28\x00\x01x", id="before the last one"),
        pytest.param(b"\x04\x01\x01r\x01x", id="behind them all"),
        pytest.param(b"\xc4\x01\x00\x02\x00\x01x", id="between two of them"),
    ],
)
def test_an_insert_among_more_than_may_be_looked_through_is_refused_and_a_rebuild_takes_them_all(
    monkeypatch: pytest.MonkeyPatch, one_more: bytes
) -> None:
    at_one_place = [b"\x01\x01" + var_uint(client) + b"\x00\x04\x01\x01r\x01a\x00" for client in range(1, 41)]
    update = b"\x01\x01\x64\x00" + one_more + b"\x00"
    guard = guard_of(*at_one_place)
    guard.check(update)
    monkeypatch.setattr("history.crdt.order.SCANNED_MAX", 0)
    for full in (guard, Guard.of(*at_one_place)):
        with pytest.raises(RefusedUpdate, match="at one place"):
            full.check(update)


def guard_state() -> bytes:
    """The whole state of a document with `abc` and two concurrent inserts before `c`."""
    update = b"\x03\x01\x03\x00\xc4\x01\x01\x01\x02\x01z\x01\x02\x00\xc4\x01\x01\x01\x02\x01y"
    return update + b"\x01\x01\x00\x04\x01\x01r\x03abc\x00"


def test_a_client_that_writes_a_key_as_if_it_never_had_is_refused_because_that_costs_quadratic_time() -> None:
    guard = guard_of(b"\x01\x01\x01\x00\x28\x01\x01m\x01k\x01\x7e\x00")
    guard.check(b"\x01\x01\x02\x00\x28\x01\x01m\x01k\x01\x7e\x00")
    guard.check(b"\x01\x01\x01\x01\xa8\x01\x00\x01\x7e\x00")
    with pytest.raises(RefusedUpdate, match="as if it never had"):
        guard.check(b"\x01\x01\x01\x01\x28\x01\x01m\x01k\x01\x7e\x00")


def test_text_typed_behind_ones_own_value_in_an_array_is_refused() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("list", type=Array).append(1.5)
    with pytest.raises(RefusedUpdate):
        Guard.of(doc.get_update()).check(bytes([1, 1, 1, 1, 0x84, 1, 0, 1, 0x78, 0]))


def test_text_typed_behind_ones_own_and_before_what_stands_left_of_it_is_refused() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, "ab")
    with pytest.raises(RefusedUpdate):
        Guard.of(doc.get_update()).check(bytes([1, 1, 1, 2, 0xC4, 1, 1, 1, 0, 1, 0x78, 0]))


_REPEATED = [
    b"\4\1\1t\1x",
    b"\4\1\1t\4\xf0\x9f\x98\x80",
    b"\x84\3\0\2ab",
    b"\x84\3\4\1x",
    b"\x44\3\0\1x",
    b"\xc4\3\0\3\1\1x",
    b"\x84\2\0\1y",
    b"\x44\2\1\1y",
    b"\x87\3\0\1",
    b"\7\1\1a\0",
    b"\x88\3\0\2\x7e\x7e",
    b"\x08\0\3\5\1\x78",
    b"\x28\1\1m\1k\1\x7e",
    b"\xa8\3\1\1\x7e",
    b"\x86\3\0\1b\1\x31",
    b"\0\2",
    b"\1\1\1t\3",
    b"\x81\3\0\1",
]
"""Structs, some behind or before units of clients 2 and 3."""


def _some_equal_neighbours(rng: random.Random, clock: int) -> bytes:
    runs = [(rng.choice(_REPEATED), rng.choice([1, 1, 2, 3, 7, 8, 40])) for _ in range(rng.choice([1, 2, 4]))]
    count = sum(times for _, times in runs)
    structs = b"".join(unit * times for unit, times in runs)
    return b"\1" + var_uint(count) + b"\3" + var_uint(clock) + structs + b"\0"


def _facts_of(guard: Guard) -> tuple[object, ...]:
    facts, rows = guard._facts, guard._facts.branches.rows
    columns = (rows.clients, rows.starts, rows.origins, rows.parents, rows.right_clients, rows.right_clocks)
    return deepcopy(
        (
            facts.known,
            {client: (runs.starts, runs.values) for client, runs in facts.places.items()},
            (facts.sequences, facts.depths, facts.collected, facts.low_surrogates, facts.roots, facts.keyed),
            (facts.branches.by_client, facts.branches.children),
            [column[: rows.kept] for column in (*columns, rows.depths, rows.jumps)],
        )
    )


@pytest.mark.parametrize("seed", range(60))
def test_equal_neighbours_are_judged_together_as_they_would_be_one_by_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    honest = b"\1\2\2\0\4\1\1t\5first\x84\2\0\1z\0"
    together, apart = guard_of(honest), guard_of(honest)
    taken = 0
    for _ in range(40):
        # Now and then some of it is known already.
        clock = max(0, known_to(together).get(3, 0) - rng.choice([0, 0, 0, 1, 5]))
        update = _some_equal_neighbours(rng, clock)
        outcomes: list[object] = []
        for guard, decode in ((together, updates.decode_runs), (apart, decode_update)):
            monkeypatch.setattr(guard_module, "decode_runs", decode)
            try:
                verdict = guard.check(update)
            except (Malformed, MissingDependency) as error:
                outcomes.append((type(error), str(error)))
                continue
            guard.commit(verdict)
            outcomes.append((verdict.clients, verdict.splits, verdict.own_splits))
            taken += 1
        assert outcomes[0] == outcomes[1]
        assert _facts_of(together) == _facts_of(apart)
    assert taken


def test_equal_structs_are_read_as_one() -> None:
    update = b"\1" + var_uint(1001) + b"\3\0\4\1\1t\1a" + b"\x87\3\0\1" * 1000 + b"\0"
    assert [struct.times for struct in updates.decode_runs(update).structs] == [1, 1, 999]  # the second goes on
    assert [struct.clock for struct in decode_update(update).structs] == list(range(1001))
    assert {struct.times for struct in decode_update(update).structs} == {1}


def test_values_of_a_key_that_were_replaced_may_stand_in_one_struct() -> None:
    guard = Guard()
    replaced = b"\1\2\1\0\x28\1\1m\1k\3\x79\x78\x7e\xa8\1\2\1\x7e\1\1\1\0\3"
    guard.commit(guard.check(replaced))
    assert known_to(guard) == {1: 4}
    with pytest.raises(RefusedUpdate, match="several values"):
        Guard().check(replaced[:-5] + b"\1\1\1\0\2")
