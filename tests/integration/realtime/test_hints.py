"""Hints of rows: what is not signed, not next or not whole is read from the log, without the watch's help."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from pycrdt import Text
from pytest_django import Settings

from documents.models import Document, Role
from history.append import raise_epoch
from history.crdt.updates import decode_update
from history.models import Kind, Update, Via
from history.writes import write_session
from realtime.bus import _rows_hint, signed
from realtime.hub import Hub
from realtime.rooms import Room
from realtime.tails import Committed
from tests.builders import append_rows, make_session, typed
from tests.integration.realtime.rooms import (
    empty,
    eventually,
    restore_backup,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


class Deaf:
    """Another process, whose line to this one is cut: what it would have heard is in `missed`."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.missed: list[dict[str, Any]] = []
        self._hear = hub.bus._hear
        setattr(hub.bus, "_hear", self._miss)  # noqa: B010  (a method, to mypy)

    def _miss(self, message: dict[str, Any]) -> None:
        if message["type"] == "doc_update":
            self.missed.append(message)

    def has_missed(self, count: int) -> bool:
        return len(self.missed) >= count

    def hear(self, message: dict[str, Any]) -> None:
        self._hear(message)

    async def open(self, document: Document) -> Room:
        return await self.hub.open(document.pk, empty)


@pytest_asyncio.fixture
async def deaf(hub: Hub, another_process: Callable[[], Hub]) -> Deaf:
    return Deaf(another_process())


def text_of(room: Room) -> str:
    return str(room.doc.get("text", type=Text))


async def type_unheard(ada: Socket, text: str, deaf: Deaf) -> None:
    """Ada types the characters, each a row and a hint of its own, and all are missed."""
    known = len(deaf.missed)
    for count, character in enumerate(text, 1):
        ada.type(character, at=len(ada.text))
        await eventually(partial(deaf.has_missed, known + count))


def with_other_bytes(missed: list[dict[str, Any]]) -> dict[str, Any]:
    return {**missed[0], "update": update_that_types("forged", client_id=66)}


def in_another_place(missed: list[dict[str, Any]]) -> dict[str, Any]:
    return {**missed[1], "first_seq": 1, "last_seq": 1}


def with_a_longer_reach(missed: list[dict[str, Any]]) -> dict[str, Any]:
    return {**missed[0], "last_seq": 2}


@pytest.mark.parametrize("changed", [with_other_bytes, in_another_place, with_a_longer_reach])
async def test_a_captured_hint_that_was_changed_shows_nothing_but_the_log(
    no_watch: None, hub: Hub, deaf: Deaf, changed: Callable[[list[dict[str, Any]]], dict[str, Any]]
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        room = await deaf.open(document)
        await type_unheard(ada, "ab", deaf)
        deaf.hear(changed(deaf.missed))
        assert (room.seq, text_of(room)) == (0, "")
        await eventually(lambda: room.seq == 2)
        assert text_of(room) == "ab"


async def test_a_captured_hint_of_one_document_shows_nothing_in_another(no_watch: None, hub: Hub, deaf: Deaf) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    other, _ = await shared_document()
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        await deaf.open(document)
        room = await deaf.open(other)
        await type_unheard(ada, "a", deaf)
        deaf.hear({**deaf.missed[0], "document": other.pk})
        assert (room.seq, text_of(room)) == (0, "")


async def test_a_hint_above_a_gap_has_the_log_read(no_watch: None, hub: Hub, deaf: Deaf) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        room = await deaf.open(document)
        await type_unheard(ada, "ab", deaf)
        deaf.hear(deaf.missed[1])
        assert (room.seq, text_of(room)) == (0, "")
        await eventually(lambda: room.seq == 2)
        assert text_of(room) == "ab"


async def test_a_hint_too_large_to_carry_its_update_has_the_log_read(
    no_watch: None, hub: Hub, deaf: Deaf, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HINT_BYTES_MAX": 1}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        room = await deaf.open(document)
        await type_unheard(ada, "a", deaf)
        assert deaf.missed[0]["update"] == b""
        deaf.hear(deaf.missed[0])
        await eventually(lambda: room.seq == 1)
        assert text_of(room) == "a"


async def test_own_rows_that_land_above_rows_nobody_told_of_wait_for_those(
    no_watch: None, hub: Hub, deaf: Deaf
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        room = await deaf.open(document)
        await type_unheard(ada, "a", deaf)
        session = await sync_to_async(write_session)(document, actor=None, via=Via.TASK)
        await room.write_and_wait(session, update_that_types("b", client_id=7), kind=Kind.EDIT)
        await eventually(lambda: room.seq == 2)
        assert sorted(text_of(room)) == ["a", "b"]
        await ada.until(lambda: ada.text == text_of(room))


async def test_a_hint_of_many_rows_carries_what_goes_on_as_one_struct(no_watch: None, hub: Hub, deaf: Deaf) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        rows = [
            Committed(first_seq=seq, last_seq=seq, update=update)
            for seq, update in enumerate(typed("a" * 1000), start=1)
        ]
        await deaf.open(document)
        hub.bus.publish_rows(hub.rooms[document.pk], rows, behind=b"", hash_=b"")
        await eventually(partial(deaf.has_missed, 1))
    assert [struct.length for struct in decode_update(deaf.missed[0]["update"]).structs] == [1000]


@pytest.mark.parametrize("epoch_raised", [False, True], ids=["not noticed yet", "noticed elsewhere"])
async def test_a_hint_of_a_log_that_was_set_back_is_not_mixed_with_what_the_room_has(
    no_watch: None, hub: Hub, epoch_raised: bool
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for number in (1, 2):
            ada.type("a")
            await stored(hub, document, number)
        room, before = hub.rooms[document.pk], len(ada.received)
        await restore_backup(document, seq=1)
        elsewhere = [update_that_types("n", client_id=client) for client in (100, 101)]
        await sync_to_async(append_rows)(await sync_to_async(make_session)(document), elsewhere)
        if epoch_raised:
            await sync_to_async(raise_epoch)(document.pk, epoch=room.epoch)
        lost, told = [row async for row in Update.objects.filter(document=document, seq__gt=1).order_by("seq")]
        hint = _rows_hint(
            document_id=document.pk,
            epoch=room.epoch + epoch_raised,
            first_seq=3,
            last_seq=3,
            update=elsewhere[1],
            behind=bytes(lost.hash),
            hash_=bytes(told.hash),
            process="another",
        )
        hub.bus._hear(signed(hint))
        await ada.until(lambda: ada.closed == 1013)
        assert room.seq == 2 and "n" not in text_of(room)
        assert not any(b"n" in payload for payload in ada.received[before:])
