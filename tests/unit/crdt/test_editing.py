"""An edit made on an earlier moment is an update as of that moment, and merges with all that came since."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment

from history.crdt.content import canonical, readable, tree_of, trees_of
from history.crdt.delta import plain_text, read_delta, readable_delta
from history.crdt.differing import make_equal
from history.crdt.editing import (
    InsideCharacter,
    NotEditable,
    OutsideText,
    edited,
    kind_for,
    rewritten,
)
from history.crdt.guard import Guard
from history.crdt.roots import RootKind
from tests.histories import random_history, replay, with_roots
from tests.quill import applied, text_of
from tests.unit.crdt.trees import ROOTS

CLIENT = 4_000_000_000


def written(text: str) -> Doc[Any]:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, text)
    return doc


def fork(doc: Doc[Any], client_id: int = CLIENT) -> Doc[Any]:
    copy: Doc[Any] = Doc(client_id=client_id)
    copy.apply_update(doc.get_update())
    return copy


def delta_of(doc: Doc[Any]) -> Any:
    tree: Any = tree_of(doc.get("text", type=Text))
    return tree["delta"]


def edit(doc: Doc[Any], *delta: dict[str, Any]) -> bytes | None:
    return edited(doc, "text", RootKind.TEXT, read_delta(list(delta), steps_max=100))


def random_delta(rng: random.Random, text: str) -> list[dict[str, Any]]:
    """Steps over a text that cut no character."""
    boundaries, at = [0], 0
    for character in text:
        at += 2 if character > "\uffff" else 1
        boundaries.append(at)
    places = sorted(rng.sample(boundaries, min(len(boundaries), 5)))
    delta: list[dict[str, Any]] = []
    before = 0
    for place in places:
        if place > before:
            delta.append({rng.choice(["retain", "retain", "delete"]): place - before})
            if "retain" in delta[-1] and rng.random() < 0.4:
                delta[-1]["attributes"] = {"bold": rng.choice([True, None])}
        if rng.random() < 0.6:
            delta.append({"insert": rng.choice(["§", "😀é", {"image": "x"}])})
            if rng.random() < 0.5:
                delta[-1]["attributes"] = {"color": "red"}
        before = place
    return delta


@pytest.mark.parametrize("seed", range(60))
def test_a_delta_does_what_quill_does_with_it(seed: int) -> None:
    rows = random_history(seed, edits=40)
    doc = with_roots(fork(replay(rows)))
    have = applied([], readable_delta(delta_of(doc)))
    delta = random_delta(random.Random(seed), plain_text(delta_of(doc)))
    update = edit(doc, *delta)
    assert applied([], readable_delta(delta_of(doc))) == applied(have, delta)
    if update is not None:
        peer = replay([row.update for row in rows])
        Guard.of(peer.get_update()).check(update)
        peer.apply_update(update)
        assert canonical(peer) == canonical(doc)


@pytest.mark.parametrize("seed", range(60))
def test_an_edit_as_of_any_moment_merges_with_what_came_since(seed: int) -> None:
    rng = random.Random(seed)
    rows = [row.update for row in random_history(seed, edits=60)]
    place = rng.randrange(len(rows) + 1)
    then = with_roots(fork(replay(rows[:place])))
    text = plain_text(delta_of(then))
    marked = [{**step, "insert": "§MARK§"} if "insert" in step else step for step in random_delta(rng, text)]
    update = edit(then, *marked)
    updates = [] if update is None else [update]
    orders = [rows + updates, rows[:place] + updates + rows[place:]]
    docs = [with_roots(replay(order, skip_gc=skip_gc)) for order in orders for skip_gc in (False, True)]
    assert len({canonical(doc) for doc in docs}) == 1
    wanted = sum("insert" in step for step in marked)
    assert plain_text(delta_of(docs[0])).count("§MARK§") == wanted


def test_two_who_type_in_one_paragraph_both_keep_what_they_typed() -> None:
    doc = written("The quick fox 😀")
    then = fork(doc)
    doc.get("text", type=Text).insert(4, "very ")
    update = edit(then, {"retain": 16}, {"insert": "!"})
    assert update is not None
    doc.apply_update(update)
    assert str(doc.get("text", type=Text)) == "The very quick fox 😀!"


def test_what_is_inserted_without_attributes_has_none() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, "bold", {"bold": True})
    edit(doc, {"retain": 2}, {"insert": "plain"})
    assert [run["attributes"] for run in delta_of(doc)] == [{"bold": True}, {}, {"bold": True}]


def test_an_edit_that_says_nothing_new_is_no_update() -> None:
    doc = written("abc")
    assert edit(doc) is None
    assert edit(doc, {"retain": 3}) is None
    assert rewritten(doc, "text", RootKind.TEXT, "abc") is None


@pytest.mark.parametrize(
    ("delta", "error"),
    [
        ([{"insert": "x"}, {"retain": 2}], InsideCharacter),
        ([{"retain": 2}, {"insert": "x"}], InsideCharacter),
        ([{"retain": 1}, {"delete": 1}], InsideCharacter),
        ([{"insert": "x"}, {"retain": 5}], OutsideText),
        ([{"insert": "x"}, {"delete": 2**31 - 1}], OutsideText),
    ],
)
def test_a_delta_that_does_not_fit_its_text_changes_nothing(delta: list[Any], error: type[Exception]) -> None:
    doc = written("a😀b")
    before = doc.get_update()
    with pytest.raises(error):
        edit(doc, *delta)
    assert doc.get_update() == before


@given(ROOTS, st.text("ab 😀é", max_size=12))
def test_a_whole_text_is_what_is_written_and_what_stays_keeps_its_formats(roots: Any, text: str) -> None:
    doc: Doc[Any] = Doc(client_id=1)
    make_equal(doc, {"text": RootKind.TEXT}, {"text": roots["text"]})
    before = applied([], readable_delta(delta_of(doc)))
    rewritten(doc, "text", RootKind.TEXT, text)
    assert plain_text(delta_of(doc)) == text
    kept = text_of(before)
    rewritten(doc, "text", RootKind.TEXT, text + kept)
    assert plain_text(delta_of(doc)) == text + kept


def test_a_whole_text_made_on_an_earlier_moment_keeps_what_others_typed_since() -> None:
    doc = written("one two three")
    then = fork(doc)
    doc.get("text", type=Text).insert(4, "and ")
    update = rewritten(then, "text", RootKind.TEXT, "one two four")
    assert update is not None
    doc.apply_update(update)
    assert str(doc.get("text", type=Text)) == "one and two four"


def test_two_who_write_around_the_same_character_have_it_once() -> None:
    doc = written("a-b")
    updates = [
        rewritten(fork(doc, client_id), "text", RootKind.TEXT, content)
        for client_id, content in ((7, "one-two"), (8, "three-four"))
    ]
    for update in updates:
        assert update is not None
        doc.apply_update(update)
    assert str(doc.get("text", type=Text)).count("-") == 1


def test_an_embed_that_stays_in_a_whole_text_is_the_same_embed() -> None:
    doc = written("ab")
    doc.get("text", type=Text).insert_embed(1, {"image": "u"}, {})
    rewritten(doc, "text", RootKind.TEXT, "xa\ufffcb")
    assert readable_delta(delta_of(doc)) == [{"insert": "xa"}, {"insert": {"image": "u"}}, {"insert": "b"}]


def test_a_whole_text_in_the_middle_of_a_bold_word_is_bold() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc.get("text", type=Text).insert(0, "bold", {"bold": True})
    rewritten(doc, "text", RootKind.TEXT, "bo-ld")
    assert readable_delta(delta_of(doc)) == [{"insert": "bo-ld", "attributes": {"bold": True}}]


@given(ROOTS, ROOTS)
def test_whole_json_of_a_map_or_an_array_is_what_is_written(roots: Any, others: Any) -> None:
    kinds = {"map": RootKind.MAP, "array": RootKind.ARRAY}
    doc: Doc[Any] = Doc(client_id=1)
    make_equal(doc, kinds, {name: roots[name] for name in kinds})
    for name, kind in kinds.items():
        wanted = readable(others[name])
        rewritten(doc, name, kind, wanted)
        tree: Any = trees_of(doc, {name: kind}).get(name)
        assert (wanted or None) == (None if tree is None else readable(tree) or None)


def test_shared_types_in_a_map_are_edited_and_not_replaced() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    doc["map"] = Map({"todo": Array(["a", "b"]), "note": Text("hello"), "in": Map({"x": 1.0, "y": 2.0})})
    then = fork(doc)
    doc.get("map", type=Map)["todo"].append("c")
    doc.get("map", type=Map)["note"].insert(5, " you")
    doc.get("map", type=Map)["in"]["y"] = 3.0
    update = rewritten(
        then, "map", RootKind.MAP, {"todo": ["z", "a", "b"], "note": "oh hello", "in": {"x": 7, "y": 2}, "new": [1, {}]}
    )
    assert update is not None
    doc.apply_update(update)
    assert readable(trees_of(doc, {"map": RootKind.MAP})["map"]) == {
        "todo": ["z", "a", "b", "c"],
        "note": "oh hello you",
        "in": {"x": 7, "y": 3},
        "new": [1, {}],
    }


def test_what_a_root_is_not_made_for_is_refused() -> None:
    doc = written("text")
    doc["xml"] = XmlFragment([XmlElement("p")])
    with pytest.raises(NotEditable):
        rewritten(doc, "text", RootKind.TEXT, {"a": 1})
    with pytest.raises(NotEditable):
        rewritten(doc, "xml", RootKind.XML, "text")
    with pytest.raises(NotEditable):
        edited(doc, "map", RootKind.MAP, read_delta([{"insert": "x"}], steps_max=1))


@pytest.mark.parametrize(
    ("content", "kind"), [("", RootKind.TEXT), (1, RootKind.TEXT), ({}, RootKind.MAP), ([], RootKind.ARRAY)]
)
def test_an_empty_root_takes_the_kind_of_what_it_is_to_say(content: Any, kind: RootKind) -> None:
    assert kind_for(content) is kind
