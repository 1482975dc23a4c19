"""A refusal of one session: what the others have in line behind it is judged again, and stored if it stands alone."""

import asyncio
from collections.abc import Sequence

import pytest
from pytest_django import Settings

from documents.models import Membership, Role
from history.refusals import ROW_COST, RefusedUpdate
from realtime.hub import Hub, drain
from realtime.protocols.frames import encode_update
from tests.integration.realtime.rooms import (
    HeldAppend,
    eventually,
    log_lacks_nothing,
    refused_of,
    rows_of,
    shared_document,
    stored,
    take_role_by_sql,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_edits_in_line_behind_a_refused_one_are_stored_unless_they_build_on_it(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.EDITOR)
    async with (
        Socket(document.name, user=people["ada"]) as ada,
        Socket(document.name, user=people["bob"]) as bob,
        Socket(document.name, user=people["eve"]) as eve,
    ):
        await asyncio.gather(ada.until_synced(), bob.until_synced(), eve.until_synced())
        ada.type("0")
        await asyncio.gather(bob.until(lambda: bob.text == "0"), eve.until(lambda: eve.text == "0"))
        await take_role_by_sql(document, people["bob"])
        held = HeldAppend(hub)
        bobs = bob.type(" bob", at=1)
        await held.under_way.wait()
        eve.doc.apply_update(bobs)  # from tab to tab, or by any other way than this server
        eve.type(" eve", at=len("0 bob"))
        await eventually(lambda: len(hub.commits._queue) == 1)
        ada.type("ada ")
        await eventually(lambda: len(hub.commits._queue) == 2)
        held.may_go_on.set()
        await bob.until(lambda: bob.denied > 0)
        # Eve's client is asked for what her edit builds on, and answers with all that it has.
        await ada.until(lambda: ada.text == "ada 0 bob eve")
        assert (ada.closed, eve.closed) == (None, None)
    authors = [user for _, user, _ in await rows_of(document)]
    assert authors == [people["ada"].pk, people["ada"].pk, people["eve"].pk]
    assert await log_lacks_nothing(document)


@pytest.mark.parametrize("lowered_to", [Role.VIEWER, None])
async def test_what_builds_on_a_refused_edit_of_somebody_who_may_write_no_more_is_kept_and_not_asked_for(
    no_watch: None, hub: Hub, lowered_to: Role | None
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        bob.type("0")
        await stored(hub, document, 1)
        before = len(bob.received)
        held = HeldAppend(hub)
        first = bob.type("1", at=1)
        await held.under_way.wait()
        second = bob.type("2", at=2)
        await eventually(lambda: len(hub.commits._queue) == 1)
        if lowered_to is None:
            await take_role_by_sql(document, people["bob"])
        else:
            await Membership.objects.filter(document=document, user=people["bob"]).aupdate(role=lowered_to)
        held.may_go_on.set()
        await eventually(lambda: not hub.commits.has_more_for(hub.rooms[document.pk]))
        kept: list[bytes] = []
        async with asyncio.timeout(10):
            while second not in kept:
                await hub.refusals.flushed()
                kept = [update for _, _, updates in await refused_of(document) for update in updates]
        assert kept == [first, second]
        assert not any(payload[:2] == b"\x00\x00" for payload in bob.received[before:])  # never a SyncStep1
        if lowered_to is None:
            await eventually(lambda: bob.closed == 4403)
        else:
            assert bob.closed is None
    assert len(await rows_of(document)) == 1


@pytest.mark.parametrize("loss", ["a role", "an account"])
async def test_what_was_under_way_when_a_right_ended_is_kept(no_watch: None, hub: Hub, loss: str) -> None:
    """The close is final: its client never brings these again."""
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        bob.type("0")
        await stored(hub, document, 1)
        room = hub.rooms[document.pk]
        if loss == "a role":
            await take_role_by_sql(document, people["bob"])
        else:
            people["bob"].is_active = False
            await people["bob"].asave()
        await hub.rechecks.look_at_room(room)
        await bob.until(lambda: bob.closed is not None)
        shown = len(bob.received)
        late = [bob.type("1", at=1), bob.type("2", at=2)]
        bob.send(encode_update(room.doc.get_update()))  # says nothing new
        bob.send(b"\xff")
        bob.send_text("text")
        bob.show(7, 1, "{}")
        late.append(bob.type("3", at=3))
    await hub.refusals.flushed()
    assert [update for _, _, updates in await refused_of(document) for update in updates] == late
    assert bob.closed == (4403 if loss == "a role" else 4401)
    assert len(bob.received) == shown
    assert len(await rows_of(document)) == 1


@pytest.mark.parametrize("is_one_frame", [False, True], ids=["frames", "messages of one frame"])
async def test_no_more_is_kept_after_the_end_than_one_frame_may_hold(
    no_watch: None, hub: Hub, settings: Settings, is_one_frame: bool
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SYNC_FRAME_BYTES_MAX": 3 * ROW_COST, "FRAME_BYTES_MAX": ROW_COST}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    late = [update_that_types("late", client_id=client) for client in range(1, 6)]
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        await take_role_by_sql(document, people["bob"])
        await hub.rechecks.look_at_room(hub.rooms[document.pk])
        await bob.until(lambda: bob.closed == 4403)
        frames = [encode_update(update) for update in late]
        for frame in [b"".join(frames)] if is_one_frame else frames:
            bob.send(frame)
    await hub.refusals.flushed()
    assert [update for _, _, updates in await refused_of(document) for update in updates] == late[:2]


async def test_what_was_refused_is_kept_before_the_process_ends(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(eve=Role.VIEWER)
    is_asked, is_waited_for, may_go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    keep, flushed = hub.refusals._keep, hub.refusals.flushed

    async def held(refused: Sequence[RefusedUpdate]) -> None:
        is_asked.set()
        await may_go_on.wait()
        await keep(refused)

    async def noted() -> None:
        is_waited_for.set()
        await flushed()

    monkeypatch.setattr(hub.refusals, "_keep", held)
    monkeypatch.setattr(hub.refusals, "flushed", noted)
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until_synced()
        offline = eve.type("offline")
        await is_asked.wait()
        draining = asyncio.create_task(drain())
        await eve.until(lambda: eve.closed == 1012)
        await eventually(is_waited_for.is_set)
        may_go_on.set()
        await draining
    assert await refused_of(document) == [(people["eve"].pk, "not_allowed", [offline])]
