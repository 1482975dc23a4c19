"""A document's content as JSON, for readers and for comparison."""

import json
from typing import Any, cast

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt.content import canonical, content_of
from history.crdt.lib0 import var_uint
from history.crdt.roots import root_kinds
from history.crdt.updates import Kind, decode_update
from tests.histories import random_history, replay, with_roots


def test_a_text_reads_as_a_string_and_as_a_delta() -> None:
    doc: Doc[Text] = Doc()
    text = doc.get("r", type=Text)
    text.insert(0, "plain ", {})
    text.insert(6, "bold", {"bold": True})
    text.insert_embed(10, {"image": "u.png"}, {})
    assert content_of(doc)["r"] == {
        "type": "text",
        "text": "plain bold",
        "delta": [
            {"insert": "plain "},
            {"insert": "bold", "attributes": {"bold": True}},
            {"insert": {"image": "u.png"}},
        ],
    }


def test_maps_and_arrays_read_as_json_with_integers_and_bytes() -> None:
    doc: Doc[Any] = Doc({"m": Map({"n": 1, "list": Array([1.5, {"k": [2]}, b"\x00\x01"]), "text": Text("é😀")})})
    value: Any = content_of(doc)["m"]["value"]
    assert value == {"n": 1, "list": [1.5, {"k": [2]}, {"$bytes": "AAE="}], "text": "é😀"}
    assert json.dumps(value["n"]) == "1"


def test_numbers_that_json_lacks_are_written_as_objects() -> None:
    doc: Doc[Any] = Doc({"a": Array([float("nan"), float("-inf")])})
    assert content_of(doc)["a"]["value"] == [{"$number": "nan"}, {"$number": "-inf"}]


def test_xml_reads_as_nodes_and_as_lines() -> None:
    items = [XmlElement("item", {}, [XmlElement("paragraph", {}, [XmlText(word)])]) for word in ("one", "two")]
    nodes = [XmlElement("heading", {"level": "1"}, [XmlText("Title")]), XmlElement("list", {}, items), XmlElement("hr")]
    doc: Doc[Any] = Doc({"x": XmlFragment(nodes)})
    content: Any = content_of(doc)["x"]
    assert content["children"][0] == {
        "type": "element",
        "tag": "heading",
        "attributes": {"level": "1"},
        "children": [{"type": "text", "delta": [{"insert": "Title"}], "attributes": {}}],
    }
    assert content["text"] == "Title\n    one\n    two\n[hr]"


@pytest.mark.parametrize("seed", range(30))
def test_equal_documents_have_equal_canonical_content_and_it_is_json(seed: int) -> None:
    rows = random_history(seed)
    doc, keeping = replay(rows), replay(rows, skip_gc=True)
    loaded = replay([doc.get_update()])
    assert canonical(doc) == canonical(keeping) == canonical(loaded) == canonical(with_roots(loaded))
    # Where everything in a root was collected, its kind is known from a state that keeps it.
    kinds = root_kinds(keeping.get_update())
    assert content_of(doc, kinds) == json.loads(json.dumps(content_of(keeping)))


def test_reading_changes_nothing_in_the_document() -> None:
    doc = replay(random_history(2))
    emitted: list[bytes] = []
    before, subscription = doc.get_update(), doc.observe(lambda event: emitted.append(event.update))
    content_of(doc)
    doc.unobserve(subscription)
    assert doc.get_update() == before
    assert emitted == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Map({"a": 1}), Map({"a": True})),
        (Map({"a": {}}), Map({"a": Map({})})),
        (Array(["a"]), Array([Text("a")])),
        (Array([[1]]), Array([Array([1])])),
        (Text("ab"), Text("ba")),
        (XmlFragment([XmlText("a")]), XmlFragment([XmlElement("a")])),
        (XmlFragment([XmlElement("a", {"k": "1"})]), XmlFragment([XmlElement("a", {"k": "2"})])),
    ],
)
def test_different_content_differs(one: Any, other: Any) -> None:
    docs: list[Doc[Any]] = [Doc({"r": one}), Doc({"r": other})]
    assert canonical(docs[0]) != canonical(docs[1])


def test_how_a_text_came_about_does_not_count() -> None:
    doc: Doc[Text] = Doc()
    text = doc.get("r", type=Text)
    for place, letter in enumerate("abc"):
        text.insert(place, letter)
    text.insert(3, "x")
    del text[3:4]
    doc.get("empty", type=Text).insert(0, "gone")
    doc.get("empty", type=Text).clear()
    at_once: Doc[Any] = Doc({"r": Text("abc")})
    assert canonical(doc) == canonical(at_once)


def test_a_shared_type_as_an_attribute_hides_nothing_else() -> None:
    doc: Doc[Any] = Doc({"x": XmlFragment([XmlElement("p", {"a": "1"}, [XmlText("words")])])}, client_id=1)
    element = next(s for s in decode_update(doc.get_update()).structs if s.kind is Kind.TYPE)
    parent = var_uint(element.client) + var_uint(element.clock)
    doc.apply_update(b"\x01\x01\x02\x00\x27\x00" + parent + b"\x01b\x06\x00")
    [paragraph] = cast(Any, content_of(doc)["x"]["children"])
    assert paragraph["attributes"] == {"a": "1", "b": {"$unreadable": "XmlText"}}
    assert content_of(doc)["x"]["text"] == "words"
