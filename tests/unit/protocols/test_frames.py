"""The y-websocket wire: golden frames of the real packages, round trips, and bytes that must be refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.crdt.lib0 import Malformed, var_bytes, var_string, var_uint
from history.crdt.state_vectors import EMPTY_STATE_VECTOR
from realtime.protocols import frames
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import decode_frame
from realtime.protocols.messages import (
    Awareness,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    awareness_messages,
)
from tests.unit.protocols import golden_frames as golden
from tests.unit.protocols.builders import awareness_entries, encode_state_vector, state_vectors

GOLDEN: list[tuple[bytes, Message]] = [
    (golden.SYNC_STEP_1_EMPTY, SyncStep1(EMPTY_STATE_VECTOR)),
    (golden.SYNC_STEP_1, SyncStep1(encode_state_vector({1: 200, 4294967295: 8}))),
    (golden.SYNC_STEP_2, SyncStep2(golden.UPDATE)),
    (golden.SYNC_STEP_2_EMPTY, SyncStep2(b"\0\0")),
    (golden.SYNC_UPDATE, Update(golden.UPDATE)),
    (
        golden.AWARENESS_TWO_CLIENTS,
        Awareness((AwarenessEntry(1, 0, "{}"), AwarenessEntry(4294967295, 1, golden.AWARENESS_STATE))),
    ),
    (golden.AWARENESS_LEFT, Awareness((AwarenessEntry(4294967295, 2, None),))),
    (golden.AWARENESS_NONE, Awareness(())),
    (golden.QUERY_AWARENESS, QueryAwareness()),
]


def encode(message: Message) -> bytes:
    match message:
        case SyncStep1(state_vector):
            return frames.encode_sync_step1(state_vector)
        case SyncStep2(update):
            return frames.encode_sync_step2(update)
        case Update(update):
            return frames.encode_update(update)
        case Awareness(entries):
            return frames.encode_awareness(entries)
        case QueryAwareness():
            return bytes((frames.MessageType.QUERY_AWARENESS,))


messages = st.one_of(
    st.builds(SyncStep1, state_vectors.map(encode_state_vector)),
    st.builds(SyncStep2, st.binary(max_size=300)),
    st.builds(Update, st.binary(max_size=300)),
    st.builds(Awareness, awareness_entries),
    st.just(QueryAwareness()),
)


@pytest.mark.parametrize(("frame", "message"), GOLDEN)
def test_a_frame_of_the_javascript_packages_is_read_and_written_byte_for_byte(frame: bytes, message: Message) -> None:
    assert decode_frame(frame) == [message]
    assert encode(message) == frame


def test_a_permission_denial_is_written_as_y_protocols_writes_it() -> None:
    assert frames.encode_permission_denied("read-only: größer") == golden.PERMISSION_DENIED


@given(st.lists(messages, min_size=1, max_size=8))
def test_a_frame_of_several_messages_is_read_back_in_order(sent: list[Message]) -> None:
    assert decode_frame(b"".join(map(encode, sent))) == sent


@given(messages)
def test_a_message_cut_short_at_any_byte_is_malformed(message: Message) -> None:
    frame = encode(message)
    for length in range(len(frame)):
        with pytest.raises(Malformed):
            decode_frame(frame[:length])


@pytest.mark.parametrize(("frame", "_message"), GOLDEN)
def test_a_golden_frame_cut_short_at_any_byte_is_malformed(frame: bytes, _message: Message) -> None:
    for length in range(len(frame)):
        with pytest.raises(Malformed):
            decode_frame(frame[:length])


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_frame_in_its_one_encoding_or_malformed(data: bytes) -> None:
    try:
        decoded = decode_frame(data)
    except Malformed:
        return
    assert b"".join(map(encode, decoded)) == data


@given(st.lists(messages, min_size=1, max_size=3), st.data())
def test_a_changed_byte_raises_nothing_but_malformed(sent: list[Message], data: st.DataObject) -> None:
    frame = bytearray(b"".join(map(encode, sent)))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_frame(bytes(frame))
    except Malformed:
        return
    assert b"".join(map(encode, decoded)) == frame


def test_a_good_message_before_a_bad_one_is_not_returned() -> None:
    with pytest.raises(Malformed):
        decode_frame(golden.SYNC_UPDATE + b"\x07")


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty frame"),
        pytest.param(b"\0", id="a sync message without a kind"),
        pytest.param(b"\0\x03\0", id="unknown kind of sync message"),
        pytest.param(b"\x04", id="unknown type of message"),
        pytest.param(b"\x80\0\0\x01\0", id="type not in its shortest form"),
        pytest.param(b"\0\x02\x80\0", id="length not in its shortest form"),
        pytest.param(b"\0\x02" + var_uint(1 << 53), id="length beyond 53 bits"),
        pytest.param(b"\0\0\0", id="state vector without bytes"),
        pytest.param(b"\0\0\x02\0\0", id="state vector with a trailing byte"),
        pytest.param(b"\x01\x02\0\0", id="awareness with a trailing byte"),
        pytest.param(b"\x01\0", id="awareness without a count"),
        pytest.param(golden.PERMISSION_DENIED, id="authentication from a client"),
        pytest.param(b"\x02\x02" + var_string("token"), id="other authentication from a client"),
        pytest.param(golden.SYNC_UPDATE + b"\0", id="trailing byte"),
    ],
)
def test_what_the_protocol_does_not_say_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        decode_frame(frame)


@pytest.mark.parametrize("prefix", [b"", b"\0", b"\0\0", b"\0\1", b"\0\2", b"\1", b"\2", b"\0\0\x81\x80\x40"])
def test_a_megabyte_of_continued_varint_is_refused_after_eight_bytes(prefix: bytes) -> None:
    class Counted(bytes):
        reads = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            Counted.reads += 1
            return super().__getitem__(index)

    with pytest.raises(Malformed):
        decode_frame(Counted(prefix + b"\xff" * 1_000_000))
    assert Counted.reads < 20


def test_a_frame_holds_a_limited_number_of_messages() -> None:
    assert len(decode_frame(golden.QUERY_AWARENESS * 3, messages_max=3)) == 3
    with pytest.raises(Malformed):
        decode_frame(golden.QUERY_AWARENESS * 4, messages_max=3)
    with pytest.raises(Malformed):
        decode_frame(golden.QUERY_AWARENESS * 1_000_000)


def test_the_awareness_messages_of_one_frame_share_one_limit() -> None:
    assert len(decode_frame(golden.AWARENESS_TWO_CLIENTS + golden.AWARENESS_LEFT, entries_max=3)) == 2
    with pytest.raises(Malformed):
        decode_frame(golden.AWARENESS_TWO_CLIENTS * 2, entries_max=3)


def test_awareness_frames_are_split_so_that_a_client_may_send_each_of_them_back() -> None:
    room = [AwarenessEntry(client_id, 1, '{"name":"somebody"}') for client_id in range(1000, 1050)]
    written = [frames.encode_awareness(each.entries) for each in awareness_messages(room, bytes_max=200, entries_max=7)]
    decoded = [message for frame in written for message in decode_frame(frame, entries_max=7)]
    assert [entry for message in decoded if isinstance(message, Awareness) for entry in message.entries] == room
    assert max(map(len, written)) <= 200
    assert list(awareness_messages([], bytes_max=200)) == []


@given(awareness_entries, st.integers(20, 400))
def test_split_awareness_frames_exceed_their_size_only_for_a_single_entry(
    entries: tuple[AwarenessEntry, ...], bytes_max: int
) -> None:
    received: list[AwarenessEntry] = []
    for part in awareness_messages(entries, bytes_max=bytes_max):
        frame = frames.encode_awareness(part.entries)
        [message] = decode_frame(frame)
        assert isinstance(message, Awareness)
        assert len(frame) <= bytes_max or len(message.entries) == 1
        received += message.entries
    assert tuple(received) == entries


def test_a_length_that_reaches_past_the_end_is_malformed_and_not_cut() -> None:
    with pytest.raises(Malformed):
        decode_frame(b"\0\x02" + var_uint(5) + b"1234")
    assert decode_frame(b"\0\x02" + var_bytes(b"12345")) == [Update(b"12345")]


def test_a_frame_of_one_update_is_told_from_every_other_without_reading_it() -> None:
    for frame in (golden.SYNC_STEP_2, golden.SYNC_UPDATE, golden.SYNC_STEP_2_EMPTY):
        assert frames.holds_one_update(frame)
        assert not frames.holds_one_update(frame + frame)
        assert not any(frames.holds_one_update(frame[:length]) for length in range(len(frame)))
    for frame in (golden.SYNC_STEP_1, golden.AWARENESS_TWO_CLIENTS, golden.QUERY_AWARENESS, b"\x00\x02\x81\x00\x00"):
        assert not frames.holds_one_update(frame)
