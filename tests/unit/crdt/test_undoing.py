"""The undo of one person: what they wrote goes, what they deleted comes back, and what lives of others stays."""

import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import undoing
from history.crdt.content import canonical_json, trees_of
from history.crdt.guard import Guard
from history.crdt.idsets import IdSet, id_set, intersect, subtract, union
from history.crdt.places import Piece, Places
from history.crdt.state_vectors import decode_state_vector
from history.crdt.undoing import Act, Deeds, TooManyRows
from history.crdt.undoing import Row as Logged
from history.crdt.updates import decode_update
from tests.histories import Row, random_history, replay, updates_of
from tests.taking_back import HISTORIES, a_span, cut, living_units, says, undo_rows, without_keys

BATCH = 25
BATCHES = range(HISTORIES // BATCH)
OWNER = 8
"""Who undoes, in these tests."""


def seeds(batch: int) -> range:
    return range(batch * BATCH, (batch + 1) * BATCH)


def deeds_of(rows: list[Row], who: int, first: int, last: int) -> Deeds:
    known = decode_state_vector(replay(rows[: first - 1]).get_state())
    deeds = Deeds(sessions=frozenset({who}), first_seq=first, last_seq=last, rows_max=10_000, known=known)
    for seq, row in enumerate(rows[first - 1 :], first):
        deeds.take(Logged(seq, row.user, row.update))
    return deeds


class Page:
    """People who edit one document in turns; `rows` is the log."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.doc: Doc[Any] = Doc(skip_gc=True)

    def edit(self, who: int, change: Any) -> int:
        """Let somebody change the document as it is; return the seq."""
        mine: Doc[Any] = Doc(client_id=who, skip_gc=True)
        mine.apply_update(self.doc.get_update())
        (update,) = updates_of(mine, partial(change, mine))
        return self.add(who, update)

    def add(self, who: int, update: bytes | None) -> int:
        assert update is not None
        self.rows.append(Row(update, who))
        self.doc.apply_update(update)
        return len(self.rows)

    def undo(self, who: int, first: int, last: int, *, by: int = OWNER, acts: Any = ()) -> int:
        """Undo, as a row of `by`; return its seq."""
        taken = undo_rows(self.rows, who, first, last, acts=acts, client_id=1000 + len(self.rows))
        return self.add(by, taken.update)

    def text(self) -> str:
        return str(self.doc.get("text", type=Text))


def typing(at: int, words: str) -> Any:
    return lambda doc: doc.get("text", type=Text).insert(at, words, {})


def deleting(start: int, stop: int) -> Any:
    def change(doc: Doc[Any]) -> None:
        del doc.get("text", type=Text)[start:stop]

    return change


@pytest.mark.parametrize("batch", BATCHES)
def test_where_people_do_not_touch_it_is_as_if_they_had_never_been_there(batch: int) -> None:
    for seed in seeds(batch):
        rows = random_history(seed, edits=50, skip_gc=True, apart=True)
        who, first, _ = a_span(seed, rows)
        taken = undo_rows(rows, who, first, len(rows))
        others = [row for seq, row in enumerate(rows, 1) if row.user != who or seq < first]
        for gc in (False, True):
            want = says(others, dict(taken.kinds), gc=gc)
            undone: list[bytes | Row] = [*rows, *([taken.update] if taken.update else [])]
            assert says(undone, dict(taken.kinds), gc=gc) == want, f"history {seed}"


@pytest.mark.parametrize("batch", BATCHES)
def test_any_sequence_says_what_its_units_say_without_what_is_undone(batch: int) -> None:
    for seed in seeds(batch):
        rows = random_history(seed, edits=50, skip_gc=True)
        who, first, last = a_span(seed, rows)
        taken = undo_rows(rows, who, first, last, gc=seed % 3 != 0)
        full = replay(rows, skip_gc=True).get_update()
        back, gone = expected(rows, who, first, last, full)
        want = trees_of(cut(full, back=back, gone=gone), taken.kinds)
        have = trees_of(replay([*rows, *([taken.update] if taken.update else [])]), taken.kinds)
        roots = [name for name in taken.kinds if name != "map"]
        assert _sequences(have, roots) == _sequences(want, roots), f"history {seed}"


def _sequences(trees: Any, roots: list[str]) -> str:
    return canonical_json({name: without_keys(trees.get(name)) for name in roots})


def expected(rows: list[Row], who: int, first: int, last: int, full: bytes) -> Any:
    """What comes back and what goes, said once more and plainly: by unit, and without the code under test but for
    the types that are kept."""
    owner: dict[tuple[int, int], int] = {}
    deleters: dict[tuple[int, int], set[int]] = {}
    for seq, row in enumerate(rows, 1):
        update = decode_update(row.update)
        for struct in update.structs:
            for clock in range(struct.clock, struct.clock + struct.length):
                owner.setdefault((struct.client, clock), seq)
        for client, clock, length in update.deletes:
            for unit in range(clock, clock + length):
                deleters.setdefault((client, unit), set()).add(seq)
    meant = {seq for seq, row in enumerate(rows, 1) if row.user == who and first <= seq <= last}
    gone = id_set((*unit, 1) for unit, seq in owner.items() if seq in meant)
    back = id_set((*unit, 1) for unit, seqs in deleters.items() if seqs <= meant)
    places = Places(full)
    dead = subtract(id_set(decode_update(full).deletes), back)
    kept = places.holders(subtract(subtract(places.counted(), dead), gone), deleted=dead)
    return back, subtract(gone, kept)


@pytest.mark.parametrize("batch", BATCHES)
def test_nothing_that_lives_of_others_goes(batch: int) -> None:
    for seed in seeds(batch):
        rows = random_history(seed, edits=50, skip_gc=True)
        who, first, last = a_span(seed, rows)
        taken = undo_rows(rows, who, first, last)
        if taken.update is None:
            continue
        Guard.of(replay(rows).get_update()).check(taken.update)
        theirs = deeds_of(rows, who, first, last).written()
        before, after = replay(rows), replay([*rows, taken.update])
        lost = subtract(living_units(before), living_units(after))
        assert not intersect(subtract(lost, theirs), _in_sequences(before)), f"history {seed}"


def _in_sequences(doc: Doc[Any]) -> IdSet:
    """Units that have a length for readers and stand under no key."""
    places = Places(doc.get_update())
    units = ((each, places.of((each.client, each.clock))) for each in places.structs)
    ids = id_set((each.client, each.clock, each.length) for each, place in units if place and place[1] is None)
    return intersect(ids, places.counted())


@pytest.mark.parametrize("batch", BATCHES)
def test_an_undo_can_be_undone_and_an_undo_again_finds_nothing(batch: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in seeds(batch):
        rows = random_history(seed, edits=50, skip_gc=True)
        who, first, last = a_span(seed, rows)
        taken = undo_rows(rows, who, first, last)
        if taken.update is None:
            outcomes["nothing to undo"] += 1
            continue
        kinds = dict(taken.kinds)
        rows.append(Row(taken.update, OWNER))
        seq = len(rows)
        act = Act(seq=seq, session_id=OWNER, first_seq=first, last_seq=last, sessions=frozenset({who}))
        again = undo_rows(rows, who, first, last, acts=[act], client_id=1001)
        assert again.update is None, f"history {seed}"
        back = undo_rows(rows, OWNER, seq, seq, client_id=1002)
        assert back.update is not None
        assert says([*rows, back.update], kinds) == says(rows[:-1], kinds), f"history {seed}"
        outcomes["given back"] += 1
    assert outcomes["given back"] > BATCH // 2


def test_what_was_deleted_comes_back_once_however_often_it_is_given_back() -> None:
    page = Page()
    page.edit(1, typing(0, "one two three"))
    gone = page.edit(2, deleting(4, 8))
    whole = Act(seq=3, session_id=OWNER, first_seq=gone, last_seq=gone)  # a restore of seq 1
    page.undo(2, gone, gone)
    assert page.text() == "one two three"
    assert undo_rows(page.rows, 2, gone, gone, acts=[whole]).update is None

    undone = page.undo(OWNER, 3, 3, acts=[whole])
    assert page.text() == "one three"
    of_the_restore = Act(seq=undone, session_id=OWNER, first_seq=3, last_seq=3, sessions=frozenset({OWNER}))
    page.undo(2, gone, gone, acts=[whole, of_the_restore])
    assert page.text() == "one two three"


def test_an_undo_of_an_undo_of_an_undo_gave_it_back() -> None:
    page = Page()
    page.edit(1, typing(0, "one two three"))
    gone = page.edit(2, deleting(4, 8))
    acts: list[Act] = []
    for undone, who in ((gone, 2), (3, OWNER), (4, OWNER)):
        seq = page.undo(who, undone, undone, acts=acts)
        acts.append(Act(seq=seq, session_id=OWNER, first_seq=undone, last_seq=undone, sessions=frozenset({who})))
    assert page.text() == "one two three"
    assert undo_rows(page.rows, 2, gone, gone, acts=acts).update is None


def random_deeds(seed: int, *, acts: int) -> tuple[Deeds, list[Act], Places]:
    """Twelve deletions by person 1 in a text that they typed, then restores and undos of all kinds behind them."""
    rng = random.Random(seed)
    doc: Doc[Any] = Doc(client_id=1)
    updates_of(doc, lambda: doc.get("text", type=Text).insert(0, "x" * 24))
    deeds = Deeds(sessions=frozenset({1}), first_seq=1, last_seq=12, rows_max=12, known={})
    for seq in range(1, 13):
        deletes = b"\x01\x01\x01" + bytes([2 * seq - 2, 1])
        deeds.take(Logged(seq, 1, b"\x00" + deletes))
    done: list[Act] = []
    for seq in range(13, 13 + acts):
        first, who = rng.randrange(1, seq), rng.randrange(100, 103)
        is_restore = rng.random() < 0.5
        done.append(
            Act(
                seq=seq,
                session_id=who,
                first_seq=first,
                last_seq=seq - 1 if is_restore else rng.randrange(first, seq),
                sessions=None if is_restore else frozenset(rng.sample([1, 100, 101, 102], rng.randrange(1, 4))),
                piece=rng.choice([None, None, Piece("text")]),
            )
        )
    return deeds, done, Places(doc.get_update())


def given_back_one_by_one(deeds: Deeds, acts: list[Act], parts: undoing._Parts) -> IdSet:
    given: IdSet = {}
    done: list[tuple[Act, IdSet, IdSet]] = []
    for act in acts:
        part, now = parts.of(act), given
        for earlier, gave, took in reversed(done):
            if act.took_back(earlier.seq, earlier.session_id):
                now = union(subtract(now, part(gave)), part(took))
        for seq, session, deletes in deeds._deleted:
            if act.took_back(seq, session):
                now = union(now, part(id_set(deletes)))
        done.append((act, subtract(now, given), subtract(given, now)))
        given = now
    return given


@pytest.mark.parametrize("seed", range(60))
def test_what_is_given_back_is_what_each_act_did_in_its_turn(seed: int) -> None:
    deeds, acts, places = random_deeds(seed, acts=seed)
    assert deeds._given_back(acts, places) == given_back_one_by_one(deeds, acts, undoing._Parts(places))


def test_many_restores_cost_no_more_for_each_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    unions = 0

    def counted(*sets: IdSet) -> IdSet:
        nonlocal unions
        unions += 1
        return union(*sets)

    monkeypatch.setattr(undoing, "union", counted)
    deeds, _, places = random_deeds(1, acts=0)
    seqs = range(13, 213)
    acts = [Act(seq=seq, session_id=100, first_seq=1 + seq % 12, last_seq=seq - 1) for seq in seqs]
    deeds._given_back(acts, places)
    assert unions <= 2 * len(acts)


def test_an_act_on_another_piece_gave_back_nothing_here() -> None:
    page = Page()
    page.edit(1, typing(0, "one two three"))
    page.edit(1, lambda doc: doc.get("map", type=Map).update({"k": 1}))
    gone = page.edit(2, deleting(4, 8))
    page.edit(1, lambda doc: doc.get("map", type=Map).update({"k": 2}))
    elsewhere = Act(seq=4, session_id=1, first_seq=3, last_seq=3, piece=Piece("map"))
    page.undo(2, gone, gone, acts=[elsewhere])
    assert page.text() == "one two three"


def test_what_another_one_deleted_as_well_stays_deleted() -> None:
    page = Page()
    page.edit(1, typing(0, "one two three"))
    first: Doc[Any] = Doc(client_id=2)
    second: Doc[Any] = Doc(client_id=3)
    for doc in (first, second):
        doc.apply_update(page.doc.get_update())
    # Two processes may log what was deleted in both at once.
    (theirs,) = updates_of(first, partial(deleting(0, 8), first))
    (others,) = updates_of(second, partial(deleting(4, 13), second))
    page.add(2, theirs)
    page.add(3, others)
    page.undo(2, 2, 2)
    assert page.text() == "one "
    # Before the span it is the same.
    assert undo_rows(page.rows[:3], 3, 3, 3).after().get("text", type=Text).to_py() == "three"


def test_a_paragraph_in_which_others_wrote_is_kept_with_their_words_alone() -> None:
    page = Page()

    def paragraph(doc: Doc[Any]) -> None:
        doc.get("xml", type=XmlFragment).children.append(XmlElement("p", {"a": "1"}, [XmlText("mine ")]))

    def more(doc: Doc[Any]) -> None:
        text = doc.get("xml", type=XmlFragment).children[0].children[0]
        text.insert(len(str(text)), "yours")

    page.edit(1, paragraph)
    page.edit(1, paragraph)
    page.edit(2, more)
    page.undo(1, 1, 2)
    assert str(page.doc.get("xml", type=XmlFragment)) == "<p>yours</p>"


def test_what_was_deleted_in_what_is_undone_comes_back_with_it_kept() -> None:
    page = Page()
    page.edit(1, lambda doc: doc.get("array", type=Array).append(Map({"mine": 1})))
    page.edit(2, lambda doc: doc.get("array", type=Array)[0].update({"yours": 2}))

    def emptied(doc: Doc[Any]) -> None:
        del doc.get("array", type=Array)[0]["yours"]

    page.edit(1, emptied)
    page.undo(1, 1, 3)
    assert page.doc.get("array", type=Array).to_py() == [{"yours": 2}]


def test_an_attribute_of_somebody_else_keeps_no_paragraph() -> None:
    page = Page()
    page.edit(1, lambda doc: doc.get("xml", type=XmlFragment).children.append(XmlElement("p", {}, [XmlText("mine")])))

    def align(doc: Doc[Any]) -> None:
        doc.get("xml", type=XmlFragment).children[0].attributes["align"] = "left"

    page.edit(2, align)
    page.undo(1, 1, 2)
    assert str(page.doc.get("xml", type=XmlFragment)) == ""


def test_what_comes_back_where_nobody_sees_it_keeps_nothing() -> None:
    page = Page()
    page.edit(1, lambda doc: doc.get("array", type=Array).append(Map({"mine": 1})))
    page.edit(2, lambda doc: doc.get("array", type=Array)[0].update({"inner": Map({"yours": 2})}))

    def empty(doc: Doc[Any]) -> None:
        del doc.get("array", type=Array)[0]["inner"]["yours"]

    def drop(doc: Doc[Any]) -> None:
        del doc.get("array", type=Array)[0]["inner"]

    page.edit(1, empty)
    page.edit(2, drop)
    page.undo(1, 1, 4)
    assert page.doc.get("array", type=Array).to_py() == []


def test_a_key_that_another_one_wrote_since_is_theirs() -> None:
    page = Page()
    for who, value in ((1, "first"), (2, "second"), (3, "third")):
        page.edit(who, lambda doc, value=value: doc.get("map", type=Map).update({"k": value}))
    assert undo_rows(page.rows, 2, 1, 3).update is None
    page.undo(3, 1, 3)
    assert page.doc.get("map", type=Map).to_py() == {"k": "second"}


def test_the_first_delivery_of_a_struct_tells_its_author() -> None:
    page = Page()
    first = page.edit(1, typing(0, "mine"))
    page.rows.append(Row(page.rows[first - 1].update, 2))  # brought by somebody else once more
    assert undo_rows(page.rows, 2, 1, 2).update is None
    assert deeds_of(page.rows, 1, 1, 2).written() == {1: ((0, 4),)}


def test_more_rows_than_are_undone_at_once_are_refused() -> None:
    rows = random_history(1)
    with pytest.raises(TooManyRows):
        undoing.undone(
            state_before=b"\0\0",
            head_state=replay(rows, skip_gc=True).get_update(),
            rows=[Logged(seq, 1, row.update) for seq, row in enumerate(rows, 1)],
            sessions=frozenset({1}),
            first_seq=1,
            last_seq=len(rows),
            acts=list,
            client_id=999,
            rows_max=5,
        )


def test_what_others_type_while_it_is_undone_survives() -> None:
    for seed in range(10):
        rows = random_history(seed, edits=50)
        taken = undo_rows(rows, 1, 1, len(rows))
        assert taken.update is not None
        peer: Doc[Any] = Doc(client_id=77)
        for row in rows:
            peer.apply_update(row.update)
        [meanwhile] = updates_of(peer, partial(typing(0, "§meanwhile§"), peer))
        after, before = replay([*rows, taken.update, meanwhile]), replay([*rows, meanwhile, taken.update])
        assert canonical_json(trees_of(after)) == canonical_json(trees_of(before))
        assert "§meanwhile§" in str(after.get("text", type=Text))


def test_characters_are_counted_in_utf16_units() -> None:
    page = Page()
    page.edit(1, typing(0, "one 😀 two"))
    page.edit(2, deleting(4, 8))
    page.edit(2, typing(4, "xyz"))
    taken = undo_rows(page.rows, 2, 1, 3)
    assert (taken.inserted, taken.deleted) == (2, 3)
    assert str(taken.after().get("text", type=Text)) == "one 😀 two"
