"""Load that is too much: what waits is bounded, nothing is shown before its COMMIT, and nothing is lost afterwards."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from pytest_django import Settings

from documents.models import Document, Role
from history.fates import Fate, PendingUpdate, Stored
from history.folds import make_ydoc
from history.models import Kind
from realtime.hub import Hub
from realtime.outbox import Outbox
from realtime.tails import read_tail
from tests.builders import make_session
from tests.integration.realtime.rooms import empty, eventually, shared_document, stored, update_that_types
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]

WRITERS = 8
EDITS_EACH = 30
EDIT_BYTES = 2_000
READERS = 50
OPENINGS = 300
PLACE_BYTES = sys.getsizeof(object()) * 6


class DammedAppends:
    """Lets appends through to the log only while `may_go` is set."""

    def __init__(self, hub: Hub) -> None:
        self.may_go = asyncio.Event()
        self._append = hub.commits._append
        hub.commits._append = self

    async def __call__(self, batch: Sequence[PendingUpdate]) -> list[Fate]:
        await self.may_go.wait()
        fates: list[Fate] = await self._append(batch)
        return fates


async def test_while_the_database_is_slow_nothing_is_shown_and_what_waits_for_it_is_bounded(
    no_watch: None, hub: Hub, settings: Settings
) -> None:
    limit = 60_000
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNSTORED_BYTES_MAX": limit}
    names = [f"writer{number}" for number in range(WRITERS)]
    document, people = await shared_document(ada=Role.OWNER, **dict.fromkeys(names, Role.EDITOR))
    async with Socket(document.name, user=people["ada"]) as ada, asyncio.TaskGroup() as closing:
        writers = [Socket(document.name, user=people[name]) for name in names]
        await asyncio.gather(ada.until_synced(), *(writer.until_synced() for writer in writers))
        for number, writer in enumerate(writers):  # the room's gate stands, each has written before
            writer.type("a")
            await stored(hub, document, number + 1)
        await ada.until(lambda: len(ada.text) == WRITERS)

        held = DammedAppends(hub)
        for writer in writers:
            for _ in range(EDITS_EACH):
                writer.type("x" * EDIT_BYTES)
        await eventually(lambda: not hub.commits._room_for_more.is_set())
        most = await most_unstored(hub, rounds=200)
        assert most < limit + 2 * EDIT_BYTES
        assert len(ada.text) == WRITERS

        held.may_go.set()
        await ada.until(lambda: len(ada.text) == WRITERS + WRITERS * EDITS_EACH * EDIT_BYTES)
        assert await most_unstored(hub, rounds=1) == 0
        for writer in writers:
            closing.create_task(writer.__aexit__(None, None, None))


async def test_what_the_server_itself_writes_waits_too_and_no_more_of_it_goes_on_than_there_is_room_for(
    no_watch: None, hub: Hub, settings: Settings
) -> None:
    limit = 5 * EDIT_BYTES
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNSTORED_BYTES_MAX": limit}
    document, _ = await shared_document()
    session = await sync_to_async(make_session)(document)
    room = await hub.open(document.pk, empty)
    await room.write_and_wait(session, update_that_types("a", client_id=1), kind=Kind.EDIT)  # the gate stands
    held = DammedAppends(hub)
    writes = [
        asyncio.create_task(
            room.write_and_wait(session, update_that_types("x" * EDIT_BYTES, client_id=client_id), kind=Kind.EDIT)
        )
        for client_id in range(2, 40)
    ]
    await eventually(lambda: not hub.commits._room_for_more.is_set())
    most = await most_unstored(hub, rounds=200)

    def all_are_stored() -> bool:
        """Let one batch through, each time that this is asked."""
        nonlocal most
        most = max(most, hub.commits._unstored_bytes)
        held.may_go.set()
        held.may_go.clear()
        return all(write.done() for write in writes)

    await eventually(all_are_stored)
    assert [isinstance(write.result(), Stored) for write in writes] == [True] * len(writes)
    assert most < limit + 2 * EDIT_BYTES


async def most_unstored(hub: Hub, *, rounds: int) -> int:
    """The most that waits for the log while everyone gets so many turns of the event loop."""
    most = 0
    for _ in range(rounds):
        await asyncio.sleep(0)
        most = max(most, hub.commits._unstored_bytes)
    return most


async def test_a_database_that_does_not_answer_is_given_up_and_editing_goes_on_when_it_is_back(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("a")
        await bob.until(lambda: bob.text == "a")

        settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_SECONDS_MAX": 0.2}
        # What a server does that is stopped: the statement is taken, and no answer comes.
        monkeypatch.setattr(
            "history.append.LIMIT_WAITS", "SELECT current_setting('transaction_isolation'), pg_sleep(60)::text, %s"
        )
        ada.type("b")
        await asyncio.gather(ada.until(lambda: ada.closed == 1013), bob.until(lambda: bob.closed == 1013))
        assert bob.text == "a"

    monkeypatch.undo()
    await end_sleeping_statements()
    async with Socket(document.name, user=ada.user) as ada:
        await ada.until_synced()
        ada.type("c")
        await stored(hub, document, 2)


@sync_to_async
def end_sleeping_statements() -> None:
    """Their clients are gone, but the server notices only when it wants to answer."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


