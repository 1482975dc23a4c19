"""A delta says what changed, exactly, in the units that Quill counts in; what is no delta is refused whole."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.crdt.content import canonical_json
from history.crdt.delta import (
    BadDelta,
    Delete,
    Insert,
    Retain,
    delta_between,
    plain_text,
    read_delta,
    readable_delta,
    steps_between,
)
from history.crdt.updates import utf16_length
from tests.quill import Unit, applied, text_of
from tests.unit.crdt.trees import ROOTS

EMBED = {"insert": {"type": "json", "value": {"image": "a"}}, "attributes": {}}
OTHER_EMBED = {"insert": {"type": "json", "value": {"image": "b"}}, "attributes": {}}
DELTAS = ROOTS.map(lambda roots: roots["text"]["delta"])


def run(text: str, **attributes: Any) -> dict[str, Any]:
    return {"insert": text, "attributes": attributes}


def units(runs: Any) -> list[Unit]:
    return applied([], readable_delta(runs))


@given(DELTAS, DELTAS)
def test_the_delta_between_two_texts_makes_one_of_the_other(have: Any, want: Any) -> None:
    delta = delta_between(have, want)
    assert applied(units(have), delta) == units(want)
    assert have != want or delta == []


@given(st.text("ab😀é\n", max_size=30), st.text("ab😀é\n", max_size=30))
def test_the_steps_between_two_plain_texts_make_one_of_the_other(have: str, want: str) -> None:
    told = [
        {"retain": step.length}
        if isinstance(step, Retain)
        else {"delete": step.length}
        if isinstance(step, Delete)
        else {"insert": step.what}
        for step in steps_between(have, want)
    ]
    assert text_of(applied(units([run(have)] if have else []), told)) == want


@given(DELTAS)
def test_a_place_in_the_plain_text_is_an_offset_of_the_delta(runs: Any) -> None:
    assert utf16_length(plain_text(runs)) == len(units(runs))
    assert text_of(units(runs)) == plain_text(runs)


def test_a_change_of_formats_is_a_retain_that_names_those_that_changed_alone() -> None:
    have = [run("one ", bold=True, color="red"), run("two")]
    want = [run("one ", color="blue"), run("two", bold=True)]
    assert delta_between(have, want) == [
        {"retain": 4, "attributes": {"bold": None, "color": "blue"}},
        {"retain": 3, "attributes": {"bold": True}},
    ]
    assert delta_between([run("x", on=True)], [run("x", on=1)]) == [{"retain": 1, "attributes": {"on": 1}}]


def test_an_embed_that_became_another_is_replaced() -> None:
    assert delta_between([run("a"), EMBED], [run("a"), OTHER_EMBED]) == [
        {"retain": 1},
        {"delete": 1},
        {"insert": {"image": "b"}},
    ]
    assert delta_between([EMBED, run("a")], [run("\ufffca")]) == [{"delete": 1}, {"insert": "\ufffc"}]


def test_two_texts_that_have_nothing_in_common_are_compared_in_time() -> None:
    have, want = ("".join(chr(97 + (place * step) % 23) for place in range(60_000)) for step in (7, 11))
    assert text_of(applied(units([run(have)]), delta_between([run(have)], [run(want)]))) == want


def test_a_delta_is_read_as_quill_writes_it() -> None:
    ops: list[Any] = [
        {"retain": 3},
        {"retain": 1, "attributes": {"bold": None}},
        {"insert": "x", "attributes": {"bold": True, "color": None}},
        {"insert": {"image": "u"}},
        {"delete": 2},
    ]
    steps = [
        Retain(3, {}),
        Retain(1, {"bold": None}),
        Insert("x", {"bold": True}),
        Insert({"image": "u"}, {}),
        Delete(2),
    ]
    assert read_delta(ops, steps_max=5) == steps
    assert read_delta({"ops": ops}, steps_max=5) == steps


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"ops": 1},
        [1],
        [{}],
        [{"retain": 1, "delete": 1}],
        [{"retain": 0}],
        [{"retain": -1}],
        [{"retain": True}],
        [{"retain": 1.5}],
        [{"retain": 2**31}],
        [{"delete": "1"}],
        [{"insert": ""}],
        [{"insert": {}}],
        [{"insert": ["x"]}],
        [{"insert": 1}],
        [{"insert": "\ud83d"}],
        [{"insert": "x", "attributes": ["bold"]}],
        [{"insert": "x", "attributes": {"\udc00": 1}}],
        [{"insert": "x", "attributes": {"n": float("nan")}}],
        [{"insert": "x"}] * 4,
    ],
)
def test_what_is_no_delta_is_refused(value: Any) -> None:
    with pytest.raises(BadDelta):
        read_delta(value, steps_max=3)


def test_values_that_are_nested_without_end_are_refused() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = {"a": deep}
    with pytest.raises(BadDelta):
        read_delta([{"insert": {"deep": deep}}], steps_max=1)


def test_a_number_that_javascript_cannot_count_to_becomes_a_float() -> None:
    (step,) = read_delta([{"insert": {"n": 2**70}}], steps_max=1)
    assert isinstance(step, Insert)
    assert canonical_json(step.what) == canonical_json({"n": float(2**70)})
    with pytest.raises(BadDelta):
        read_delta([{"insert": {"n": 10**400}}], steps_max=1)
