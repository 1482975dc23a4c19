"""Rooms whose document gets a split emoji: served anew, with nobody cut off and nothing of others lost."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pycrdt import Doc, Text
from pytest_django import Settings

from documents.models import Document, Role
from history.crdt.splits import with_splits
from history.crdt.state_vectors import EMPTY_STATE_VECTOR, decode_state_vector
from history.fates import Stored
from history.folds import document_at
from history.models import Kind, Update, Via
from history.writes import append_update, write_session
from realtime.consumers import YjsConsumer
from realtime.hub import Hub
from realtime.protocols.frames import (
    decode_frame,
    encode_sync_step1,
    encode_sync_step2,
    encode_update,
)
from realtime.protocols.messages import SyncStep1, SyncStep2
from realtime.protocols.messages import Update as UpdateMessage
from realtime.rooms import Room
from tests.histories import replay, updates_of
from tests.integration.realtime.rooms import empty, eventually, rows_of, shared_document, stored
from tests.integration.realtime.sockets import Socket
from tests.unit.crdt.test_splits import text_update

pytestmark = [pytest.mark.django_db(transaction=True)]

EMOJI = text_update("a😀b")
BETWEEN = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"  # client 2 types an x between the halves
SPLIT = {(1, 2)}
CUT = "a\ufffdx\ufffdb"


class Editor(Socket):
    """An editor that splits as Yjs does, where pycrdt would not: it keeps what it is told as updates."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[bytes] = []

    def write(self, update: bytes) -> None:
        """Send an edit of its own."""
        self.told.append(update)
        self.send(encode_update(update))

    @property
    def said(self) -> str:
        return str(replay(with_splits(update, SPLIT) for update in self.told).get("text", type=Text))

    def _take(self, payload: bytes) -> None:
        for message in decode_frame(payload):
            match message:
                case SyncStep1():
                    self.send(encode_sync_step1(EMPTY_STATE_VECTOR))
                    self.send(encode_sync_step2(b"\0\0"))
                case SyncStep2(update) | UpdateMessage(update):
                    self.told.append(update)
                    self.synced = self.synced or isinstance(message, SyncStep2)


def said_in(room: Room) -> str:
    return str(room.doc.get("text", type=Text))


async def assert_serves_the_log(room: Room, document: Document) -> None:
    folded = (await sync_to_async(document_at)(document.pk)).doc
    assert said_in(room) == str(folded.get("text", type=Text))
    assert decode_state_vector(room.doc.get_state()) == decode_state_vector(folded.get_state())


@pytest.fixture(params=["on the loop", "off the loop"])
def anywhere(request: pytest.FixtureRequest, settings: Settings) -> None:
    """Read the document anew on the event loop or, as a large one, on a thread."""
    if request.param == "off the loop":
        settings.PALIMPSEST = {"OFF_LOOP_BYTES": len(BETWEEN)}