async def test_what_waits_for_readers_that_have_stalled_is_bounded_and_comes_in_one_update_once_they_read(
    no_watch: None, hub: Hub, settings: Settings
) -> None:
    limit = 20_000
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": limit}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        stalled = [Socket(document.name, user=people["eve"]) for _ in range(READERS)]
        await asyncio.gather(*(reader.until_synced() for reader in stalled))
        for reader in stalled:
            reader.reads.clear()
        outboxes: list[Outbox] = [each.outbox for each in hub.rooms[document.pk].members]
        received = [len(reader.received) for reader in stalled]
        most = 0
        for number in range(300):
            ada.type("k")
            await stored(hub, document, number + 1)
            most = max(most, sum(bytes_in_line(outbox) for outbox in outboxes))
        await bob.until(lambda: len(bob.text) == 300)  # nobody waits for those who do not read
        assert most <= READERS * limit
        for reader in stalled:
            reader.reads.set()
        await asyncio.gather(*(reader.until(text_is(reader, 300)) for reader in stalled))
        # What was with the server when it stalled, and one for all that overflowed.
        assert max(len(reader.received) - before for reader, before in zip(stalled, received, strict=True)) <= 3
        for reader in stalled:
            await reader.__aexit__(None, None, None)


def bytes_in_line(outbox: Outbox) -> int:
    """What is held for one reader: a place in line takes memory too, more than a keystroke does."""
    return sum(len(waiting.payload) + PLACE_BYTES for waiting in outbox._waiting)


def text_is(reader: Socket, length: int) -> Any:
    return lambda: len(reader.text) == length


async def test_many_who_open_a_document_at_once_cost_one_load(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("here already")
        await stored(hub, document, 1)
    hub.rooms[document.pk].drop("idle")
    loads: list[str] = []
    load = hub.load

    async def counted(read: Any, *args: Any, **kwargs: Any) -> Any:
        loads.append(read.__name__)
        if read is make_ydoc:
            await all_come_in(hub, document, OPENINGS)
        return await load(read, *args, **kwargs)

    monkeypatch.setattr(hub, "load", counted)
    sockets = [Socket(document.name, user=people["eve"]) for _ in range(OPENINGS)]
    await asyncio.gather(*(each.until_synced() for each in sockets))
    assert {each.text for each in sockets} == {"here already"}
    assert loads.count("make_ydoc") == 1
    assert loads.count("read_tail") == 1
    for each in sockets:
        await each.__aexit__(None, None, None)


async def all_come_in(hub: Hub, document: Document, count: int) -> None:
    """Wait until so many are on the way into the room at once."""
    await eventually(lambda: hub._entering[document.pk] == count)


async def test_many_who_come_into_an_open_room_share_a_look_at_the_log(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.type("here already")
        await stored(hub, document, 1)
        looks = 0
        load = hub.load

        async def counted(read: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal looks
            if read is read_tail:
                looks += 1
                if looks == 1:
                    await all_come_in(hub, document, OPENINGS)
            return await load(read, *args, **kwargs)

        monkeypatch.setattr(hub, "load", counted)
        sockets = [Socket(document.name, user=people["eve"]) for _ in range(OPENINGS)]
        await asyncio.gather(*(each.until_synced() for each in sockets))
        # The second one is of those who came when the first was under way: that may have begun too early for them.
        assert looks == 2
        assert {each.text for each in sockets} == {"here already"}
        for each in sockets:
            await each.__aexit__(None, None, None)
