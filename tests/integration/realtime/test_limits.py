"""How many sockets there may be, how fast one is read, and how long a way in may take."""

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pycrdt import Doc, Text

from documents.models import Document, Role
from history.crdt.state_vectors import decode_state_vector
from history.models import Via
from history.writes import append_update, write_session
from realtime import entrance
from realtime.connections import Connection
from realtime.consumers import YjsConsumer
from realtime.hub import Hub
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import encode_awareness, encode_sync_step1, encode_update
from tests.integration.realtime.rooms import eventually, rows_of, shared_document, stored, update_that_types
from tests.integration.realtime.sockets import Socket, ada_and_bob

BETWEEN_THE_HALVES = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"
"""Client 2 types an x into the emoji that client 1 wrote second."""

pytestmark = [pytest.mark.django_db(transaction=True)]

QUERY_AWARENESS = b"\x03"


@pytest.mark.parametrize(
    "limit", ["SOCKETS_MAX", "SOCKETS_PER_DOCUMENT_MAX", "SOCKETS_PER_ADDRESS_MAX", "SOCKETS_PER_USER_MAX"]
)
async def test_one_socket_too_many_is_asked_to_come_again_and_told_why(hub: Hub, settings: Any, limit: str) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, limit: 2}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as first, Socket(document.name, user=people["ada"]) as second:
        await asyncio.gather(first.until_synced(), second.until_synced())
        async with Socket(document.name, user=people["ada"]) as third:
            await third.until_answered()
            assert (third.closed, third.reason) == (1013, f"too many sockets: {limit}")
        first.type("a")
        await second.until(lambda: second.text == "a")
    async with Socket(document.name, user=people["ada"]) as fourth:
        await fourth.until_synced()


