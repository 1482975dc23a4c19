"""What comes in between: looks at the log, refusals and failures, each while something else is under way."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.utils import OperationalError
from pytest_django import Settings

from documents.models import Membership, Role
from history.append import raise_epoch
from history.fates import PendingUpdate, Reason
from history.gate import Gate
from history.models import Kind
from realtime.closing import Closing
from realtime.commits import Entry
from realtime.hub import Hub, drain
from tests.builders import append_rows, make_session
from tests.integration.realtime.rooms import (
    HeldAppend,
    empty,
    eventually,
    log_lacks_nothing,
    restore_backup,
    rows_of,
    shared_document,
    stored,
    take_role_by_sql,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_a_look_at_the_log_that_an_own_commit_overtakes_drops_no_room(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("a")
        await stored(hub, document, 1)
        room = hub.rooms[document.pk]
        has_looked, may_return = asyncio.Event(), asyncio.Event()
        load = hub.load

        async def load_and_wait(*args: Any) -> Any:
            found = await load(*args)
            has_looked.set()
            await may_return.wait()
            return found

        monkeypatch.setattr(hub, "load", load_and_wait)
        looking = asyncio.create_task(room.catch_up())
        await has_looked.wait()
        monkeypatch.setattr(hub, "load", load)
        ada.type("b")
        await stored(hub, document, 2)
        may_return.set()
        await looking
        assert (room.closed, ada.closed) == (False, None)


async def test_what_stands_in_line_behind_a_failed_batch_is_not_logged_without_it(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("0")
        await stored(hub, document, 1)
        full_disk = HeldAppend(hub, Reason.UNAVAILABLE)
        ada.type("a", at=1)
        await full_disk.under_way.wait()
        ada.type("b", at=2)
        await eventually(lambda: hub.commits._queue)
        full_disk.may_go_on.set()
        await ada.until(lambda: ada.closed == 1013)
        await hub.commits.flushed()
    assert await log_lacks_nothing(document)


async def test_an_update_that_builds_on_one_refused_in_its_own_batch_is_not_logged_without_it(
    no_watch: None, hub: Hub
) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("0")
        await bob.until(lambda: bob.text == "0")
        held = HeldAppend(hub)
        ada.type("1", at=1)
        await held.under_way.wait()
        await take_role_by_sql(document, bob.user)
        bobs = bob.type("bob", at=1)
        await eventually(lambda: len(hub.commits._queue) == 1)
        ada.doc.apply_update(bobs)  # from tab to tab, or by any other way than this server
        ada.type("ada", at=ada.text.index("bob") + 3)
        await eventually(lambda: len(hub.commits._queue) == 2)
        asked = len(ada.received)
        held.may_go_on.set()
        await bob.until(lambda: bob.denied > 0)
        await ada.until(lambda: any(payload[:2] == b"\x00\x00" for payload in ada.received[asked:]))
        await hub.commits.flushed()
    assert await log_lacks_nothing(document)


async def test_edits_behind_a_refusal_are_not_taken_for_saved_when_the_log_cannot_be_read(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("0")
        await bob.until(lambda: bob.text == "0")
        held = HeldAppend(hub)
        await take_role_by_sql(document, bob.user)
        bob.type("bob ")
        await held.under_way.wait()
        ada.type("ada ")
        await eventually(lambda: hub.commits._queue)

        def no_database(document_id: int) -> Gate:
            raise OperationalError("the database is away for a moment")

        monkeypatch.setattr(Gate, "load", no_database)
        held.may_go_on.set()
        await ada.until(lambda: ada.closed == 1013)


async def test_a_gate_that_the_log_cannot_bring_up_to_the_room_does_not_read_for_ever(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for number in (1, 2):
            ada.type("a")
            await stored(hub, document, number)
        await restore_backup(document, seq=1)
        hub.rooms[document.pk].judge.start_anew()
        ada.type("b")
        await ada.until(lambda: ada.closed == 1013)


async def test_a_server_side_write_into_a_room_of_another_epoch_is_turned_back_before_it_is_judged(
    no_watch: None, hub: Hub
) -> None:
    document, _ = await shared_document()
    session = await sync_to_async(make_session)(document)
    room = await hub.open(document.pk, empty)
    await room.catch_up()  # the look that comes with opening is over: nobody else notices
    await sync_to_async(raise_epoch)(document.pk, epoch=room.epoch)
    with pytest.raises(Closing):
        await room.write_and_wait(session, update_that_types("a", client_id=7), kind=Kind.EDIT)
    assert (room.closed, await rows_of(document)) == (True, [])


async def test_a_room_that_ends_while_its_gate_is_loaded_keeps_none(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _ = await shared_document()
    session = await sync_to_async(make_session)(document)
    room = await hub.open(document.pk, empty)
    has_loaded, may_return, load = asyncio.Event(), asyncio.Event(), hub.load

    async def load_and_wait(*args: Any) -> Any:
        found = await load(*args)
        has_loaded.set()
        await may_return.wait()
        return found

    monkeypatch.setattr(hub, "load", load_and_wait)
    writing = asyncio.create_task(room._take(session, update_that_types("a", client_id=7)))
    await has_loaded.wait()
    assert not room.is_idle
    room.drop("the test ends it")
    may_return.set()
    with pytest.raises(Closing):
        await writing
    assert not room.judge.has_gate


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(b"\x01\x01\x09\x00\x08\x01\x05other\x01\x7e\x00", id="a root too many"),
        pytest.param(b"\x01\x01\x09\x05\x84\x09\x04\x01x\x00", id="what builds on nothing"),
    ],
)
async def test_what_is_in_the_log_though_the_guard_refuses_it_ends_no_room(
    no_watch: None, hub: Hub, settings: Settings, update: bytes
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENT_ROOTS_MAX": 1}
    async with ada_and_bob() as (document, ada, bob):
        ada.type("a")
        await stored(hub, document, 1)
        await sync_to_async(append_rows)(make_session(document), [update])
        await hub.rooms[document.pk].catch_up()
        ada.type("b")
        await bob.until(lambda: bob.text == "ba")
        assert (ada.closed, bob.closed) == (None, None)


async def test_who_comes_while_the_server_drains_is_sent_away(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    drains, may_end = asyncio.Event(), asyncio.Event()

    async def slow_flush() -> None:
        drains.set()
        await may_end.wait()

    monkeypatch.setattr(hub.commits, "flushed", slow_flush)
    draining = asyncio.create_task(drain())
    await drains.wait()
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_answered()
        assert ada.closed == 1012
    may_end.set()
    await draining


async def test_a_drain_waits_for_what_is_being_stored_and_shows_it_before_it_closes(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as one, Socket(document.name, user=people["ada"]) as two:
        await asyncio.gather(one.until_synced(), two.until_synced())
        held = HeldAppend(hub)
        one.type("last words")
        await held.under_way.wait()
        draining = asyncio.create_task(drain())
        await eventually(lambda: hub.draining)
        for _ in range(100):  # whoever does not wait has closed by then
            await asyncio.sleep(0)
        held.may_go_on.set()
        await two.until(lambda: two.closed == 1012)
        assert two.text == "last words"
        await draining


def are_sent_away(sockets: Sequence[Socket], count: int) -> bool:
    return sum(each.closed == 1012 for each in sockets) >= count


async def test_a_drain_sends_people_away_a_few_at_a_time(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DRAIN_SECONDS": 4.0}
    monkeypatch.setattr("realtime.hub.CLOSED_AT_ONCE", 1)
    document, people = await shared_document(ada=Role.OWNER)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(Socket(document.name, user=people["ada"])) for _ in range(4)]
        await asyncio.gather(*(each.until_synced() for each in sockets))
        draining = asyncio.create_task(drain())
        for count in (1, 2, 3, 4):
            await eventually(partial(are_sent_away, sockets, count))
            assert sum(each.closed is not None for each in sockets) == count
        await draining


async def test_nothing_more_reaches_a_socket_whose_right_was_taken(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with (
        Socket(document.name, user=people["ada"]) as ada,
        Socket(document.name, user=people["ada"]) as reader,
        Socket(document.name, user=people["eve"]) as eve,
    ):
        await asyncio.gather(ada.until_synced(), reader.until_synced(), eve.until_synced())
        await Membership.objects.filter(user=people["eve"]).adelete()
        await hub.rechecks.look_at_room(hub.rooms[document.pk])
        await eve.until(lambda: eve.closed == 4403)
        before = len(eve.received)
        for text in ("s", "es"):  # what is sent to one is sent to all before the next
            ada.type(text[:1])
            await reader.until(lambda text=text: reader.text == text)  # type: ignore[misc]
        assert len(eve.received) == before


class Panic(BaseException):
    """As pyo3's PanicException, which is no Exception."""


@pytest.mark.parametrize("error", [Panic, ValueError])
async def test_a_merge_that_fails_ends_one_room_and_not_the_group_commit(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    document, people = await shared_document(ada=Role.OWNER)

    def fails(entry: Entry) -> bytes:
        raise error

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        monkeypatch.setattr(Entry, "payload", fails)
        ada.type("a")
        await ada.until(lambda: ada.closed == 1013)
        monkeypatch.undo()
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("b")
        await stored(hub, document, 1)
    assert hub.commits._unstored_bytes == 0


async def test_a_batch_that_fails_in_a_way_that_nothing_foresaw_leaves_no_bytes_counted(
    no_watch: None, hub: Hub
) -> None:
    document, people = await shared_document(ada=Role.OWNER)

    async def fails(batch: Sequence[PendingUpdate]) -> Any:
        raise RuntimeError("nobody foresaw this")

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        hub.commits._append = fails
        ada.type("a")
        await ada.until(lambda: ada.closed == 1013)
        assert hub.commits._unstored_bytes == 0
