"""The group commit when locks are held and batches fail: nobody's room ends for it, and its accounts stay right."""

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone
from pycrdt import Doc, Text

from documents.conf import conf
from documents.models import Document, Membership, Role
from history.crdt.updates import decode_update
from history.errors import LogUnavailable
from history.fates import PendingUpdate, Reason, Refused, Stored
from history.models import Kind, Update, Via
from history.writes import write_session
from realtime.commits import Part
from realtime.hub import Hub
from realtime.protocols.frames import encode_update
from realtime.rooms import Room
from tests.builders import typed
from tests.integration.realtime.rooms import (
    HeldAppend,
    empty,
    eventually,
    folded_text,
    rows_of,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob
from tests.integration.realtime.test_rooms import hold_head, wait_until_held

pytestmark = [pytest.mark.django_db(transaction=True)]


def hold_account(user: Any, held: threading.Event, release: threading.Event) -> None:
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=user.pk)
        held.set()
        release.wait(60)
    connection.close()


async def test_an_author_whose_account_is_held_for_a_while_ends_nobodys_socket(no_watch: None, hub: Hub) -> None:
    async with ada_and_bob() as (_, ada, bob):
        held, release = threading.Event(), threading.Event()
        holding = asyncio.create_task(asyncio.to_thread(hold_account, ada.user, held, release))
        await asyncio.to_thread(held.wait, 60)
        ada.type("a")
        await eventually(lambda: bool(hub.commits._parked_since) or bob.closed is not None)
        release.set()
        await holding
        await bob.until(lambda: bob.text == "a" or bob.closed is not None)
        assert (bob.text, ada.closed, bob.closed) == ("a", None, None)


async def test_a_room_that_stood_aside_and_is_then_given_up_is_forgotten(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    answers = iter([True])

    async def busy_then_away(batch: list[PendingUpdate]) -> list[Refused]:
        if next(answers, False):
            return [Refused(Reason.BUSY)] * len(batch)
        raise LogUnavailable("away")

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        hub.commits._append = busy_then_away
        ada.type("a")
        await ada.until(lambda: ada.closed == 1013)
    assert hub.commits._parked_since == {}
    assert hub.commits._unstored_bytes == 0


async def test_bytes_are_counted_off_once_when_one_rooms_takeover_fails_beside_one_that_stood_aside(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, people = await shared_document(ada=Role.OWNER)
    failing, first = [await a_document_of(people["ada"]) for _ in range(2)]
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def append(batch: list[PendingUpdate]) -> list[Stored | Refused]:
        if not is_asked.is_set():
            is_asked.set()
            await may_answer.wait()
            raise RuntimeError("so that the other two come in one batch")
        stored = Stored(1, timezone.now(), 1)
        return [Refused(Reason.BUSY) if item.document_id == busy.pk else stored for item in batch]

    def fails(room: Room, settled: Any) -> None:
        raise RuntimeError("in the takeover")

    async with (
        Socket(busy.name, user=people["ada"]) as one,
        Socket(failing.name, user=people["ada"]) as two,
        Socket(first.name, user=people["ada"]) as three,
    ):
        await asyncio.gather(one.until_synced(), two.until_synced(), three.until_synced())
        monkeypatch.setattr(Room, "settle", fails)
        hub.commits._append = append
        three.type("c")
        await is_asked.wait()
        one.type("aaa")
        await eventually(lambda: len(hub.commits._queue) == 1)
        two.type("b")
        await eventually(lambda: len(hub.commits._queue) == 2)
        may_answer.set()
        await two.until(lambda: two.closed == 1013)
        await hub.commits.flushed()
    assert hub.commits._unstored_bytes == 0


async def a_document_of(user: Any) -> Document:
    document, _ = await shared_document()
    await Membership.objects.acreate(document=document, user=user, role=Role.OWNER)
    return document


async def test_a_document_is_not_opened_without_what_it_is_to_begin_with(
    no_watch: None, hub: Hub, settings: Any
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_LOCK_TIMEOUT_MS": 100}
    document, _ = await shared_document()
    release = threading.Event()
    holding = asyncio.create_task(asyncio.to_thread(hold_head, document, release))
    await asyncio.to_thread(wait_until_held, document)
    try:
        with pytest.raises(LogUnavailable):
            await hub.open(document.pk, template)
    finally:
        release.set()
        await holding
    await hub.open(document.pk, template)
    assert await folded_text(document) == "template"


async def template() -> "Doc[Any]":
    doc: Doc[Any] = Doc()
    doc.get("text", type=Text).insert(0, "template")
    return doc


async def test_what_gathers_into_a_row_is_joined_and_no_larger_than_what_is_read_at_once(
    no_watch: None, hub: Hub
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        release = threading.Event()
        holding = asyncio.create_task(asyncio.to_thread(hold_head, document, release))
        await asyncio.to_thread(wait_until_held, document)
        for update in typed(["a" * 9_000] * 20, client_id=9):
            ada.send(encode_update(update))
        await eventually(lambda: hub.commits._unstored_bytes > 180_000)
        release.set()
        await holding
        await bob.until(lambda: len(bob.text) == 180_000)
    rows = [payload for _, _, payload in await rows_of(document)]
    assert len(rows) < 20
    assert max(map(len, rows)) <= conf().off_loop_bytes
    assert [len(decode_update(row).structs) for row in rows] == [1] * len(rows)


async def test_a_transaction_has_no_more_rows_than_the_setting(
    no_watch: None, hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_ROWS_MAX": 2}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    sizes: list[int] = []
    append = hub.commits._append

    async def measured(batch: Sequence[PendingUpdate]) -> Any:
        sizes.append(len(batch))
        return await append(batch)

    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        ada.type("0")
        await bob.until(lambda: bob.text == "0")
        hub.commits._append = measured
        held = HeldAppend(hub)
        ada.type("1")
        await held.under_way.wait()
        for writer in (bob, ada, bob):  # by turns, so that none shares a row
            has_come = len(hub.commits._queue) + 1
            writer.type("x")
            await eventually(partial(has_in_line, hub, has_come))
        held.may_go_on.set()
        await stored(hub, document, 5)
    assert sizes == [1, 2, 1]


def has_in_line(hub: Hub, rows: int) -> bool:
    return len(hub.commits._queue) == rows


async def test_updates_of_one_session_share_a_row_only_where_they_are_of_one_kind(no_watch: None, hub: Hub) -> None:
    document, _ = await shared_document()
    room = await hub.open(document.pk, empty)
    session = await sync_to_async(write_session)(document, actor=None, via=Via.TASK)
    held = HeldAppend(hub)
    for place, kind in enumerate((Kind.EDIT, Kind.SYNC, Kind.SYNC, Kind.EDIT)):
        taken = await room.judge.take(session, update_that_types("x", client_id=7 + place))
        assert taken is not None
        hub.commits.submit(room, session, Part(taken[0]), taken[1], origin=None, kind=kind)
        if place == 0:
            await held.under_way.wait()
    held.may_go_on.set()
    await stored(hub, document, 3)
    rows = Update.objects.filter(document=document).order_by("seq")
    assert [row.kind async for row in rows] == [Kind.EDIT, Kind.SYNC, Kind.EDIT]
