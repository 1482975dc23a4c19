"""Slow readers: they miss nothing, and what waits for them is bounded."""

import asyncio
from collections.abc import Callable

import pytest
from pytest_django import Settings

from documents.models import Document, Role
from realtime.frames import SharedMessage
from realtime.hub import Hub
from realtime.members import Member
from realtime.outbox import LINE_BYTES, Outbox
from realtime.protocols.frames import encode_sync_step1
from realtime.protocols.messages import ServerMessage, Update
from tests.integration.realtime.rooms import eventually, shared_document, stored
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]

A_CLIENT_NOBODY_KNOWS = b"\x01\x05\x00"
"""A state vector: other than the empty one, each answer to it is encoded anew."""


class PlainWire:
    """Updates as they are."""

    is_text = False
    is_shared = True

    def encode(self, message: ServerMessage) -> bytes | None:
        return message.update if isinstance(message, Update) else None


PLAIN = PlainWire()


def said(payload: bytes) -> SharedMessage:
    return SharedMessage(Update(payload))


def only_member_of(hub: Hub, document: Document, user: object) -> Member:
    (member,) = [each for each in hub.rooms[document.pk].members if each.user == user]
    return member


async def test_what_is_shown_while_the_missed_rows_are_read_reaches_a_slow_reader() -> None:
    sent: list[bytes] = []
    reads, looks, may_return = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send(payload: bytes) -> None:
        await reads.wait()
        sent.append(payload)

    async def missed_since(seq: int) -> tuple[SharedMessage | None, int]:
        looks.set()
        await may_return.wait()
        return said(b"rows 1 to 3"), 3

    outbox = Outbox(
        wire=PLAIN,
        send=send,
        writer=None,
        missed_since=missed_since,
        failed=lambda error: None,
        bytes_max=LINE_BYTES + 10,
    )
    for seq in (1, 2, 3):
        outbox.offer(said(b"x" * 8), seq=seq)
    reads.set()
    await looks.wait()
    outbox.offer(said(b"row 4"), seq=4)
    may_return.set()
    assert outbox._pump is not None
    await outbox._pump
    assert sent[-2:] == [b"rows 1 to 3", b"row 4"]


async def test_an_update_that_overflows_just_as_the_line_ends_is_not_lost() -> None:
    """Between a pump's last step and the news of its end nobody is at the line."""

    class FullSocket:
        heard_late: Callable[[bytes], None] | None = None

        def write_frame(self, frame: bytes) -> bool:
            return False

    asked = asyncio.Event()

    def offer_large() -> None:
        outbox.offer(said(b"x" * 9000), seq=2)

    async def send(payload: bytes) -> None:
        if not offered:
            offered.append(True)
            asyncio.get_running_loop().call_soon(offer_large)

    async def missed_since(seq: int) -> tuple[SharedMessage | None, int]:
        asked.set()
        return said(b"rows from 2"), 2

    offered: list[bool] = []
    outbox = Outbox(
        wire=PLAIN,
        send=send,
        writer=FullSocket(),
        missed_since=missed_since,
        failed=lambda error: None,
        bytes_max=LINE_BYTES + 100,
    )
    outbox.offer(said(b"one"), seq=1)
    async with asyncio.timeout(10):
        await asked.wait()
    await outbox.written()
    assert outbox.seq == 2


async def test_a_slow_reader_that_types_misses_nothing(no_watch: None, hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 500}
    document, people = await shared_document(ada=Role.OWNER, eve=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        eve.reads.clear()
        for number in range(3):
            ada.type("a" * 50)
            await stored(hub, document, number + 1)
        eve.type("E")
        await stored(hub, document, 4)
        for number in range(20):
            ada.type("b" * 50)
            await stored(hub, document, number + 5)
        eve.reads.set()
        await eve.until(lambda: len(eve.text) == 3 * 50 + 1 + 20 * 50)


@pytest.mark.parametrize("limit", [{"CATCH_UP_ROWS_MAX": 10}, {"CATCH_UP_BYTES_MAX": 700}])
async def test_a_slow_reader_gets_all_where_few_rows_are_read_at_once(
    no_watch: None, hub: Hub, settings: Settings, limit: dict[str, int]
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 500, **limit}
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        eve.reads.clear()
        for number in range(60):
            ada.type("x" * 50)
            await stored(hub, document, number + 1)
        eve.reads.set()
        await eve.until(lambda: len(eve.text) == 3000)


async def test_a_client_that_asks_and_does_not_read_costs_bounded_memory(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 100_000}
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        ada.type("x" * 50_000)
        await eve.until(lambda: len(eve.text) == 50_000)
        outbox = only_member_of(hub, document, people["eve"]).outbox
        waiting: list[int] = []
        is_held_up = asyncio.Event()
        offer, room_for_answers = outbox.offer, outbox.room_for_answers

        def offer_and_count(message: SharedMessage, *, seq: int | None = None) -> int:
            size = offer(message, seq=seq)
            waiting.append(sum(len(each.payload) for each in outbox._waiting))
            return size

        async def room_for_answers_is_awaited() -> None:
            if not outbox._room_for_answers.is_set():
                is_held_up.set()
            await room_for_answers()

        monkeypatch.setattr(outbox, "offer", offer_and_count)
        monkeypatch.setattr(outbox, "room_for_answers", room_for_answers_is_awaited)
        eve.reads.clear()
        before = len(eve.received)
        for _ in range(200):
            eve.send(encode_sync_step1(A_CLIENT_NOBODY_KNOWS))
        await eventually(lambda: is_held_up.is_set() or len(waiting) == 200)
        eve.reads.set()
        await eve.until(lambda: len(eve.received) == before + 200)
        assert max(waiting) < 250_000
