"""Reading updates without pycrdt."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from history.crdt import updates
from history.crdt.lib0 import Malformed, var_string, var_uint
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import (
    DELETED_LENGTH_MAX,
    DeletedRange,
    Kind,
    RefusedUpdate,
    Update,
    advance,
    decode_update,
    extent,
    extent_in,
    missing_dependency,
)
from tests.histories import random_history, replay, updates_of


def one_struct(content: bytes, *, kind: int, clock: int = 0) -> bytes:
    """An update of client 1 with one struct in the root `r`."""
    return b"\x01\x01\x01" + var_uint(clock) + bytes([kind]) + b"\x01" + var_string("r") + content + b"\x00"


def test_a_keystroke_is_read_with_its_origins() -> None:
    doc: Doc[Text] = Doc(client_id=3141592653)
    text = doc.get("text", type=Text)
    text.insert(0, "ac")
    [update] = updates_of(doc, lambda: text.insert(1, "b"))
    [struct] = decode_update(update).structs
    assert struct == (3141592653, 2, 1, Kind.STRING, (3141592653, 0), (3141592653, 1), None, None, "b", 1)


def test_lengths_count_utf16_units() -> None:
    doc: Doc[Text] = Doc(client_id=1)
    text = doc.get("text", type=Text)
    [update] = updates_of(doc, lambda: text.insert(0, "a😀é"))
    assert decode_update(update).structs[0].length == 4


def test_a_deletion_is_read() -> None:
    doc: Doc[Text] = Doc(client_id=1)
    text = doc.get("text", type=Text)
    text.insert(0, "abc")
    [update] = updates_of(doc, lambda: text.clear())
    assert decode_update(update) == Update([], [DeletedRange(1, 0, 3)])


@pytest.mark.parametrize("seed", range(12))
def test_an_update_cut_at_any_byte_is_malformed_and_nothing_else(seed: int) -> None:
    for row in random_history(seed, edits=25):
        for stop in range(len(row.update)):
            with pytest.raises(Malformed):
                decode_update(row.update[:stop])
        with pytest.raises(Malformed, match="after the end"):
            decode_update(row.update + b"\x00")


@given(st.binary(max_size=80))
def test_any_bytes_are_an_update_or_malformed(data: bytes) -> None:
    with suppress(Malformed):
        decode_update(data)


@pytest.mark.parametrize("seed", range(8))
def test_an_altered_byte_gives_an_update_or_malformed(seed: int) -> None:
    for row in random_history(seed, edits=12):
        for place in range(len(row.update)):
            for value in (0x00, 0x7F, 0x80, 0xFF):
                with suppress(Malformed):
                    decode_update(row.update[:place] + bytes([value]) + row.update[place + 1 :])


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(one_struct(b"\x01" + var_string("1"), kind=2), id="JSON content"),
        pytest.param(one_struct(var_string("guid") + b"\x76\x00", kind=9), id="subdocument"),
        pytest.param(b"\x01\x01\x01\x00\x0a\x05\x00", id="skip"),
        pytest.param(one_struct(b"\x07\x00", kind=7), id="weak link"),
        pytest.param(one_struct(b"\x05\x00", kind=7), id="XML hook"),
        pytest.param(one_struct(var_uint(DELETED_LENGTH_MAX + 1), kind=1), id="endless deleted run"),
        pytest.param(b"\x01\x01\x01\x00\x00" + var_uint(DELETED_LENGTH_MAX + 1) + b"\x00", id="endless collected run"),
    ],
)
def test_what_yrs_or_the_server_cannot_hold_is_refused(update: bytes) -> None:
    with pytest.raises(RefusedUpdate):
        decode_update(update)


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(one_struct(b"\x01" + b"\x75\x01" * 26_700 + b"\x7e", kind=8), id="values that crash the apply"),
        pytest.param(one_struct(b"\x01" + b"\x76\x01\x00" * 65 + b"\x7e", kind=8), id="objects one too deep"),
        pytest.param(one_struct(var_string("[" * 13_400 + "]" * 13_400), kind=5), id="an embed nested too deep"),
        pytest.param(one_struct(var_string("[" * 66 + "]" * 66), kind=5), id="an embed one too deep"),
        pytest.param(one_struct(var_string("NaN"), kind=5), id="an embed that is no JSON"),
        pytest.param(one_struct(var_string("1e400"), kind=5), id="an embed that is a number without end"),
        pytest.param(one_struct(var_string("[9223372036854775808]"), kind=5), id="an embed beyond 64 bits"),
        pytest.param(
            one_struct(var_string("b") + var_string("-9223372036854775809"), kind=6), id="one below them in a format"
        ),
        pytest.param(one_struct(var_string('"\\ud800"'), kind=5), id="an embed with half an emoji"),
        pytest.param(one_struct(var_string("b") + var_string("{"), kind=6), id="a format that is no JSON"),
        pytest.param(bytes.fromhex("010101ffffffff0fc4030d030e0365cc8100"), id="a clock that aborts yrs"),
        pytest.param(bytes.fromhex("010102ffffffff0f840101016100"), id="a clock that panics yrs"),
        pytest.param(one_struct(var_string("a"), kind=4, clock=2**31 - 1), id="a clock past 31 bits"),
        pytest.param(one_struct(var_string(""), kind=4), id="an empty string"),
        pytest.param(one_struct(b"\x00", kind=8), id="no values"),
        pytest.param(one_struct(b"\x00", kind=1), id="an empty deleted run"),
        pytest.param(one_struct(b"\x02\xff\xfe", kind=4), id="a text that is not UTF-8"),
        pytest.param(one_struct(b"\x03\xed\xa0\x80", kind=4), id="half an emoji as a text"),
        pytest.param(one_struct(b"", kind=11), id="an unknown content"),
        pytest.param(b"\x01\x00\x03\x00\x00", id="a client without structs, on which yrs panics"),
        pytest.param(b"\x01\x01\x01\x00\x80\x01\x00", id="a collected struct with flags"),
        pytest.param(b"\x01\x01\x01\x00\x04\x02\x01r\x01a\x00", id="an unknown kind of parent"),
        pytest.param(b"\x02\x01\x01\x00\x00\x01\x01\x01\x01\x00\x01\x00", id="a client's structs in two places"),
        pytest.param(b"\x00\x02\x01\x01\x00\x01\x01\x01\x01\x01", id="a client's deletes in two places"),
        pytest.param(b"\x00\x01\x01\x01\x00\x00", id="an empty deleted range"),
        pytest.param(b"\x80\x00\x00", id="an integer not in its shortest form"),
        pytest.param(b"\xff" * 1_000_000, id="an endless integer"),
        pytest.param(var_uint(2**28) + b"\x00" * 10, id="a count beyond the input"),
    ],
)
def test_bytes_that_are_no_update_are_malformed(update: bytes) -> None:
    with pytest.raises(Malformed):
        decode_update(update)


def test_the_short_cut_for_keystrokes_refuses_what_the_general_reader_refuses() -> None:
    typed = bytes.fromhex("0101cdcc83da0bd607c4cdcc83da0bd507cdcc83da0bcf04017600")
    assert decode_update(typed).structs[0].content == "v"
    for broken in (typed.replace(b"\x01v", b"\x02v"), typed.replace(b"\xd6\x07", b"\xd6\xff\xff\xff\x0f")):
        with pytest.raises(Malformed):
            decode_update(broken)


@pytest.mark.parametrize("seed", range(10))
def test_how_much_an_update_says_is_told_without_reading_all_of_it(seed: int) -> None:
    typed = bytes.fromhex("0101cdcc83da0bd607c4cdcc83da0bd507cdcc83da0bcf04017600")
    for update in [typed, *(row.update for row in random_history(seed))]:
        assert extent_in(update) == extent(decode_update(update))
    assert extent_in(typed) == (1, 0)
    for broken in (typed.replace(b"\x01v", b"\x02v"), typed.replace(b"\xd6\x07", b"\xd6\xff\xff\xff\x0f")):
        with pytest.raises(Malformed):
            extent_in(broken)


def test_the_short_cut_for_deletions_refuses_what_the_general_reader_refuses() -> None:
    deleted = bytes.fromhex("0001cdcc83da0b01d6070a")
    assert decode_update(deleted).deletes == [(3141592653, 982, 10)]
    empty, behind_all, not_shortest = "00", "ffffffff07", "8a00"
    for length in (empty, behind_all, not_shortest):
        with pytest.raises(Malformed):
            decode_update(deleted[:-1] + bytes.fromhex(length))


@pytest.mark.parametrize("seed", range(20))
def test_rows_in_order_lack_nothing_and_advance_to_pycrdts_state_vector(seed: int) -> None:
    known: dict[int, int] = {}
    rows = random_history(seed)
    for row in rows:
        update = decode_update(row.update)
        assert missing_dependency(update, known) is None
        advance(known, update)
    doc = replay(rows)
    assert known == decode_state_vector(doc.get_state())
    assert missing_dependency(decode_update(doc.get_update()), {}) is None


def test_what_is_missing_is_named() -> None:
    doc: Doc[Text] = Doc(client_id=7)
    text = doc.get("text", type=Text)
    text.insert(0, "abc")
    [behind] = updates_of(doc, lambda: text.insert(3, "d"))
    [deletion] = updates_of(doc, lambda: text.clear())
    assert missing_dependency(decode_update(behind), {}) == (7, 0)
    assert missing_dependency(decode_update(behind), {7: 2}) == (7, 2)
    assert missing_dependency(decode_update(deletion), {7: 3}) == (7, 3)
    assert missing_dependency(decode_update(deletion), {7: 4}) is None


def test_what_only_waits_for_something_else_in_the_update_is_not_what_is_missing() -> None:
    # Client 9 writes behind client 1, whose own text is behind client 5, who is unknown.
    update = b"\x02" + b"\x01\x09\x00\x84\x01\x00\x01b" + b"\x01\x01\x00\x84\x05\x00\x01a" + b"\x00"
    assert missing_dependency(decode_update(update), {}) == (5, 0)
    assert missing_dependency(decode_update(update), {5: 1}) is None


def test_formats_and_embeds_keep_their_json() -> None:
    doc: Doc[Text] = Doc(client_id=1)
    text = doc.get("text", type=Text)
    [update] = updates_of(doc, lambda: text.insert_embed(0, {"image": "é"}, {"bold": True}))
    contents = [struct.content for struct in decode_update(update).structs]
    embeds = [content for content in contents if isinstance(content, str)]
    assert [json.loads(embed) for embed in embeds] == [{"image": "é"}]
    assert ("bold", "true") in contents


def test_clients_that_build_on_each_other_are_looked_at_about_as_often_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the worst order 80 KB of them took a minute when all were gone over again for each."""
    clients = 300
    first = b"\x01" + var_uint(clients) + b"\x00\x04\x01\x01r\x01a"
    rest = [b"\x01" + var_uint(n) + b"\x00\x84" + var_uint(n + 1) + b"\x00\x01a" for n in range(1, clients)]
    update = decode_update(var_uint(clients) + b"".join(rest) + first + b"\x00")
    looks = 0
    needed_by = updates._needed_by

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return needed_by(*args)

    monkeypatch.setattr(updates, "_needed_by", counted)
    assert missing_dependency(update, {}) is None
    assert looks <= 3 * clients
    looks = 0
    assert missing_dependency(Update(update.structs[:-1], []), {}) == (clients, 0)
    assert looks <= 3 * clients


def test_a_deleted_range_that_ends_beyond_31_bits_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_update(b"\x00\x01\x01\x01\x00" + b"\xff\xff\xff\xff\x0f")
