"""What a client of a JSON room says is read strictly, and refused in words that it can show."""

import json
from typing import Any

import pytest

from history.crdt.delta import Insert
from realtime.message_errors import MessageRefused
from realtime.protocols.collab import (
    DEFAULT_COLOR,
    BadMessage,
    CursorUpdate,
    DocumentEdit,
    encode,
    read_cursor,
    read_edit,
    read_message,
)


@pytest.mark.parametrize(
    "text", ["", "{", "1", "[]", "{}", '{"type": 1}', '{"type": "x", "n": NaN}', "[" * 100_000, '{"a":' * 100_000]
)
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        read_message(text)
    assert refused.value.code == "malformed"


def test_a_cursor_has_a_color_without_naming_one() -> None:
    assert read_cursor({"position": {"line": 3}}) == CursorUpdate({"line": 3}, DEFAULT_COLOR)
    assert read_cursor({"position": 7, "color": "red"}) == CursorUpdate(7, "red")


@pytest.mark.parametrize(
    "said",
    [
        {"position": 1, "color": 7},
        {"position": 1, "color": ""},
        {"position": 1, "color": "x" * 65},
        {"position": 1, "color": "\ud83d"},
        {"position": "x" * 5000},
        {"position": "\udc00"},
    ],
)
def test_a_cursor_that_cannot_be_shown_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read_cursor(said)


def test_an_edit_is_a_delta_on_a_base_or_whole_content() -> None:
    delta = {"id": "e1", "base": 3, "delta": [{"insert": "x"}]}
    assert read_edit(delta) == DocumentEdit("e1", 3, [Insert("x", {})], None)
    assert read_edit({"content": "text"}) == DocumentEdit(None, None, None, "text")
    assert read_edit({"content": None, "base": 0}) == DocumentEdit(None, 0, None, None)
    assert read_edit({"id": 7, "content": ""}).id == 7


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"delta": [{"insert": "x"}]},
        {"base": 1, "delta": [{"insert": "x"}], "content": "x"},
        {"base": -1, "content": ""},
        {"base": True, "content": ""},
        {"base": "1", "content": ""},
        {"base": 1, "delta": [{"insert": ""}]},
        {"base": 1, "content": "\ud83d"},
    ],
)
def test_an_edit_that_is_none_is_refused_by_its_name(said: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as refused:
        read_edit({"id": "mine", **said})
    assert refused.value.edit_id == "mine"


@pytest.mark.parametrize("edit_id", ["", "x" * 129, "a\nb", "a\x00", "\ud83d", 1.5, True, 10**200, [], {}])
def test_a_name_of_an_edit_that_the_log_cannot_hold_is_refused(edit_id: Any) -> None:
    with pytest.raises(BadMessage) as refused:
        read_edit({"id": edit_id, "content": ""})
    assert refused.value.edit_id is None


def test_what_is_sent_is_json_in_utf_8() -> None:
    said = {"type": "user_count", "user_count": 2, "é": "😀"}
    assert json.loads(encode(said)) == said
    assert "😀".encode() in encode(said)
