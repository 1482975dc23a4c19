"""One process's live copies: what they take, show, and never show."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from pycrdt import Doc, Text

from documents.models import Document, Membership, Role
from history.models import Head, Session, Snapshot
from realtime.bus import _rows_hint
from realtime.hub import Hub
from realtime.protocols.frames import encode_update
from realtime.tails import Committed
from tests.integration.realtime.rooms import (
    empty,
    folded_text,
    refused_of,
    rows_of,
    shared_document,
    stored,
    take_role_by_sql,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_what_one_types_the_other_sees_and_the_log_holds_under_its_author(hub: Hub) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("hello")
        await bob.until(lambda: bob.text == "hello")
        bob.type(" you", at=5)
        await ada.until(lambda: ada.text == "hello you")
    assert [(seq, user) for seq, user, _ in await rows_of(document)] == [(1, ada.user.pk), (2, bob.user.pk)]
    assert await folded_text(document) == "hello you"


async def test_a_reader_leaves_no_trace_in_the_log(hub: Hub) -> None:
    document, people = await shared_document(eve=Role.VIEWER)
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until_synced()
        assert eve.denied == 0  # her empty SyncStep2 says nothing new
        eve.type("mine")
        await eve.until(lambda: eve.denied == 1)
        assert eve.closed is None
    assert await rows_of(document) == []
    assert await sync_to_async(Session.objects.filter(document=document).count)() == 0


async def test_a_forged_hint_shows_nothing_and_adds_nothing(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("true")
        await stored(hub, document, 1)
        room = hub.rooms[document.pk]
        forged = hint(document, room.epoch, seq=2, update=update_that_types("forged", client_id=66))
        hub.bus._hear({**forged, "signature": b"0" * 32})
        await room.catch_up()
        assert (room.seq, str(room.doc.get("text", type=Text))) == (1, "true")


def hint(document: Document, epoch: int, *, seq: int, update: bytes) -> dict[str, Any]:
    return _rows_hint(
        document_id=document.pk,
        epoch=epoch,
        first_seq=seq,
        last_seq=seq,
        update=update,
        behind=b"",
        hash_=b"",
        process="other",
    )


async def test_a_hint_that_leaves_a_gap_is_filled_from_the_log(hub: Hub, another_process: Callable[[], Hub]) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        other = another_process()
        room = await other.open(document.pk, empty)
        ada.type("a")
        await stored(hub, document, 1)
        ada.type("b")
        await stored(hub, document, 2)
        rows = await rows_of(document)
        room.advance_by_hint(Committed(first_seq=2, last_seq=2, update=rows[1][2]), behind=b"", hash_=b"")
        async with asyncio.timeout(10):
            await room.catch_up()
        assert str(room.doc.get("text", type=Text)) == ada.text == "ba"
        room.advance_by_hint(
            Committed(first_seq=1, last_seq=1, update=rows[0][2]), behind=b"", hash_=b""
        )  # late and repeated
        room.advance_by_hint(Committed(first_seq=2, last_seq=2, update=rows[1][2]), behind=b"", hash_=b"")
        assert room.seq == 2


async def test_an_update_that_builds_on_what_is_missing_is_asked_for_and_never_logged(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        offline: Doc[Any] = Doc(client_id=9)
        text = offline.get("text", type=Text)
        text.insert(0, "a")
        known = offline.get_state()
        text.insert(1, "b")
        before = len(ada.received)
        ada.send(b"\x00\x02" + bytes([len(offline.get_update(known))]) + offline.get_update(known))
        await ada.until(lambda: any(payload[:2] == b"\x00\x00" for payload in ada.received[before:]))
        assert await rows_of(document) == []
        ada.doc.apply_update(offline.get_update())  # now the editor has it whole, and answers the next question
        ada.send(b"\x00\x02" + bytes([len(offline.get_update())]) + offline.get_update())
        await stored(hub, document, 1)
    assert await folded_text(document) == "ab"


async def test_what_builds_on_edits_that_nobody_has_is_refused_and_kept(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    offline: Doc[Any] = Doc(client_id=9)
    text = offline.get("text", type=Text)
    text.insert(0, "a")
    known = offline.get_state()
    text.insert(1, "b")
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        questions = len(ada.received)
        ada.send(encode_update(offline.get_update(known)))
        await ada.until(lambda: any(payload[:2] == b"\x00\x00" for payload in ada.received[questions:]))
        ada.send(encode_update(offline.get_update(known)))  # its answer did not have it either
        await ada.until(lambda: ada.denied == 1)
        await hub.refusals.flushed()
        assert ada.closed is None
    assert await rows_of(document) == []
    assert await refused_of(document) == [(people["ada"].pk, "missing", [offline.get_update(known)])]


async def test_one_session_that_is_refused_fails_nobody_elses_edits_in_the_same_batch(hub: Hub) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("0")
        await bob.until(lambda: bob.text == "0")
        await take_role_by_sql(document, bob.user)
        bob.type("bob ")  # judged under the role that he had when he came, refused in the append
        ada.type("ada ")
        await stored(hub, document, 2)
        await bob.until(lambda: bob.denied > 0 or bob.closed is not None)
        ada.type("again ")
        await stored(hub, document, 3)
    assert {user for _, user, _ in await rows_of(document)} == {ada.user.pk}
    assert await folded_text(document) == "again ada 0"


async def test_a_right_taken_by_raw_sql_closes_the_socket_without_the_channel_layer(hub: Hub, settings: Any) -> None:
    document, people = await shared_document(bob=Role.EDITOR)
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 0.2}
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        await take_role_by_sql(document, people["bob"])
        await bob.until(lambda: bob.closed == 4403)


async def test_a_lowered_role_leaves_the_socket_open_to_read(hub: Hub) -> None:
    async with ada_and_bob() as (document, ada, bob):
        membership = await Membership.objects.aget(document=document, user=bob.user)
        membership.role = Role.VIEWER
        await sync_to_async(membership.save)()
        await bob.until(lambda: bob.denied == 1)
        bob.type("no")
        await bob.until(lambda: bob.denied == 2)
        ada.type("yes")
        await bob.until(lambda: "yes" in bob.text)
        assert bob.closed is None
    assert len(await rows_of(document)) == 1


async def test_a_slow_reader_gets_what_it_missed_in_one_update(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 2000}
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        eve.reads.clear()
        for number in range(60):
            ada.type("x" * 50)
            await stored(hub, document, number + 1)
        (outbox,) = [each.outbox for each in hub.rooms[document.pk].members if each.user == people["eve"]]
        assert outbox._droppable_bytes <= 2000
        before = len(eve.received)
        eve.reads.set()
        await eve.until(lambda: len(eve.text) == 3000)
        assert len(eve.received) - before < 30
        ada.type("!")
        await eve.until(lambda: eve.text.startswith("!"))


async def test_an_idle_room_is_compacted_and_leaves_memory(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {
        **settings.PALIMPSEST,
        "HEAD_CHECK_SECONDS": 0.1,
        "ROOM_IDLE_SECONDS": 0.1,
        "EVICTION_SNAPSHOT_ROWS": 3,
    }
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for number in range(3):
            ada.type("x")
            await stored(hub, document, number + 1)
    async with asyncio.timeout(10):
        while hub.rooms or not await Snapshot.objects.filter(document=document, seq=3).aexists():
            await asyncio.sleep(0.02)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        assert ada.text == "xxx"


async def test_presence_is_echoed_shown_and_gone_with_its_socket(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        async with Socket(document.name, user=people["ada"]) as ada:
            await ada.until_synced()
            ada.show(11, 1, '{"name":"Ada"}')
            await ada.until(lambda: 11 in ada.shown)
            await bob.until(lambda: (bob.state_of(11) or {}).get("name") == "Ada")
        await bob.until(lambda: bob.shown[11] is None)


@pytest.mark.parametrize(
    ("frame", "code"), [(b"\x00\x02\x05ab", 1008), (b"\x09", 1008), (b"\x00\x02\x03\x01\x01\x01", 1008)]
)
async def test_a_malformed_frame_closes_its_own_socket_and_changes_nothing(hub: Hub, frame: bytes, code: int) -> None:
    async with ada_and_bob() as (document, ada, bob):
        bob.send(frame)
        await bob.until(lambda: bob.closed == code)
        ada.type("fine")
        await stored(hub, document, 1)
        assert ada.closed is None
    assert await folded_text(document) == "fine"


async def test_a_document_whose_head_is_held_holds_up_no_other(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_LOCK_TIMEOUT_MS": 60_000}
    held, people = await shared_document(ada=Role.OWNER)
    free, others = await shared_document(bob=Role.OWNER)
    async with (
        Socket(held.name, user=people["ada"]) as ada,
        Socket(held.name, user=people["ada"]) as reader,
        Socket(free.name, user=others["bob"]) as bob,
    ):
        await asyncio.gather(ada.until_synced(), reader.until_synced(), bob.until_synced())
        release = threading.Event()
        holding = asyncio.create_task(asyncio.to_thread(hold_head, held, release))
        await asyncio.to_thread(wait_until_held, held)
        ada.type("a")
        for number in range(1, 10):
            bob.type("b")
            await stored(hub, free, number)
            ada.type("a")
        assert (reader.text, hub.rooms[held.pk].seq) == ("", 0)
        release.set()
        await holding
        await reader.until(lambda: reader.text == "a" * 10)
    assert await folded_text(held) == "a" * 10


def hold_head(document: Document, release: threading.Event) -> None:
    with transaction.atomic():
        Head.objects.select_for_update().get(document=document)
        release.wait(60)
    connection.close()


def wait_until_held(document: Document) -> None:
    held = False
    while not held:
        with transaction.atomic():
            held = not Head.objects.select_for_update(skip_locked=True).filter(document=document).exists()
        time.sleep(0.01)
    connection.close()
