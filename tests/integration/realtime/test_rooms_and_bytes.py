"""How many rooms a process keeps and how large they are together, and how large one document may become."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pycrdt import Doc, Text

from documents.models import Document, Role
from history.errors import UpdateRefused
from history.fates import Reason, Refused
from history.models import Kind, Via
from history.writes import append_update, write_session
from realtime.closing import Closing
from realtime.collab.gatherings import gathering_of
from realtime.hub import Hub
from realtime.protocols.frames import encode_sync_step2, encode_update
from tests.integration.realtime.collab_sockets import Client
from tests.integration.realtime.rooms import (
    empty,
    eventually,
    folded_text,
    refused_of,
    rows_of,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def documents(count: int) -> list[Document]:
    return [(await shared_document())[0] for _ in range(count)]


async def test_one_room_too_many_takes_the_place_of_the_one_that_is_empty_for_longest(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROOMS_MAX": 3, "HEAD_CHECK_SECONDS": 600.0}
    busy, people = await shared_document(ada=Role.OWNER)
    first, second, third = await documents(3)
    async with Socket(busy.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for document in (first, second, first, third):  # the first one is used again, so the second is the oldest
            await hub.open(document.pk, empty)
        assert hub.rooms.keys() == {busy.pk, first.pk, third.pk}
        ada.type("a")
        await stored(hub, busy, 1)
    assert ada.closed is None


async def test_where_somebody_is_in_every_room_one_more_is_asked_to_come_again(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROOMS_MAX": 1}
    busy, people = await shared_document(ada=Role.OWNER)
    other, others = await shared_document(bob=Role.OWNER)
    async with Socket(busy.name, user=people["ada"]) as ada:
        await ada.until_synced()
        async with Socket(other.name, user=others["bob"]) as bob:
            await bob.until_answered()
            assert bob.closed == 1013
            assert "ROOMS_MAX" in bob.reason
    async with Socket(other.name, user=others["bob"]) as bob:
        await bob.until_synced()


async def test_a_room_on_the_way_in_is_not_taken_away_again(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROOMS_MAX": 4, "HEAD_CHECK_SECONDS": 600.0}
    found = [await shared_document(**{f"owner{place}": Role.OWNER}) for place in range(4)]
    sockets = [
        Socket(document.name, user=owner) for document, people in found for owner in people.values() for _ in range(3)
    ]
    await asyncio.gather(*(socket.until_synced() for socket in sockets))
    for socket in sockets:
        await socket.__aexit__(None, None, None)
    assert not hub._entering


async def test_empty_rooms_that_are_too_large_together_end_the_longest_empty_first(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "WARM_BYTES_MAX": 25_000, "HEAD_CHECK_SECONDS": 600.0}
    opened = []
    for place in range(4):
        document, people = await shared_document(**{f"owner{place}": Role.OWNER})
        async with Socket(document.name, user=people[f"owner{place}"]) as ada:
            await ada.until_synced()
            ada.type("x" * 10_000)
            await stored(hub, document, 1)
        opened.append(document)
    assert all(10_000 <= hub.rooms[document.pk].stored_bytes < 10_100 for document in opened)
    hub._evict_idle()
    assert hub.rooms.keys() == {opened[2].pk, opened[3].pk}


async def test_the_estimate_of_a_room_follows_its_rows_and_is_corrected_when_it_is_encoded(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for place in range(50):
            ada.type("x", at=place)
        await eventually(lambda: str(hub.rooms[document.pk].doc.get("text", type=Text)) == "x" * 50)
        room = hub.rooms[document.pk]
        assert room.stored_bytes >= len(room.doc.get_update())
        async with Socket(document.name, user=people["ada"]) as another:
            await another.until_synced()
            assert room.stored_bytes == len(room.doc.get_update())


async def test_a_full_document_takes_no_new_content_and_lets_go_of_what_it_has(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENT_BYTES_MAX": 1000}
    async with ada_and_bob() as (document, ada, bob):
        ada.type("x" * 1100)
        await bob.until(lambda: len(bob.text) == 1100)
        for _ in range(5):  # each builds on the one before, which is not here either
            bob.type("more")
        bob.send(encode_sync_step2(bob.doc.get_update()))
        await bob.until(lambda: any(b"full" in payload for payload in bob.received))
        ada.send(encode_update(deletion(ada.doc, ada.root)))
        await bob.until(lambda: bob.text.count("x") == 600)
        assert (ada.closed, bob.closed, ada.denied) == (None, None, 0)
        room = hub.rooms[document.pk]
        session = await sync_to_async(write_session)(document, actor=None, via=Via.TASK)
        update = update_that_types("pushed", client_id=77)
        assert await room.write_and_wait(session, update, kind=Kind.EDIT) == Refused(Reason.FULL)
        with pytest.raises(UpdateRefused, match="DOCUMENT_BYTES_MAX"):
            await sync_to_async(append_update)(session, update)
    assert len(await rows_of(document)) == 2
    assert await folded_text(document) == "x" * 600


def deletion(doc: "Doc[Any]", text: Text) -> bytes:
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    del text[:500]
    doc.unobserve(subscription)
    return emitted[0]


async def test_what_a_full_document_does_not_take_is_kept(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENT_BYTES_MAX": 1000}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("x" * 1100)
        await stored(hub, document, 1)
        more = ada.type("more")
        await ada.until(lambda: ada.denied == 1)
        await hub.refusals.flushed()
    assert await refused_of(document) == [(people["ada"].pk, "full", [more])]


def three_roots() -> bytes:
    doc: Doc[Any] = Doc(client_id=9)
    for name in "abc":
        doc.get(name, type=Text).insert(0, name)
    return doc.get_update()


def three_clients() -> bytes:
    doc: Doc[Any] = Doc()
    for client_id in (7, 8, 9):
        doc.apply_update(update_that_types("x", client_id=client_id))
    return doc.get_update()


@pytest.mark.parametrize(
    ("limit", "update"), [("DOCUMENT_ROOTS_MAX", three_roots()), ("DOCUMENT_CLIENTS_MAX", three_clients())]
)
async def test_a_document_has_no_more_roots_and_clients_than_the_settings(
    hub: Hub, settings: Any, limit: str, update: bytes
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, limit: 2}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send(encode_update(update))
        await ada.until(lambda: ada.closed == 1008)
    assert await rows_of(document) == []


def one_root() -> bytes:
    doc: Doc[Any] = Doc(client_id=9)
    doc.get("d", type=Text).insert(0, "d")
    return doc.get_update()


@pytest.mark.parametrize("limit", ["DOCUMENT_ROOTS_MAX", "DOCUMENT_CLIENTS_MAX"])
async def test_who_finds_no_place_for_one_more_stays_and_what_they_wrote_is_kept(
    hub: Hub, settings: Any, limit: str
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, limit: 1}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        ada.type("a")
        await bob.until(lambda: bob.text == "a")
        bob.send(encode_update(one_root()))
        await bob.until(lambda: bob.denied == 1)
        await hub.refusals.flushed()
        ada.type("b")
        await bob.until(lambda: bob.text == "ba")
        assert (ada.closed, bob.closed) == (None, None)
    assert await refused_of(document) == [(people["bob"].pk, "full", [one_root()])]


async def test_whoever_finds_a_document_without_place_for_a_client_id_more_may_delete_and_stays(
    hub: Hub, settings: Any
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENT_CLIENTS_MAX": 1}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        ada.type("x" * 600)
        await bob.until(lambda: len(bob.text) == 600)
        bob.type("offline work")
        await bob.until(lambda: bob.denied == 1)
        deletion(bob.doc, bob.root)  # of what is here, and of what bob has typed, which is not
        bob.send(encode_sync_step2(bob.doc.get_update()))
        await ada.until(lambda: len(ada.text) < 600)
        ada.type("y")
        await stored(hub, document, 3)
        assert (ada.closed, bob.closed) == (None, None)


async def test_nobody_uses_up_the_client_ids_of_a_document_for_the_others(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENT_CLIENTS_PER_PERSON_MAX": 2}
    document, people = await shared_document(ada=Role.OWNER, eve=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        eve.send(encode_update(three_clients()))
        await eve.until(lambda: eve.denied == 1)
        for count, client_id in enumerate((7, 8), 1):
            eve.send(encode_update(update_that_types("x", client_id=client_id)))
            await stored(hub, document, count)
        eve.send(encode_update(update_that_types("x", client_id=9)))
        await eve.until(lambda: eve.denied == 2)
        hub.rooms[document.pk].judge.start_anew()
        eve.send(encode_update(update_that_types("x", client_id=9)))
        await eve.until(lambda: eve.denied == 3)
        eve.send(encode_update(update_that_types("xy", client_id=7)))  # under one that is there
        await ada.until(lambda: ada.text.count("y") == 1)
        ada.type("ada")
        await stored(hub, document, 4)
        assert (ada.denied, eve.denied, eve.closed) == (0, 3, None)
    assert "ada" in await folded_text(document)


async def test_one_update_has_no_more_bytes_than_the_setting(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UPDATE_BYTES_MAX": 1000}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("x" * 900)
        await stored(hub, document, 1)
        ada.type("x" * 1000)
        await ada.until(lambda: ada.closed == 1009)
    assert len(await rows_of(document)) == 1


async def test_a_room_that_is_being_opened_takes_a_place_too(hub: Hub, settings: Any) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROOMS_MAX": 1}
    first, second = await documents(2)
    may_go_on = asyncio.Event()

    async def empty_later() -> "Doc[Any]":
        await may_go_on.wait()
        return Doc()

    opening = asyncio.create_task(hub.open(first.pk, empty_later))
    await eventually(lambda: hub._opening)
    with pytest.raises(Closing, match="ROOMS_MAX"):
        await hub.open(second.pk, empty)
    may_go_on.set()
    await opening
    assert hub.rooms.keys() == {first.pk}


async def test_who_comes_later_is_served_the_document_as_it_is_by_then(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for seq, text in ((1, "a"), (2, "ba")):
            ada.type(text[0])
            await stored(hub, document, seq)
            async with Socket(document.name, user=people["ada"]) as later:
                await later.until_synced()
                assert later.text == text


async def test_a_document_is_full_by_what_it_holds_and_not_by_how_many_keystrokes_it_took(
    hub: Hub, settings: Any
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENT_BYTES_MAX": 1000}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for place in range(200):
            ada.type("x", at=place)
        await eventually(lambda: str(hub.rooms[document.pk].doc.get("text", type=Text)) == "x" * 200)
        assert ada.denied == 0
    assert sum(len(payload) for _, _, payload in await rows_of(document)) > 1000


@pytest.mark.usefixtures("no_watch", "without_garbage_collection")
@pytest.mark.parametrize("people_inside", [False, True])
async def test_a_room_that_has_ended_is_free_with_its_documents_and_sockets(hub: Hub, people_inside: bool) -> None:
    async with (
        ada_and_bob() as (document, ada, bob),
        Client(document.name, bob.user, query="field=text") as plain,
        Client(document.name, ada.user, query="field=text&deltas=only") as brief,
    ):
        ada.show(ada.doc.client_id, 1, "{}")
        ada.type("kept")
        await bob.until(lambda: bob.text == "kept" and bool(bob.shown))
        await plain.edit(content="kept by all")
        await bob.until(lambda: bob.text == "kept by all")
        await brief.until(lambda: brief.text == "kept by all")
        held = everything_of(hub, document)
        if people_inside:
            hub.rooms[document.pk].drop("the document has to be loaded again")
    if not people_inside:
        hub.rooms[document.pk].drop("idle")
    await eventually(lambda: [name for name, each in held.items() if each() is not None] == [])


def everything_of(hub: Hub, document: Document) -> dict[str, "weakref.ref[Any]"]:
    """By name what a room holds of its own, without holding it."""
    room = hub.rooms[document.pk]
    gate = room.judge._gate
    assert gate is not None
    held: dict[str, Any] = {
        "room": room,
        "judge": room.judge,
        "awareness": room.awareness,
        "served document": room.doc,
        "intake": gate.intake,
        "gathering": (gathering := gathering_of(room, document.name)),
        "view": gathering.view("text"),
    }
    held |= {f"connection {number}": connection for number, connection in enumerate(room.members)}
    return {name: weakref.ref(each) for name, each in held.items()}
