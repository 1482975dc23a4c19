"""The kind of a root, told from structs alone."""

from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import roots
from history.crdt.lib0 import Malformed
from history.crdt.roots import RootKind, root_kinds
from tests.histories import random_history, replay


def kind_of(root: Any) -> RootKind:
    doc: Doc[Any] = Doc({"r": root})
    return root_kinds(doc.get_update())["r"]


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        (Text("a"), RootKind.TEXT),
        (Array([1]), RootKind.ARRAY),
        (Array([b"\x00"]), RootKind.ARRAY),
        (Array([Map({"a": 1}), Text("b")]), RootKind.ARRAY),
        (Map({"a": 1}), RootKind.MAP),
        (Map({"a": Text("b")}), RootKind.MAP),
        (XmlFragment([XmlElement("p")]), RootKind.XML),
        (XmlFragment([XmlText("a")]), RootKind.XML),
    ],
)
def test_content_tells_the_kind(root: Any, kind: RootKind) -> None:
    assert kind_of(root) is kind


@pytest.mark.parametrize("seed", range(25))
def test_every_root_of_a_random_history_is_told_right(seed: int) -> None:
    kinds = root_kinds(replay(random_history(seed), skip_gc=True).get_update())
    assert {name: kind.value for name, kind in kinds.items()} == {name: name for name in kinds}


@pytest.mark.parametrize("seed", range(40))
def test_the_first_structs_tell_what_the_guard_tells(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_history(seed, edits=60)
    before, after = replay(rows[:20]), replay(rows)
    updates = before.get_update(), after.get_update(before.get_state())
    told = root_kinds(*updates)
    monkeypatch.setattr(roots, "_seen_at_a_glance", lambda updates: None)
    assert root_kinds(*updates) == told


def test_a_state_that_is_cut_short_is_refused() -> None:
    """But for its delete set, which tells nothing of kinds."""
    doc: Doc[Any] = Doc(client_id=1)
    text = doc.get("r", type=Text)
    text.insert(0, "word")
    text.insert(0, "more")
    state = doc.get_update()
    for length in range(len(state) - 1):
        with pytest.raises(Malformed):
            root_kinds(state[:length])


def test_a_text_whose_first_character_is_gone_is_told_without_the_guard() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    text = doc.get("r", type=Text)
    text.insert(0, "word")
    del text[0:1]
    assert roots._seen_at_a_glance((doc.get_update(),)) == {"r": RootKind.TEXT}


@pytest.mark.parametrize("is_inner", [False, True])
def test_text_that_may_stand_elsewhere_tells_nothing_of_a_root_whose_first_content_is_gone(is_inner: bool) -> None:
    doc: Doc[Any] = Doc(client_id=1)
    array = doc.get("r", type=Array)
    array.extend([[1], 2])
    if is_inner:
        array.append(Text())
    text: Any = array[2] if is_inner else doc.get("o", type=Text)
    text.insert(0, "ac")
    text.insert(1, "b")
    del array[0]
    assert roots._seen_at_a_glance((doc.get_update(),)) is None
    assert root_kinds(doc.get_update())["r"] is RootKind.ARRAY


def test_updates_that_do_not_agree_are_left_to_the_guard() -> None:
    doc, other = Doc[Any](client_id=1), Doc[Any](client_id=2)
    doc.get("r", type=Text).insert(0, "word")
    other.get("r", type=Array).append(1)
    assert roots._seen_at_a_glance((doc.get_update(), other.get_update())) is None


def test_what_was_collected_is_told_from_earlier_updates() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    array = doc.get("r", type=Array)
    array.extend([1, 2])
    before = doc.get_update()
    array.clear()
    assert root_kinds(doc.get_update()) == {"r": RootKind.TEXT}
    assert root_kinds(before, doc.get_update()) == {"r": RootKind.ARRAY}


def test_a_map_whose_keys_were_all_deleted_is_still_a_map() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    mapping = doc.get("r", type=Map)
    mapping["a"] = 1
    del mapping["a"]
    assert root_kinds(doc.get_update()) == {"r": RootKind.MAP}


def test_an_empty_document_has_no_roots() -> None:
    assert root_kinds(Doc().get_update()) == {}
