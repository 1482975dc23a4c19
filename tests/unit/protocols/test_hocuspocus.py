"""The Hocuspocus wire: frames recorded from the real providers, round trips, and bytes that must be refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.crdt.lib0 import Malformed, Reader, var_string, var_uint
from history.crdt.state_vectors import EMPTY_STATE_VECTOR
from realtime.protocols import hocuspocus
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import Y_WEBSOCKET
from realtime.protocols.hocuspocus import (
    PING,
    PONG,
    ClientMessage,
    Close,
    HocuspocusWire,
    MessageType,
    Token,
    decode_message_of,
    document_name,
    holds_one_update,
    read_head,
)
from realtime.protocols.messages import (
    Admitted,
    Awareness,
    PermissionDenied,
    QueryAwareness,
    Saved,
    Stateless,
    SyncStep1,
    SyncStep2,
    Update,
)
from tests.unit.protocols import golden_hocuspocus as golden
from tests.unit.protocols.builders import awareness_entries, encode_state_vector, state_vectors

ZOE = '{"user":{"name":"Zoë","color":"#30bced"}}'
CLIENT = 4294967295

SAID: dict[str, list[ClientMessage]] = {
    "SyncStep2 of nothing": [SyncStep2(b"\0\0")],
    "Update": [Update(golden.UPDATE)],
    "SyncStep2": [SyncStep2(golden.UPDATE)],
    "awareness": [Awareness((AwarenessEntry(CLIENT, 1, ZOE),))],
    "awareness when asked": [Awareness((AwarenessEntry(CLIENT, 1, ZOE),))],
    "Stateless": [Stateless('{"jetzt":"Grüße"}')],
    "SyncStep1 when forced": [SyncStep1(encode_state_vector({CLIENT: 8}))],
}
BEGINNING: list[ClientMessage] = [SyncStep1(EMPTY_STATE_VECTOR), Awareness((AwarenessEntry(CLIENT, 0, "{}"),))]
END: list[ClientMessage] = [Awareness((AwarenessEntry(CLIENT, 2, None),)), Close()]
TOKENS = {
    "2": Token("a ticket"),
    "3": Token("a ticket"),
    "4": Token("a ticket", "4.8.0"),
    "4, of a session": Token("a ticket", "4.8.0"),
    "4, without a token": Token("", "4.8.0"),
}
ADDRESSES = {"4, of a session": golden.SESSION_ADDRESS}

RECORDED = [
    frame for said in golden.PROVIDERS.values() for frames in said.values() for frame in frames if frame != PONG
]


def expected_of(provider: str, what: str) -> list[ClientMessage]:
    token = TOKENS.get(provider)
    match what:
        case "SyncStep1, awareness":
            return BEGINNING
        case "Token, SyncStep1, awareness" if token is not None:
            return [token, *BEGINNING]
        case "Token when asked" if token is not None:
            return [token]
        case "awareness, Close" if provider.startswith("2"):
            return [*END, Awareness((AwarenessEntry(CLIENT, 3, None),))]  # once more behind its Close
        case "awareness, Close":
            return END
        case _:
            return SAID[what]


def encode(address: str, message: ClientMessage) -> bytes:
    wire = HocuspocusWire(address)
    match message:
        case SyncStep1() | SyncStep2() | Update() | Awareness() | Stateless():
            encoded = wire.encode(message)
            assert encoded is not None
            return encoded
        case QueryAwareness():
            return var_string(address) + bytes((MessageType.QUERY_AWARENESS,))
        case Token(token, version):
            said = var_string(token) + (b"" if version is None else var_string(version))
            return var_string(address) + b"\x02\x00" + said
        case Close():
            return var_string(address) + bytes((MessageType.CLOSE,))


addresses = st.text(max_size=40)
tokens = st.builds(Token, st.text(max_size=50), st.none() | st.text(max_size=10))
messages: st.SearchStrategy[ClientMessage] = st.one_of(
    st.builds(SyncStep1, state_vectors.map(encode_state_vector)),
    st.builds(SyncStep2, st.binary(max_size=300)),
    st.builds(Update, st.binary(max_size=300)),
    st.builds(Awareness, awareness_entries),
    st.just(QueryAwareness()),
    st.just(Close()),
    st.builds(Stateless, st.text(max_size=100)),
    tokens,
)


@pytest.mark.parametrize("provider", golden.PROVIDERS)
def test_all_that_a_real_provider_writes_is_read_and_written_byte_for_byte(provider: str) -> None:
    address = ADDRESSES.get(provider, golden.ADDRESS)
    for what, frames in golden.PROVIDERS[provider].items():
        if what == "Pong":
            assert frames == [PONG]
            continue
        assert [read_head(frame).address for frame in frames] == [address] * len(frames)
        assert [decode_message_of(frame) for frame in frames] == expected_of(provider, what)
        assert [encode(address, message) for message in expected_of(provider, what)] == frames
    assert document_name(address) == golden.ADDRESS


def test_what_the_server_says_is_written_as_hocuspocus_own_server_writes_it() -> None:
    wire = HocuspocusWire(golden.ADDRESS)
    assert wire.encode(Admitted(may_write=True)) == golden.READ_WRITE
    assert wire.encode(Admitted(may_write=False)) == golden.READONLY
    assert wire.encode(Saved(applied=True)) == golden.SAVED
    assert wire.encode(Saved(applied=False)) == golden.NOT_SAVED
    assert wire.encode(Stateless("Grüße")) == golden.STATELESS
    assert wire.encode(SyncStep1(encode_state_vector({CLIENT: 8}))) == golden.SYNC_STEP_1
    assert wire.encode(Update(golden.UPDATE)) == golden.SYNC_UPDATE
    assert wire.encode_denied("größer") == golden.DENIED
    assert wire.encode_token_wanted() == golden.TOKEN_WANTED
    assert wire.encode_closed("größer") == golden.CLOSED


def test_an_edit_that_is_not_taken_is_no_denial_which_would_lock_the_provider_out() -> None:
    assert HocuspocusWire("room").encode(PermissionDenied("you may not write here")) is None


def test_what_is_encoded_for_one_session_is_for_no_other() -> None:
    assert HocuspocusWire("room").is_shared
    assert HocuspocusWire("room") == HocuspocusWire("room")
    assert not HocuspocusWire("room\0session").is_shared


@given(addresses, messages)
def test_a_message_is_read_back_with_its_address(address: str, message: ClientMessage) -> None:
    frame = encode(address, message)
    assert read_head(frame).address == address
    assert decode_message_of(frame) == message


@given(addresses, messages)
def test_a_message_cut_short_at_any_byte_is_malformed(address: str, message: ClientMessage) -> None:
    frame = encode(address, message)
    unversioned = isinstance(message, Token) and message.version is not None
    for length in range(len(frame)):
        if unversioned and frame[:length] == encode(address, Token(message.token)):  # type: ignore[union-attr]
            continue
        with pytest.raises(Malformed):
            decode_message_of(frame[:length])


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_frame_in_its_one_encoding_or_malformed(data: bytes) -> None:
    try:
        decoded = decode_message_of(data)
    except Malformed:
        return
    assert encode(read_head(data).address, decoded) == data


@given(addresses, messages, st.data())
def test_a_changed_byte_raises_nothing_but_malformed(address: str, message: ClientMessage, data: st.DataObject) -> None:
    frame = bytearray(encode(address, message))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_message_of(bytes(frame))
    except Malformed:
        return
    assert encode(read_head(bytes(frame)).address, decoded) == frame


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty frame"),
        pytest.param(b"\x04room", id="an address alone"),
        pytest.param(b"\x04room\x04\x00\x01\x00", id="what servers answer each other"),
        pytest.param(b"\x04room\x06" + var_string("to all"), id="what servers tell each other"),
        pytest.param(b"\x04room\x08\x01", id="that something is saved"),
        pytest.param(b"\x04room\x09", id="a ping with an address"),
        pytest.param(b"\x04room\x0a", id="a pong with an address"),
        pytest.param(b"\x04room\x0b", id="unknown type of message"),
        pytest.param(b"\x04room\x80\x00\x00\x01\x00", id="type not in its shortest form"),
        pytest.param(b"\x04room\x00\x03\x00", id="unknown kind of sync message"),
        pytest.param(b"\x04room\x00\x02\x00\x00", id="an update with a trailing byte"),
        pytest.param(b"\x04room\x00\x02\x00" * 2, id="two messages in one frame"),
        pytest.param(b"\x04room\x02\x01" + var_string("reason"), id="a denial"),
        pytest.param(b"\x04room\x02\x02" + var_string("read-write"), id="an admission"),
        pytest.param(b"\x04room\x02\x00", id="the question for a token"),
        pytest.param(b"\x04room\x02\x00\x00\x00\x00", id="a token with a trailing byte"),
        pytest.param(b"\x04room\x07" + var_string("reason"), id="a close with a reason, which is the server's"),
        pytest.param(b"\x04room\x03\x00", id="a question with a trailing byte"),
        pytest.param(b"\x02\xff\xff\x03", id="an address that is not UTF-8"),
        pytest.param(var_string("r" * 1025) + b"\x03", id="an address that is too long"),
        pytest.param(var_string("room") + b"\x02\x00" + var_string("t" * 16_385), id="a token that is too long"),
        pytest.param(b"\x04room\x02\x00\x00" + var_string("v" * 65), id="a version that is too long"),
    ],
)
def test_what_the_protocol_does_not_say_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        decode_message_of(frame)


def test_the_bounds_are_as_they_are_listed() -> None:
    assert read_head(var_string("r" * 1024) + b"\x03").address == "r" * 1024
    assert decode_message_of(b"\x04room\x02\x00" + var_string("t" * 16_384)) == Token("t" * 16_384)
    assert decode_message_of(b"\x04room\x02\x00\x00" + var_string("v" * 64)) == Token("", "v" * 64)


def test_a_ping_and_a_pong_are_one_byte_and_no_frame_of_a_document_is() -> None:
    assert (PING, PONG) == (b"\x09", b"\x0a")
    for first in range(256):
        with pytest.raises(Malformed):
            read_head(bytes((first,)))


def test_the_head_of_a_frame_is_read_without_the_rest() -> None:
    class Counted(Reader):
        taken = 0

        def take(self, length: int) -> bytes:
            Counted.taken += length
            return super().take(length)

    frame = encode("room", Update(bytes(1_000_000)))
    assert hocuspocus._read_head(Counted(frame)).type is MessageType.SYNC
    assert Counted.taken == 0
    with pytest.raises(Malformed):
        read_head(var_uint(1_000_000) + bytes(1_000_000))


def test_a_frame_of_one_update_is_told_from_every_other_without_reading_it() -> None:
    for frame in RECORDED:
        holds_update = isinstance(decode_message_of(frame), SyncStep2 | Update)
        assert holds_one_update(frame) == holds_update
        assert not holds_one_update(frame + b"\0")
        assert not any(holds_one_update(frame[:length]) for length in range(len(frame)))


@given(addresses, st.text(max_size=5))
def test_the_name_of_a_document_is_what_stands_before_the_session(address: str, session: str) -> None:
    name = document_name(address)
    assert "\0" not in name and address.startswith(name)
    assert document_name(f"{name}\0{session}") == name


def test_content_and_awareness_are_said_as_to_y_websocket() -> None:
    for message in (SyncStep1(b"\0"), SyncStep2(b"\0\0"), Update(golden.UPDATE), Awareness(())):
        assert HocuspocusWire("room").encode(message) == b"\x04room" + (Y_WEBSOCKET.encode(message) or b"")
