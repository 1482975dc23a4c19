"""The awareness codec: what one client may send is exactly what every client may send on."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.crdt.lib0 import Malformed, var_string, var_uint
from realtime.protocols.awareness import (
    AWARENESS_CLOCK_MAX,
    AWARENESS_ENTRIES_MAX,
    STATE_DEPTH_MAX,
    STATE_JSON_BYTES_MAX,
    USER_BYTES_MAX,
    AwarenessEntry,
    Claim,
    MalformedEntry,
    decode_awareness_update,
    decode_claims,
    encode_awareness_update,
    encode_claims,
)
from tests.unit.protocols.builders import awareness_entries, awareness_entry


def with_state(state_json: str) -> bytes:
    return encode_awareness_update([AwarenessEntry(7, 1, state_json)])


@given(awareness_entries)
def test_entries_are_read_back_as_they_were_written(entries: tuple[AwarenessEntry, ...]) -> None:
    assert decode_awareness_update(encode_awareness_update(entries)) == entries


@given(awareness_entries)
def test_an_update_cut_short_or_followed_by_a_byte_is_malformed(entries: tuple[AwarenessEntry, ...]) -> None:
    encoded = encode_awareness_update(entries)
    for damaged in [*(encoded[:length] for length in range(len(encoded))), encoded + b"\0"]:
        with pytest.raises(Malformed):
            decode_awareness_update(damaged)


@pytest.mark.parametrize(
    "state_json",
    [
        pytest.param("[" * 100_000, id="arrays that recurse without end"),
        pytest.param('{"a":' * 3_000, id="objects that recurse without end"),
        pytest.param('{"a":' * 1_000 + "1" + "}" * 1_000, id="deep and otherwise valid"),
        pytest.param('{"a":"\\"' + "[" * 5_000, id="a string that never ends"),
        pytest.param('"' + '\\"' * 7_000 + "[" * 100, id="a string of quotes that never ends"),
        pytest.param("[]", id="an array"),
        pytest.param("1", id="a number"),
        pytest.param('"text"', id="a string"),
        pytest.param("true", id="a boolean"),
        pytest.param(" null", id="null in a longer form"),
        pytest.param("", id="nothing"),
        pytest.param("{", id="an object cut short"),
        pytest.param("{}{}", id="two objects"),
        pytest.param('{"a":NaN}', id="NaN, which a browser cannot read"),
        pytest.param('{"a":-Infinity}', id="Infinity, which a browser cannot read"),
        pytest.param('{"a":' + "9" * 5_000 + "}", id="an integer of 5,000 digits"),
        pytest.param('{"a":"' + "x" * STATE_JSON_BYTES_MAX + '"}', id="larger than the limit"),
    ],
)
def test_a_state_that_is_not_a_small_json_object_is_malformed_and_its_entry_is_named(state_json: str) -> None:
    good = AwarenessEntry(1, 1, "{}")
    with pytest.raises(MalformedEntry) as refusal:
        decode_awareness_update(encode_awareness_update([good, AwarenessEntry(7, 1, state_json)]))
    assert refusal.value.index == 1


def test_a_state_may_be_nested_up_to_the_limit() -> None:
    def nested(depth: int) -> str:
        return '{"a":' * depth + "1" + "}" * depth

    decode_awareness_update(with_state(nested(STATE_DEPTH_MAX)))
    with pytest.raises(MalformedEntry):
        decode_awareness_update(with_state(nested(STATE_DEPTH_MAX + 1)))


def test_brackets_in_strings_and_side_by_side_do_not_count_as_nesting() -> None:
    state = {"text": '[{"\\' * 100, "list": [[] for _ in range(500)], 'quote" [{': 1}
    decode_awareness_update(with_state(json.dumps(state)))


def test_only_a_clock_that_no_browser_can_count_is_malformed() -> None:
    """Where an innocent client was led by others it goes on from: it must not be closed for that."""
    for clock in (AWARENESS_CLOCK_MAX, AWARENESS_CLOCK_MAX + 1, 2**53 - 1):
        entry = AwarenessEntry(7, clock, "{}")
        assert decode_awareness_update(encode_awareness_update([entry])) == (entry,)
    for clock in (2**53, 2**60, 2**80):
        with pytest.raises(Malformed):
            decode_awareness_update(encode_awareness_update([AwarenessEntry(7, clock, "{}")]))


def test_200_000_clients_in_one_message_are_refused_before_any_is_read() -> None:
    entry = var_uint(7) + var_uint(1) + var_string("{}")
    hostile = var_uint(200_000) + entry * 200_000
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode_awareness_update(hostile)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


def test_a_full_rooms_entries_fit_one_message() -> None:
    entries = tuple(AwarenessEntry(client_id, 1, "{}") for client_id in range(AWARENESS_ENTRIES_MAX))
    assert decode_awareness_update(encode_awareness_update(entries)) == entries


def test_a_client_that_is_named_twice_is_malformed() -> None:
    twice = [AwarenessEntry(7, 1, "{}"), AwarenessEntry(7, 2, "{}")]
    with pytest.raises(Malformed):
        decode_awareness_update(encode_awareness_update(twice))


def test_a_state_that_is_not_utf_8_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_awareness_update(b"\x01\x07\x01\x03{\xff}")


def test_a_state_that_is_too_large_is_refused_by_its_size_before_it_is_looked_at() -> None:
    with pytest.raises(MalformedEntry, match="larger"):
        decode_awareness_update(with_state("[" * (STATE_JSON_BYTES_MAX + 1)))


@given(st.lists(st.builds(Claim, st.text(max_size=5), awareness_entry), max_size=2).map(tuple))
@settings(deadline=None)
def test_claims_are_read_back_as_they_were_written_and_none_that_is_cut(claims: tuple[Claim, ...]) -> None:
    encoded = encode_claims(claims)
    assert decode_claims(encoded) == claims
    for damaged in [*(encoded[:length] for length in range(len(encoded))), encoded + b"\0"]:
        with pytest.raises(Malformed):
            decode_claims(damaged)


def test_one_message_holds_no_more_claims_than_a_room_shows_and_no_long_users() -> None:
    claim = Claim("7", AwarenessEntry(1, 1, "{}"))
    for claims in ([claim] * (AWARENESS_ENTRIES_MAX + 1), [Claim("u" * (USER_BYTES_MAX + 1), claim.entry)]):
        with pytest.raises(Malformed):
            decode_claims(encode_claims(claims))