async def test_other_users_addresses_and_documents_are_counted_apart(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {
        **settings.PALIMPSEST,
        "SOCKETS_PER_DOCUMENT_MAX": 2,
        "SOCKETS_PER_ADDRESS_MAX": 1,
        "SOCKETS_PER_USER_MAX": 1,
    }
    one, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    other, others = await shared_document(eve=Role.OWNER)
    async with (
        Socket(one.name, user=people["ada"], address="192.0.2.1") as ada,
        Socket(one.name, user=people["bob"], address="192.0.2.2") as bob,
        Socket(other.name, user=others["eve"], address="192.0.2.3") as eve,
    ):
        await asyncio.gather(ada.until_synced(), bob.until_synced(), eve.until_synced())


def _push(document: Document) -> None:
    append_update(write_session(document, actor=None, via=Via.TASK), update_that_types("pushed", client_id=77))


async def _fail(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("as anything may")


def _fail_at_once(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("as anything may")


@pytest.mark.parametrize(
    ("owner", "step", "failing"),
    [
        (YjsConsumer, "make_room_name", _fail_at_once),
        (entrance, "read_admission", _fail_at_once),
        (YjsConsumer, "make_ydoc", _fail),
        (YjsConsumer, "frame_writer", _fail_at_once),
        (Connection, "greet", _fail_at_once),
        (Connection, "receive", _fail),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_socket_that_fails_at_any_step_is_counted_no_more(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, failing: Any
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        monkeypatch.setattr(owner, step, failing)
        if step == "receive":
            await ada.until_answered()
        await ada.until(lambda: ada.closed is not None)
        monkeypatch.undo()
    assert len(hub.sockets) == 0


async def test_sockets_that_end_while_they_come_are_counted_no_more(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    sockets = [Socket(document.name if place % 3 else "missing", user=people["ada"]) for place in range(20)]
    for place, socket in enumerate(sockets):
        for _ in range(place):
            await asyncio.sleep(0)
        await socket.__aexit__(None, None, None)
    assert len(hub.sockets) == 0


async def test_a_socket_that_the_database_keeps_waiting_is_let_go_and_leaves_nothing_behind(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "AUTHENTICATE_SECONDS": 0.05}
    document, people = await shared_document(ada=Role.OWNER)
    may_answer = threading.Event()
    admit = entrance.read_admission

    def slow(*who: Any) -> Any:
        assert may_answer.wait(10)
        return admit(*who)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(entrance, "read_admission", slow)
            for _ in range(2):
                async with Socket(document.name, user=people["ada"]) as ada:
                    await ada.until(lambda: ada.closed == 1013)
                    assert "database" in ada.reason
            assert len(hub.sockets) == 0
            settings.PALIMPSEST = {**settings.PALIMPSEST, "AUTHENTICATE_SECONDS": 10.0}
        async with Socket(document.name, user=people["ada"]) as again:  # on a thread that waits for nothing
            await again.until_synced()
    finally:
        may_answer.set()
    await eventually(lambda: not hub._loads)
    assert hub._idle_threads.qsize() == len(hub._threads)


async def test_who_sends_too_fast_is_read_slower_and_loses_nothing(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UPDATES_PER_SECOND": 1, "UPDATES_BURST": 20}
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async with ada_and_bob() as (_, ada, bob):
        monkeypatch.setattr("realtime.connections.asyncio.sleep", noted)
        for _ in range(60):
            ada.type("a")
        bob.type("b")
        await bob.until(lambda: bob.text.count("a") == 60)
        await ada.until(lambda: len(ada.text) == 61)
        assert (ada.closed, bob.closed) == (None, None)
        monkeypatch.undo()
    assert sum(pause > 0 for pause in pauses) >= 30


async def test_each_message_of_a_frame_is_paced(hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UPDATES_PER_SECOND": 10, "UPDATES_BURST": 20}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def noted(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        with monkeypatch.context() as patch:
            patch.setattr("realtime.connections.asyncio.sleep", noted)
            ada.send(b"".join(encode_update(update_that_types("x", client_id=client)) for client in range(9, 99)))
            await eventually(lambda: max(pauses, default=0) > 5)
        assert max(pauses) < 10


async def test_of_a_question_that_a_frame_asks_many_times_the_last_is_answered(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        before = len(ada.received)
        ada.send(encode_sync_step1(b"\0") * 50 + b"\x03" * 50 + encode_awareness([AwarenessEntry(5, 1, "{}")]))
        await ada.until(lambda: 5 in ada.shown)
        assert sum(payload[:2] == b"\0\1" for payload in ada.received[before:]) == 1


async def test_an_edit_that_splits_an_emoji_counts_as_the_whole_document(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "BYTES_PER_SECOND": 10_000, "BYTES_BURST": 2000}
    async with ada_and_bob() as (document, ada, bob):
        bob.send(encode_update(update_that_types("a😀" + "b" * 8000, client_id=1)))
        await stored(hub, document, 1)
        has_paused = asyncio.Event()

        async def noted(seconds: float) -> None:
            assert 0.4 < seconds < 0.9
            has_paused.set()

        with monkeypatch.context() as patch:
            patch.setattr("realtime.connections.asyncio.sleep", noted)
            ada.send(encode_update(BETWEEN_THE_HALVES))
            await asyncio.wait_for(has_paused.wait(), 10)


async def test_the_processor_time_of_an_update_counts_as_bytes(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "BYTES_PER_SECOND": 10_000_000}
    async with ada_and_bob() as (document, ada, bob):
        bob.type("b" * 200_000)
        await ada.until(lambda: len(ada.text) == 200_000)
        charged: list[int] = []
        monkeypatch.setattr(Connection, "charge", lambda self, size: charged.append(size))
        before = ada.doc.get_state()
        with ada.doc.transaction():
            for place in range(200_000, 0, -1000):
                ada.root.insert(place, "a")
        update = ada.doc.get_update(before)
        ada.send(encode_update(update))
        await stored(hub, document, 2)
        assert [size > len(update) for size in charged] == [True]


async def test_what_is_asked_for_once_more_counts_as_so_many_bytes_and_what_everybody_asks_for_does_not(
    no_watch: None, hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CPU_PERCENT_PER_SOCKET": 0}
    charged: list[int] = []
    monkeypatch.setattr(Connection, "charge", lambda self, size: charged.append(size))
    async with ada_and_bob() as (document, ada, bob):
        bob.show(5, 1, '{"a":"' + "x" * 7000 + '"}')
        bob.type("x" * 9000)
        await ada.until(lambda: len(ada.text) == 9000 and 5 in ada.shown)
        ada.send(QUERY_AWARENESS)
        ada.type("a")
        await stored(hub, document, 2)
        assert charged == []
        ada.send(encode_sync_step1(b"\0") + QUERY_AWARENESS)
        ada.type("b")
        await stored(hub, document, 3)
        assert [size // 1000 for size in charged] == [9, 7]


async def test_a_reader_has_the_state_vector_decoded_once_for_each_seq(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update of a few bytes would else have all client ids of the document read."""
    document, people = await shared_document(eve=Role.VIEWER)
    decoded: list[bytes] = []

    def noted(data: bytes) -> dict[int, int]:
        decoded.append(data)
        return decode_state_vector(data)

    monkeypatch.setattr("realtime.rooms.decode_state_vector", noted)
    await sync_to_async(_push)(document)
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until(lambda: eve.text == "pushed")
        for _ in range(3):
            eve.type("x")
        await eve.until(lambda: eve.denied == 3)
    assert len(decoded) == 1


async def test_bytes_are_paced_as_well(hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "BYTES_PER_SECOND": 10_000, "BYTES_BURST": 2000}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        has_paused, may_go_on = asyncio.Event(), asyncio.Event()

        async def held(seconds: float) -> None:
            assert 0.3 < seconds < 0.9
            has_paused.set()
            await may_go_on.wait()

        with monkeypatch.context() as patch:
            patch.setattr("realtime.connections.asyncio.sleep", held)
            ada.send(encode_update(update_that_types("x" * 8000, client_id=9)))
            await has_paused.wait()
        await stored(hub, document, 1)  # what was read is taken; what comes after it waits
        ada.send(encode_update(update_that_types("y", client_id=10)))
        await stored(hub, document, 1)
        assert len(await rows_of(document)) == 1
        may_go_on.set()
        await stored(hub, document, 2)


async def test_a_frame_holds_no_more_messages_than_the_setting(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "MESSAGES_PER_FRAME_MAX": 2}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send(QUERY_AWARENESS * 2)
        ada.type("a")
        await stored(hub, document, 1)
        ada.send(QUERY_AWARENESS * 3)
        await ada.until(lambda: ada.closed == 1008)


async def test_a_socket_is_asked_for_no_more_than_the_setting(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ASKS_MAX": 0}
    document, people = await shared_document(ada=Role.OWNER)
    doc: Doc[Any] = Doc(client_id=9)
    doc.get("text", type=Text).insert(0, "a")
    known = doc.get_state()
    doc.get("text", type=Text).insert(1, "b")
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send(encode_update(doc.get_update(known)))
        await ada.until(lambda: ada.denied == 1)


@pytest.mark.parametrize(
    ("own", "same", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:3::2"),
        ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:192.0.2.8"),
    ],
)
async def test_what_one_customer_has_is_one_address(hub: Hub, settings: Any, own: str, same: str, other: str) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SOCKETS_PER_ADDRESS_MAX": 1}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"], address=own) as ada:
        await ada.until_synced()
        async with (
            Socket(document.name, user=people["bob"], address=same) as neighbour,
            Socket(document.name, user=people["bob"], address=other) as elsewhere,
        ):
            await asyncio.gather(neighbour.until_answered(), elsewhere.until_answered())
            assert (neighbour.closed, elsewhere.closed) == (1013, None)
