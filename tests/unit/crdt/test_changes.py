"""A difference says all that changed between two moments: put on the content before, it gives the content after."""

import gc
import json
import os
import random
import weakref
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import changes as changes_module
from history.crdt.changes import Changes, applied, changes_by, compared
from history.crdt.content import canonical_json, root_trees
from history.crdt.roots import RootKind, root_kinds
from history.crdt.wording import WORDS_LENGTH_MAX, Counts, counts_of, in_words
from tests.builders import typed
from tests.histories import Row, random_history, replay, updates_of, with_roots
from tests.unit.crdt.trees import EMPTY_ROOTS, ROOTS

BATCH = 20
BATCHES = int(os.environ.get("CHANGES_HISTORIES", "100")) // BATCH
"""CHANGES_HISTORIES=1000 compares moments of so many."""


def update_between(rows: list[Row], first: int, last: int) -> tuple[Doc[Any], bytes]:
    before, after = replay(rows[:first]), replay(rows[:last])
    return before, after.get_update(before.get_state())


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_difference_put_on_the_content_before_gives_the_content_after(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rows = random_history(seed, edits=60)
        first, last = sorted(random.Random(seed).sample(range(len(rows) + 1), 2))
        before, update = update_between(rows, first, last)
        kinds = root_kinds(before.get_update(), update)
        content_before, content_after = root_trees(before, kinds), root_trees(replay(rows[:last]), kinds)
        changed = changes_by(before, update, kinds=kinds)
        assert canonical_json(applied(content_before, changed)) == canonical_json(content_after), f"history {seed}"
        assert json.loads(json.dumps(changed)) == changed
        by_content = compared(content_before, content_after)
        assert canonical_json(applied(content_before, by_content)) == canonical_json(content_after), f"history {seed}"


def with_key(value: Any) -> dict[str, Any]:
    return {**EMPTY_ROOTS, "map": {"type": "map", "entries": {"k": value}}}


@settings(max_examples=50)  # of many parts each
@given(ROOTS, ROOTS)
@example(with_key(1), with_key(True))  # which are equal to Python
def test_any_two_contents_are_told_apart_by_content(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = compared(before, after)
    assert canonical_json(applied(before, changed)) == canonical_json(after)
    assert canonical_json(applied(after, compared(after, before))) == canonical_json(before)
    assert compared(after, after) == {}
    assert len(in_words(changed)) <= WORDS_LENGTH_MAX


def edited(*edits: Any) -> Changes:
    """What the last edit changed; all run on one document of every kind of root."""
    doc: Doc[Any] = Doc(client_id=1)
    with_roots(doc)
    rows = [update for edit in edits for update in updates_of(doc, partial(edit, doc))]
    before, update = update_between([Row(row, 1) for row in rows], len(rows) - 1, len(rows))
    return changes_by(before, update, kinds=root_kinds(before.get_update(), update))


def text_of(doc: Doc[Any]) -> Text:
    text: Text = doc.get("text", type=Text)
    return text


def test_text_is_told_in_utf16_units_with_what_went() -> None:
    def type_over(doc: Doc[Any]) -> None:
        with doc.transaction():
            del text_of(doc)[len("a😀".encode()) : len("a😀déf".encode())]
            text_of(doc).insert(len("a😀".encode()), "x", {"bold": True})

    changed = edited(lambda doc: text_of(doc).insert(0, "a😀déf end", {}), type_over)
    assert changed == {
        "text": [
            {
                "path": [],
                "type": "text",
                "spans": [
                    {"retain": 3},
                    {"delete": 3, "was": [{"insert": "déf", "attributes": {}}]},
                    {"insert": "x", "attributes": {"bold": True}},
                ],
            }
        ]
    }
    assert in_words(changed) == "inserted “x” · deleted “déf”"


def test_a_format_is_told_with_what_it_was() -> None:
    changed = edited(
        lambda doc: text_of(doc).insert(0, "one two", {"color": "red"}),
        lambda doc: text_of(doc).format(4, 7, {"bold": True, "color": None}),
    )
    [node] = changed["text"]
    formatted = {"retain": 3, "attributes": {"bold": True, "color": None}, "was": {"bold": None, "color": "red"}}
    assert node["spans"] == [{"retain": 4}, formatted]
    assert counts_of(changed).formatted_characters == 3
    assert in_words(changed) == "formatted 3 characters bold, 3 characters not color"


def test_xml_is_told_by_node_where_it_stands_afterwards() -> None:
    def append_two(doc: Doc[Any]) -> None:
        children = doc.get("xml", type=XmlFragment).children
        children.append(XmlElement("p", {"level": "1"}, [XmlText("one")]))
        children.append(XmlElement("p", {}, [XmlText("two")]))

    def rework(doc: Doc[Any]) -> None:
        children = doc.get("xml", type=XmlFragment).children
        with doc.transaction():
            children[0].attributes["level"] = "2"
            children[1].children[0].insert(3, "!", {})
            children.insert(0, XmlElement("h", {}, [XmlText("new words")]))

    def both(doc: Doc[Any]) -> None:
        with doc.transaction():
            append_two(doc)

    changed = edited(both, rework)
    head = {
        "type": "element",
        "tag": "h",
        "attributes": {},
        "children": [
            {"type": "xmltext", "delta": [{"insert": "new words", "attributes": {}}], "attributes": {}},
        ],
    }
    assert changed["xml"][0] == {"path": [], "type": "fragment", "spans": [{"insert": [head]}]}
    assert sorted(changed["xml"][1:], key=lambda node: len(node["path"])) == [
        {"path": [1], "type": "element", "keys": {"level": {"old": "1", "new": "2"}}},
        {"path": [2, 0], "type": "xmltext", "spans": [{"retain": 3}, {"insert": "!", "attributes": {}}]},
    ]
    assert in_words(changed) == "inserted 3 words: “new words !” · added 1 h · set level"


def test_maps_and_arrays_are_told_by_path_with_old_and_new_values() -> None:
    def begin(doc: Doc[Any]) -> None:
        doc.get("map", type=Map)["title"] = "old"
        doc.get("array", type=Array).extend([1, Map({"k": 1, "gone": True}), 3])

    def rework(doc: Doc[Any]) -> None:
        with doc.transaction():
            doc.get("map", type=Map)["title"] = "new"
            array = doc.get("array", type=Array)
            array[1]["k"] = 2
            del array[1]["gone"]
            del array[0]

    def both(doc: Doc[Any]) -> None:
        with doc.transaction():
            begin(doc)

    changed = edited(both, rework)
    assert changed["map"] == [{"path": [], "type": "map", "keys": {"title": {"old": "old", "new": "new"}}}]
    assert changed["array"] == [
        {"path": [], "type": "array", "spans": [{"delete": 1, "was": [1]}]},
        {"path": [0], "type": "map", "keys": {"gone": {"old": True}, "k": {"old": 1, "new": 2}}},
    ]
    assert counts_of(changed) == Counts(set_keys=2, deleted_keys=1, deleted_items=1)
    assert in_words(changed) == "removed 1 item · set k, title · removed gone"


def test_what_came_and_went_in_between_is_not_told() -> None:
    rows = typed(["keep", "never"])
    doc = replay(rows)
    rows += updates_of(doc, lambda: text_of(doc).__delitem__(slice(4, 9)))
    before, update = update_between([Row(row, 1) for row in rows], 1, 3)
    assert changes_by(before, update, kinds={"text": RootKind.TEXT}) == {}
    assert in_words({}) == "no change"


@pytest.mark.parametrize("seed", range(20))
def test_a_difference_whose_events_lie_is_told_by_content(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where observers fail, or tell what is not so, the content still decides."""
    events_of = changes_module._events_of

    def lying(doc: Doc[Any], update: bytes, kinds: Any) -> Any:
        seen = events_of(doc, update, kinds)
        chosen = random.Random(seed)
        return {
            name: [
                event._replace(delta=[{"retain": chosen.randrange(9)}, *event.delta], path=event.path * 2)
                for event in events
            ]
            for name, events in seen.items()
            if chosen.random() < 0.8
        }

    monkeypatch.setattr(changes_module, "_events_of", lying)
    rows = random_history(seed, edits=40)
    before, update = update_between(rows, 20, len(rows))
    kinds = root_kinds(before.get_update(), update)
    content_before, content_after = root_trees(before, kinds), root_trees(replay(rows), kinds)
    changed = changes_by(before, update, kinds=kinds)
    assert canonical_json(applied(content_before, changed)) == canonical_json(content_after)


def test_a_document_that_was_compared_can_be_freed() -> None:
    before, update = update_between(random_history(3), 10, 30)
    changes_by(before, update, kinds=root_kinds(before.get_update(), update))
    gone = weakref.ref(before)
    del before
    gc.collect()
    assert gone() is None


def test_a_document_is_watched_for_one_update_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A playback tells of one document again and again."""
    told: list[Any] = []
    event = changes_module._Event

    def noting(*fields: Any) -> Any:
        told.append(fields)
        return event(*fields)

    monkeypatch.setattr(changes_module, "_Event", noting)
    doc: Doc[Any] = Doc()
    for row in typed("abc"):
        changes_by(doc, row, kinds={"text": RootKind.TEXT})
    assert len(told) == 3


def test_words_are_bounded_whatever_changed() -> None:
    def fill(doc: Doc[Any]) -> None:
        with doc.transaction():
            text_of(doc).insert(0, "word " * 1000, {"f" * 500: True})
            for number in range(50):
                doc.get("map", type=Map)[f"{number}" * 200] = number

    words = in_words(edited(lambda doc: doc.get("map", type=Map).update({"a": 1}), fill))
    assert len(words) <= WORDS_LENGTH_MAX
    assert words.startswith("inserted 1000 words: “word word")
    assert "47 more" in words


def test_a_difference_that_does_not_fit_is_refused() -> None:
    changed: Changes = {"text": [{"path": [], "type": "text", "spans": [{"delete": 3, "was": []}]}]}
    with pytest.raises(ValueError, match="does not fit"):
        applied({"text": {"type": "text", "delta": [{"insert": "ab", "attributes": {}}]}}, changed)