async def test_the_room_serves_what_yjs_says_and_everyone_stays(
    hub: Hub, another_process: Callable[[], Hub], anywhere: None, no_watch: None
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    other = await another_process().open(document.pk, empty)
    async with Editor(document.name, user=people["ada"]) as ada, Editor(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        ada.write(EMOJI)
        await bob.until(lambda: bob.said == "a\ufffd\ufffdb")
        room, before = hub.rooms[document.pk], hub.rooms[document.pk].doc
        bob.write(BETWEEN)
        await ada.until(lambda: ada.said == CUT)
        assert (room.seq, said_in(room)) == (3, CUT)
        assert room.doc is not before
        await eventually(lambda: other.seq == 3 and said_in(other) == CUT)
        bob.write(b"\x01\x01\x02\x01\x84\x02\x00\x01y\x00")
        await ada.until(lambda: "xy" in ada.said)
        await assert_serves_the_log(room, document)
        async with Editor(document.name, user=people["ada"]) as late:
            await late.until_synced()
            assert late.said == "a\ufffdxy\ufffdb"
        assert (ada.closed, bob.closed, room.closed) == (None, None, False)
    kinds = [row.kind async for row in Update.objects.filter(document=document).order_by("seq")]
    assert kinds == [Kind.SYNC, Kind.SPLIT, Kind.SYNC, Kind.SYNC]


async def test_edits_of_others_at_the_same_moment_are_shown_and_none_is_lost(hub: Hub, no_watch: None) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, cem=Role.EDITOR)
    cems: Doc[Any] = Doc(client_id=7)
    notes = cems.get("notes", type=Text)
    typed = [updates_of(cems, partial(notes.insert, place, "n"))[0] for place in range(60)]
    halves_gone = [b"\x00\x01\x01\x01\x01\x01", b"\x00\x01\x01\x01\x02\x01"]
    async with (
        Editor(document.name, user=people["ada"]) as ada,
        Editor(document.name, user=people["bob"]) as bob,
        Editor(document.name, user=people["cem"]) as cem,
    ):
        await asyncio.gather(ada.until_synced(), bob.until_synced(), cem.until_synced())
        ada.write(EMOJI)
        await stored(hub, document, 1)
        for place, update in enumerate(typed):
            cem.write(update)
            if place == 20:
                bob.write(BETWEEN)
            if place in (30, 40):
                ada.write(halves_gone.pop())
            await asyncio.sleep(0)
        whole = replay([*typed]).get("notes", type=Text)
        for one in (ada, bob):
            await one.until(lambda one=one: notes_of(one) == str(whole) and one.said == "axb")  # type: ignore[misc]
        room = hub.rooms[document.pk]
        await eventually(lambda: said_in(room) == "axb")
        assert str(room.doc.get("notes", type=Text)) == str(whole)
        await assert_serves_the_log(room, document)
    authors = {user for _, user, payload in await rows_of(document) if b"notes" in payload}
    assert authors == {people["cem"].pk}


def notes_of(editor: Editor) -> str:
    return str(replay(with_splits(update, SPLIT) for update in editor.told).get("notes", type=Text))


async def test_who_waits_for_an_edit_is_told_once_it_is_served(hub: Hub, no_watch: None) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    room = await hub.open(document.pk, empty)
    session = await sync_to_async(write_session)(document, actor=people["ada"], via=Via.WEBSOCKET)
    await room.write_and_wait(session, EMOJI, kind=Kind.EDIT)
    fate = await room.write_and_wait(session, BETWEEN, kind=Kind.EDIT)
    assert isinstance(fate, Stored) and (fate.first_seq, fate.seq) == (2, 3)
    assert (room.seq, said_in(room)) == (3, CUT)


async def test_who_waits_for_an_edit_is_told_of_it_though_the_room_ends(hub: Hub, no_watch: None) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    room = await hub.open(document.pk, empty)
    session = await sync_to_async(write_session)(document, actor=people["ada"], via=Via.WEBSOCKET)
    await room.write_and_wait(session, EMOJI, kind=Kind.EDIT)
    hub.fold = never  # type: ignore[assignment,method-assign]
    waiting = asyncio.create_task(room.write_and_wait(session, BETWEEN, kind=Kind.EDIT))
    await eventually(lambda: room._not_shown)
    room.drop("the test ends it")
    fate = await asyncio.wait_for(waiting, 10)
    assert isinstance(fate, Stored) and fate.seq == 3


async def never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_a_server_side_edit_that_splits_reaches_open_rooms(hub: Hub, no_watch: None) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Editor(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.write(EMOJI)
        await stored(hub, document, 1)
        session = await sync_to_async(write_session)(document, actor=None, via=Via.API)
        await sync_to_async(append_update)(session, BETWEEN)
        await ada.until(lambda: ada.said == CUT)
        assert said_in(hub.rooms[document.pk]) == CUT


class Watched(YjsConsumer):
    """Tells what observers of the room's document were told."""

    made: list["Doc[Any]"] = []
    observed: list[bytes] = []
    consumers: list[YjsConsumer] = []

    async def make_ydoc(self) -> "Doc[Any]":
        doc: Doc[Any] = Doc()
        doc.observe(lambda event: self.observed.append(event.update))
        self.made.append(doc)
        return doc

    async def connect(self) -> None:
        await super().connect()
        self.consumers.append(self)


@pytest.fixture
def watched() -> type[Watched]:
    return type("FreshWatched", (Watched,), {"made": [], "observed": [], "consumers": []})


async def test_a_consumer_and_its_observers_have_the_document_that_is_served_now(
    hub: Hub, watched: type[Watched], no_watch: None
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Editor(document.name, user=people["ada"], consumer=watched) as ada:
        await ada.until_synced()
        ada.write(EMOJI)
        await stored(hub, document, 1)
        ada.write(BETWEEN)
        await stored(hub, document, 3)
        assert len(watched.made) == 2
        assert hub.rooms[document.pk].doc is watched.made[1]
        assert str(watched.consumers[0].ydoc.get("text", type=Text)) == said_in(hub.rooms[document.pk]) == CUT
        known = len(watched.observed)
        ada.write(b"\x01\x01\x02\x01\x84\x02\x00\x01y\x00")
        await stored(hub, document, 4)
        assert len(watched.observed) == known + 1
