"""How a room comes by rows that other processes stored, without the watch's help."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from documents.conf import conf
from documents.models import Role
from history.folds import make_ydoc
from realtime.closing import Closing
from realtime.hub import Hub
from realtime.protocols.frames import encode_sync_step2, encode_update
from realtime.tails import read_tail
from tests.builders import append_rows, make_session, typed
from tests.integration.realtime.rooms import empty, folded_text, shared_document, stored, update_that_types
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_a_row_that_is_told_of_while_the_log_is_being_read_is_read_too(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _ = await shared_document()
    room = await hub.open(document.pk, empty)
    has_looked, may_return = asyncio.Event(), asyncio.Event()
    load = hub.load

    async def load_and_wait(*args: Any) -> Any:
        found = await load(*args)
        has_looked.set()
        await may_return.wait()
        return found

    monkeypatch.setattr(hub, "load", load_and_wait)
    room.catch_up_soon()
    await has_looked.wait()
    await sync_to_async(append_rows)(make_session(document), [update_that_types("late", client_id=7)])
    room.catch_up_soon()
    may_return.set()

    await stored(hub, document, 1)


async def test_a_row_that_is_stored_while_a_room_is_being_loaded_is_not_left_to_the_watch(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _ = await shared_document()
    load = hub.load

    async def load_while_somebody_writes(read: Any, *args: Any, **kwargs: Any) -> Any:
        found = await load(read, *args, **kwargs)
        if read is make_ydoc:  # the hint of this row finds no room yet
            await sync_to_async(append_rows)(make_session(document), [update_that_types("late", client_id=7)])
        return found

    monkeypatch.setattr(hub, "load", load_while_somebody_writes)
    await hub.open(document.pk, empty)
    await stored(hub, document, 1)


async def test_a_document_is_listened_to_before_it_is_read(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _ = await shared_document()
    events: list[str] = []
    load, subscribe = hub.load, hub.bus.subscribe

    async def noted_load(read: Any, *args: Any, **kwargs: Any) -> Any:
        events.append(read.__name__)
        return await load(read, *args, **kwargs)

    async def noted_subscribe(document_id: int) -> None:
        await subscribe(document_id)
        events.append("subscribed")

    monkeypatch.setattr(hub, "load", noted_load)
    monkeypatch.setattr(hub.bus, "subscribe", noted_subscribe)
    await hub.open(document.pk, empty)
    assert events.index("subscribed") < events.index(make_ydoc.__name__)


async def test_a_room_that_lacks_more_than_memory_has_room_for_is_loaded_anew(
    no_watch: None, hub: Hub, settings: Any
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CATCH_UP_BYTES_MAX": 3000}
    document, _ = await shared_document()
    room = await hub.open(document.pk, empty)
    updates = [update_that_types(letter * 2000, client_id=ord(letter)) for letter in "abc"]
    await sync_to_async(append_rows)(make_session(document), updates)
    with pytest.raises(Closing):
        await room.catch_up()
    assert (room.closed, room.seq) == (True, 0)
    again = await hub.open(document.pk, empty)
    assert (again is room, again.seq) == (False, 3)


async def test_what_builds_on_rows_that_nobody_told_of_is_taken_without_a_question(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    stored_elsewhere, here = typed("ab", client_id=7)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("0")
        await stored(hub, document, 1)  # the gate is there: it has not read what comes now
        before = len(ada.received)
        await sync_to_async(append_rows)(await sync_to_async(make_session)(document), [stored_elsewhere])
        ada.send(encode_update(here))
        await stored(hub, document, 3)
        assert not any(payload[:2] == b"\x00\x00" for payload in ada.received[before:])  # no SyncStep1
        assert ada.denied == 0
    assert sorted(await folded_text(document)) == ["0", "a", "b"]


def looks_at_the_log(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    looks: list[Any] = []
    load = hub.load

    async def counted(read: Any, *args: Any, **kwargs: Any) -> Any:
        if read is read_tail:
            looks.append(args)
        return await load(read, *args, **kwargs)

    monkeypatch.setattr(hub, "load", counted)
    return looks


@pytest.mark.parametrize("client", ["answers nothing", "answers without it", "says it is an answer"])
async def test_a_flood_of_updates_that_build_on_nothing_has_the_log_read_a_few_times(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    """Each has another dependency that is nowhere. Unlike other hostile classes this is not closed but bounded: honest
    clients send such updates."""
    document, people = await shared_document(ada=Role.OWNER, eve=Role.EDITOR)
    encode = encode_sync_step2 if client == "says it is an answer" else encode_update
    flood = [encode(typed("ab", client_id=number)[1]) for number in range(1, 501)]
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        ada.type("0")
        await eve.until(lambda: eve.text == "0")
        looks = looks_at_the_log(hub, monkeypatch)
        if client == "answers nothing":
            eve.reads.clear()
        for frame in flood:
            eve.send(frame)
            if client == "answers without it":
                eve.send(encode_sync_step2(b"\0\0"))
        eve.show(7, 1, "{}")
        await ada.until(lambda: 7 in ada.shown)  # all is read by now
        assert 1 <= len(looks) <= conf().asks_max + 1
        ada.type("1")
        await stored(hub, document, 2)
        assert (ada.closed, eve.closed) == (None, None)
