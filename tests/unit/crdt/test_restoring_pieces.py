"""A root, a key or a range of a text is brought back, and nothing else of the document is touched."""

import random
from functools import partial
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text

from history.crdt.content import canonical_json, trees_of
from history.crdt.guard import Guard
from history.crdt.idsets import between, contains, delete_set_of, id_set, subtract
from history.crdt.places import Piece, Places
from history.crdt.ranges import NoSuchRange, Span, order_of, span_of, stretch_of, units_of
from history.crdt.restoring import NoSuchPiece
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import Kind, decode_update
from tests.histories import ROOTS, Row, random_history, replay, updates_of
from tests.taking_back import HISTORIES, restore_rows

BATCH = 25
BATCHES = range(HISTORIES // BATCH)


def seeds(batch: int) -> range:
    return range(batch * BATCH, (batch + 1) * BATCH)


def trees(rows: list[Any], kinds: Any) -> Any:
    return trees_of(replay(rows), kinds)


def rows_of(*edits: Any) -> list[Row]:
    """A document that is edited by one person after the other."""
    rows: list[Row] = []
    for client, edit in enumerate(edits, 1):
        doc: Doc[Any] = Doc(client_id=client, skip_gc=True)
        for row in rows:
            doc.apply_update(row.update)
        rows += [Row(update, client) for update in updates_of(doc, partial(edit, doc))]
    return rows


def after(rows: list[Row], place: int, **options: Any) -> Doc[Any]:
    taken = restore_rows(rows, place, **options)
    if taken.update is not None:
        Guard.of(replay(rows).get_update()).check(taken.update)
    return replay([*rows, *([taken.update] if taken.update else [])])


def words(text: str, at: int = 0, root: str = "text") -> Any:
    return lambda doc: doc.get(root, type=Text).insert(at, text, {})


def without(start: int, stop: int) -> Any:
    def delete(doc: Doc[Any]) -> None:
        del doc.get("text", type=Text)[start:stop]

    return delete


def setting(*path: str, to: Any) -> Any:
    def edit(doc: Doc[Any]) -> None:
        here: Any = doc.get("map", type=Map)
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = to

    return edit


@pytest.mark.parametrize("batch", BATCHES)
def test_a_root_says_what_it_said_and_the_others_what_they_say(batch: int) -> None:
    for seed in seeds(batch):
        rows = random_history(seed, edits=50)
        rng = random.Random(seed)
        place, root = rng.randrange(len(rows) + 1), rng.choice(list(ROOTS))
        try:
            taken = restore_rows(rows, place, piece=Piece(root))
        except NoSuchPiece:
            assert root not in trees(rows, None)
            continue
        then, now = trees(rows[:place], taken.kinds), trees(rows, taken.kinds)
        have = trees([*rows, *([taken.update] if taken.update else [])], taken.kinds)
        want = {name: value for name, value in now.items() if name != root}
        want |= {root: then[root]} if root in then else {}
        assert canonical_json(have) == canonical_json(want), f"history {seed}"


@pytest.mark.parametrize("batch", BATCHES)
def test_a_key_says_what_it_said_and_the_others_what_they_say(batch: int) -> None:
    for seed in seeds(batch):
        rows = random_history(seed, edits=50)
        rng = random.Random(seed)
        place, key = rng.randrange(len(rows) + 1), rng.choice("pqrst")
        empty: Any = {"entries": {}}
        try:
            taken = restore_rows(rows, place, piece=Piece("map", (key,)))
        except NoSuchPiece:
            continue
        then, now = ((trees(part, taken.kinds).get("map") or empty)["entries"] for part in (rows[:place], rows))
        undone = [*rows, *([taken.update] if taken.update else [])]
        have = (trees(undone, taken.kinds).get("map") or empty)["entries"]
        want = {name: value for name, value in now.items() if name != key} | ({key: then[key]} if key in then else {})
        assert canonical_json(have) == canonical_json(want), f"history {seed}"


@pytest.mark.parametrize("batch", BATCHES)
def test_a_range_says_what_it_said_and_the_text_around_it_what_it_says(batch: int) -> None:
    """From the first to the last unit of the range is what was there then, before and behind what is there now."""
    for seed in seeds(batch):
        rows = random_history(seed, edits=60)
        rng = random.Random(seed)
        place, begin = rng.randrange(len(rows) + 1), rng.randrange(12)
        try:
            taken = restore_rows(rows, place, piece=Piece("text"), span=Span(begin, begin + rng.randrange(1, 9)))
        except (NoSuchRange, NoSuchPiece):
            continue
        assert taken.stretch is not None
        places = Places(replay(rows, skip_gc=True).get_update())
        order = order_of(places, "text")
        first, last = order.index(taken.stretch.first), order.index(taken.stretch.last)
        then, now = _letters(rows[:place], places), _letters(rows, places)
        sides = [now if number < first or number > last else then for number in range(len(order))]
        want = b"".join(side.get(unit, b"") for side, unit in zip(sides, order, strict=True)).decode("utf-16-le")
        have = replay([*rows, *([taken.update] if taken.update else [])]).get("text", type=Text)
        assert str(have) == want, f"history {seed}"


def _letters(rows: list[Row], places: Places) -> dict[tuple[int, int], bytes]:
    """By unit the characters, in UTF-16, that are not deleted after these rows."""
    doc = replay(rows, skip_gc=True)
    known = decode_state_vector(doc.get_state())
    alive = subtract(between({}, known), delete_set_of(doc))
    return {
        (struct.client, clock): struct.content.encode("utf-16-le")[2 * number : 2 * number + 2]
        for struct in places.structs
        if isinstance(struct.content, str) and struct.kind is Kind.STRING
        for number, clock in enumerate(range(struct.clock, struct.clock + struct.length))
        if contains(alive, struct.client, clock)
    }


def test_what_was_typed_right_beside_a_range_stays() -> None:
    rows = rows_of(words("one two three"), without(4, 7), words("<", 4), words(">", 5), words("!", 0))
    assert str(after(rows, 1, piece=Piece("text"), span=Span(4, 7)).get("text", type=Text)) == "!one two<> three"
    assert str(after(rows, 1, piece=Piece("text"), span=Span(3, 8)).get("text", type=Text)) == "!one two three"


def test_what_was_typed_inside_a_range_goes_and_formats_come_back() -> None:
    def embolden(doc: Doc[Any]) -> None:
        doc.get("text", type=Text).format(0, 7, {"bold": True})

    def thin(doc: Doc[Any]) -> None:
        doc.get("text", type=Text).format(0, 13, {"bold": None})

    rows = rows_of(words("one two three"), embolden, words("XX", 5), thin)
    text = after(rows, 2, piece=Piece("text"), span=Span(4, 9)).get("text", type=Text)
    assert str(text) == "one two three"
    assert text.diff() == [("one ", None), ("two", {"bold": True}), (" three", None)]


def test_a_range_counts_utf16_units_and_cuts_no_character() -> None:
    rows = rows_of(words("a😀b😀c"), lambda doc: doc.get("text", type=Text).clear())
    for span, want in (((1, 4), "😀b"), ((0, 7), "a😀b😀c"), ((6, 7), "c")):
        assert str(after(rows, 1, piece=Piece("text"), span=Span(*span)).get("text", type=Text)) == want
    for span in ((2, 4), (1, 2), (3, 3), (4, 3), (0, 8), (-1, 2)):
        with pytest.raises(NoSuchRange):
            restore_rows(rows, 1, piece=Piece("text"), span=Span(*span))


def test_a_range_is_found_in_more_units_than_there_are_letters() -> None:
    many = "0123456789" * 12_000
    rows = rows_of(words(many), without(65_000, 65_010), words("x", 64_995))
    text = after(rows, 1, piece=Piece("text"), span=Span(64_990, 65_020)).get("text", type=Text)
    assert str(text) == many


def test_a_stretch_with_unknown_ends_holds_nothing() -> None:
    places = Places(replay(rows_of(words("abc"))).get_update())
    order = order_of(places, "text")
    stretch = stretch_of(order, Span(0, 2), alive=places.counted())
    assert span_of(order, stretch, alive=places.counted()) == (0, 2)
    assert units_of(order, stretch) == {1: ((0, 2),)}
    assert units_of(order, stretch._replace(last=(9, 9))) == {}


@pytest.mark.parametrize("root", ["map", "nobody's"])
def test_a_range_is_one_of_a_text(root: str) -> None:
    rows = rows_of(setting("k", to=1), words("abc"))
    with pytest.raises(NoSuchPiece):
        restore_rows(rows, 1, piece=Piece(root), span=Span(0, 1))


def test_a_key_of_a_nested_map_comes_back_alone() -> None:
    rows = rows_of(
        setting("a", to=Map({"b": Map({"x": 1, "y": 1})})),
        setting("a", "b", "x", to=2),
        setting("a", "b", "y", to=2),
        setting("a", "z", to=2),
    )
    root = after(rows, 1, piece=Piece("map", ("a", "b", "x"))).get("map", type=Map)
    assert root.to_py() == {"a": {"b": {"x": 1, "y": 2}, "z": 2}}


def test_a_key_comes_back_into_the_map_that_is_there_now() -> None:
    rows = rows_of(setting("a", to=Map({"x": Text("then")})), setting("a", to=Map({"y": 2})))
    root = after(rows, 1, piece=Piece("map", ("a", "x"))).get("map", type=Map)
    assert {key: str(value) for key, value in root["a"].items()} == {"x": "then", "y": "2.0"}


def test_a_key_that_was_not_there_then_goes_and_its_map_stays() -> None:
    rows = rows_of(setting("a", to=Map({})), setting("a", "x", to=1))
    assert after(rows, 1, piece=Piece("map", ("a", "x"))).get("map", type=Map).to_py() == {"a": {}}


@pytest.mark.parametrize("path", [("k", "x"), ("gone", "x"), ("never",), ("a", "never")])
def test_a_key_that_no_map_has_is_refused_in_words(path: tuple[str, ...]) -> None:
    def lose(doc: Doc[Any]) -> None:
        del doc.get("map", type=Map)["gone"]

    rows = rows_of(setting("gone", to=Map({"x": 1})), setting("k", to=1), setting("a", to=Map({})), lose)
    with pytest.raises(NoSuchPiece):
        restore_rows(rows, 1, piece=Piece("map", path))


def test_a_deleted_map_comes_back_as_a_type_that_people_can_go_on_in() -> None:
    def lose(doc: Doc[Any]) -> None:
        del doc.get("map", type=Map)["a"]

    rows = rows_of(setting("a", to=Map({"items": Array([1, 2])})), lose)
    doc = after(rows, 1, piece=Piece("map", ("a",)))
    doc.get("map", type=Map)["a"]["items"].append(3)
    assert doc.get("map", type=Map).to_py() == {"a": {"items": [1, 2, 3]}}


def test_a_root_that_came_later_is_emptied() -> None:
    rows = rows_of(words("abc"), words("later", root="other"))
    doc = after(rows, 1, piece=Piece("other"))
    assert (str(doc.get("other", type=Text)), str(doc.get("text", type=Text))) == ("", "abc")


def test_what_is_not_in_the_piece_keeps_its_identity() -> None:
    """Deleted and written anew it would say the same, and who types in it just then would lose their place."""
    rows = rows_of(words("abc"), setting("k", to=1), words("later", at=3), setting("k", to=Map({"x": 1})))
    head = replay(rows)
    for options in (
        {"piece": Piece("map")},
        {"piece": Piece("map", ("k",))},
        {"piece": Piece("text"), "span": Span(0, 2)},
    ):
        taken = restore_rows(rows, 2, **options)
        deleted = id_set(decode_update(taken.update).deletes) if taken.update else {}
        places = Places(head.get_update())
        root = options["piece"].root  # type: ignore[attr-defined]
        assert subtract(deleted, places.within(Piece(root))) == {}


def test_a_piece_that_says_it_already_needs_no_update() -> None:
    rows = rows_of(words("abc"), setting("k", to=1), setting("k", to=2))
    for options in ({"piece": Piece("text")}, {"piece": Piece("text"), "span": Span(0, 2)}):
        assert restore_rows(rows, 1, **options).update is None
