"""What the server writes into a state before anyone else sees it."""

import json
from typing import Any

import pytest
from hypothesis import given

from realtime.protocols.awareness import (
    NUMBER_GROWTH_BYTES_MAX,
    SHOWN_JSON_BYTES_MAX,
    AwarenessEntry,
    decode_awareness_update,
    encode_awareness_update,
)
from realtime.protocols.identities import Identity, bears_stamp
from tests.unit.protocols.builders import states

ADA = Identity("7", "Ada")
NOBODY = Identity("", None)


def stamped(identity: Identity, state: str | dict[str, Any]) -> dict[str, Any]:
    written = identity.stamp(state if isinstance(state, str) else json.dumps(state))
    assert written is not None
    result: dict[str, Any] = json.loads(written)
    return result


def test_an_account_is_named_whatever_its_client_says_and_the_rest_stays() -> None:
    given = {"user": {"name": "Bob", "id": "8", "verified": False, "color": "#ff0000"}, "cursor": {"anchor": 3}}
    assert stamped(ADA, given) == {
        "user": {"name": "Ada", "id": "7", "verified": True, "color": "#ff0000"},
        "cursor": {"anchor": 3},
    }


def test_nobody_keeps_the_name_they_gave_and_never_an_id() -> None:
    given = {"user": {"name": "Guest", "id": "7", "verified": True}}
    assert stamped(NOBODY, given) == {"user": {"name": "Guest", "id": None, "verified": False}}


@pytest.mark.parametrize("user", ["Bob", None, 1, [], {}])
def test_whatever_a_client_shows_as_its_user_becomes_one(user: object) -> None:
    assert stamped(ADA, {"user": user}) == {"user": {"name": "Ada", "id": "7", "verified": True}}
    assert stamped(NOBODY, {"user": user}) == {"user": {"id": None, "verified": False}}


def test_of_two_users_in_one_state_the_one_that_a_browser_reads_is_stamped_and_alone_stays() -> None:
    written = ADA.stamp('{"user":{"name":"Bob"},"us\\u0065r":{"name":"Eve","color":"red"}}')
    assert written == '{"user":{"name":"Ada","color":"red","id":"7","verified":true}}'


@given(states)
def test_a_stamped_state_is_one_that_every_client_may_send_on_and_is_known_for_a_relay(state_json: str) -> None:
    for identity in (ADA, NOBODY):
        written = identity.stamp(state_json)
        assert written is not None
        entry = AwarenessEntry(7, 1, written)
        assert decode_awareness_update(encode_awareness_update([entry])) == (entry,)
        assert bears_stamp(written)
        without = {**json.loads(state_json), "user": None}
        assert {**json.loads(written), "user": None} == without
    assert not bears_stamp(state_json)


def test_a_client_that_shows_half_a_character_is_shown_with_it() -> None:
    assert stamped(ADA, r'{"text":"\ud83d"}')["text"] == "\ud83d"


def test_a_state_that_would_be_too_large_once_stamped_is_not_shown() -> None:
    bare = len(ADA.stamp('{"a":""}') or "")
    assert ADA.stamp(json.dumps({"a": "x" * (SHOWN_JSON_BYTES_MAX - bare)}))
    assert ADA.stamp(json.dumps({"a": "x" * (SHOWN_JSON_BYTES_MAX - bare + 1)})) is None
    assert ADA.stamp(json.dumps({"a": "é" * (SHOWN_JSON_BYTES_MAX // 2)}, ensure_ascii=False)) is None


@pytest.mark.parametrize("number", ["1e20", "100000000000000000000", "1" + "0" * 21, "0.0000001", "0.00001"])
def test_a_number_counts_as_long_as_a_client_may_write_it_when_it_sends_the_state_on(number: str) -> None:
    def of(count: int) -> str:
        return '{"a":[' + ",".join([number] * count) + "]}"

    most = SHOWN_JSON_BYTES_MAX // NUMBER_GROWTH_BYTES_MAX
    assert ADA.stamp(of(most // 2))
    assert ADA.stamp(of(most)) is None


def test_what_looks_like_such_a_number_in_a_text_does_not_count() -> None:
    assert ADA.stamp(json.dumps({"colour": "3e5 " * 2_000, "x": 1e20}))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400])
def test_a_number_that_a_browser_reads_as_infinite_is_not_shown(number: str) -> None:
    assert ADA.stamp(f'{{"a":{number}}}') is None
    assert not bears_stamp(f'{{"user":{{"verified":{number}}}}}')


def test_what_y_prosemirror_writes_into_a_state_that_it_sends_on_still_has_place() -> None:
    bare = len(NOBODY.stamp('{"a":""}') or "")
    shown = stamped(NOBODY, {"a": "x" * (SHOWN_JSON_BYTES_MAX - bare)})
    shown["user"] |= {"color": "#ffa500", "name": f"User: {2**53 - 1}"}
    entry = AwarenessEntry(7, 1, json.dumps(shown))
    assert decode_awareness_update(encode_awareness_update([entry])) == (entry,)
