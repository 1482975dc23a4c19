"""The watch looks whatever else goes on, and neither a hanging layer nor a failing rule stops anyone else."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction
from pytest_django import Settings

from documents.models import Document, Role
from documents.roles import access_changed
from history.models import Head, Update
from history.writes import append_update
from realtime.groups import PROCESSES_GROUP, document_group, group_name
from realtime.hub import Hub
from realtime.protocols.awareness import Claim
from tests.builders import append_rows, make_session
from tests.integration.realtime.rooms import (
    empty,
    eventually,
    restore_backup,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def quick_watch(settings: Settings) -> None:
    settings.PALIMPSEST = {"HEAD_CHECK_SECONDS": 0.1}


def groups_of(document: Document) -> set[str]:
    """The groups in which a process is that has a document open."""
    return {document_group(document.pk), group_name(document.name)}


def rule_that_fails_for_ada(user: Any, document: Document) -> Role | None:
    if user.username == "ada":
        raise RuntimeError("a fault of the host's")
    return None


async def test_a_rule_that_fails_for_one_keeps_nobody_else_in(quick_watch: None, hub: Hub, settings: Settings) -> None:
    async with ada_and_bob() as (document, _, bob):
        rule = f"{__name__}.{rule_that_fails_for_ada.__name__}"
        settings.PALIMPSEST = {**settings.PALIMPSEST, "ROLE_FOR": rule}
        await sync_to_async(access_changed)(document)
        await bob.until(lambda: bob.closed == 4403)


@pytest.mark.parametrize("rows_since", [1, 2, 3])
async def test_a_backup_is_noticed_though_its_log_has_grown_again_before_anybody_looked(
    quick_watch: None, hub: Hub, rows_since: int
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for number in (1, 2, 3):
            ada.type("a")
            await stored(hub, document, number)
        await sync_to_async(_restore_and_write)(document, rows_since)
        await ada.until(lambda: ada.closed == 1013)
    async with Socket(document.name, user=people["ada"]) as again:
        await again.until(lambda: sorted(again.text) == ["a", *"n" * rows_since])


@transaction.atomic
def _restore_and_write(document: Document, rows: int) -> None:
    kept = Update.objects.get(document=document, seq=1)
    Update.objects.filter(document=document, seq__gt=1).delete()
    Head.objects.filter(document=document).update(seq=1, hash=kept.hash, at=kept.at)
    for number in range(rows):
        append_update(make_session(document), update_that_types("n", client_id=100 + number))


async def test_a_database_restored_from_a_backup_is_noticed(quick_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for number in (1, 2, 3):
            ada.type("a")
            await stored(hub, document, number)
        await restore_backup(document, seq=1)
        await ada.until(lambda: ada.closed == 1013)


async def test_the_watch_looks_while_commits_are_under_way(quick_watch: None, hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROOM_IDLE_SECONDS": 0.0}
    document, people = await shared_document(ada=Role.OWNER)
    idle, _ = await shared_document()
    append, under_way, may_go_on = hub.commits._append, asyncio.Event(), asyncio.Event()

    async def slow_disk(batch: Any) -> Any:
        under_way.set()
        await may_go_on.wait()
        return await append(batch)

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        hub.commits._append = slow_disk
        ada.type("a")
        await under_way.wait()
        try:
            await hub.open(idle.pk, empty)
            await eventually(lambda: idle.pk not in hub.rooms)
            await sync_to_async(append_rows)(make_session(document), [update_that_types("x", client_id=7)])
            await ada.until(lambda: "x" in ada.text)
        finally:
            may_go_on.set()


class HangingLayer:
    """A channel layer that answers nothing: Valkey behind a network that swallows packets."""

    def __init__(self) -> None:
        self.is_joined = asyncio.Event()

    async def group_add(self, group: str, channel: str) -> None:
        self.is_joined.set()
        await self.hang()

    async def hang(self, *args: Any) -> Any:
        await asyncio.Event().wait()

    new_channel = group_send = receive = hang

    async def group_discard(self, group: str, channel: str) -> None:
        await self.hang()


async def test_a_layer_that_hangs_does_not_stop_the_watch(
    quick_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        layer = HangingLayer()
        monkeypatch.setattr(hub.bus, "_layer", layer)
        # It is noticed, and the watch joins the groups again.
        monkeypatch.setattr("realtime.bus.silence_seconds", lambda: 0.0)
        await layer.is_joined.wait()
        await sync_to_async(append_rows)(make_session(document), [update_that_types("x", client_id=7)])
        await ada.until(lambda: ada.text == "x")


async def test_a_consumer_of_channels_own_kind_hears_beside_the_bus_and_the_bus_beside_it(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    other = another_process()
    for each in (hub, other):
        await each.bus.ready()
    layer = get_channel_layer()
    channel = await layer.new_channel()
    heard = asyncio.create_task(layer.receive(channel))
    await layer.group_add("strangers", channel)
    await layer.group_send("strangers", {"type": "greeting"})
    assert await asyncio.wait_for(heard, 3) == {"type": "greeting"}
    heard = asyncio.create_task(layer.receive(channel))
    document, _ = await shared_document()
    room = await other.open(document.pk, empty)
    session = await sync_to_async(make_session)(document)
    await sync_to_async(append_update)(session, update_that_types("a", client_id=7))
    await eventually(lambda: room.seq == 1)
    heard.cancel()


async def test_a_layer_that_hangs_keeps_nobody_out(no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    monkeypatch.setattr(hub.bus, "_layer", HangingLayer())
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()


async def test_a_hint_that_a_layer_swallows_is_given_up_and_the_next_one_sent(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ada_and_bob() as (_, ada, bob):
        sent: list[int] = []

        async def swallow(group: str, message: dict[str, Any]) -> None:
            if message["type"] == "doc_update":
                sent.append(message["last_seq"])
                await asyncio.Event().wait()

        monkeypatch.setattr(hub.bus._layer, "group_send", swallow)
        settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.05}
        for seq, letter in enumerate("ab", 1):
            ada.type(letter)
            await bob.until(lambda letter=letter: bob.text.startswith(letter))  # type: ignore[misc]
            await eventually(lambda seq=seq: sent[-1:] == [seq])  # type: ignore[misc]


async def test_a_layer_that_fails_is_left_alone_for_a_while(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 600.0}
    tried: list[str] = []

    async def fail(group: str, message: dict[str, Any]) -> None:
        tried.append(group)
        raise ConnectionError

    monkeypatch.setattr(hub.bus._layer, "group_send", fail)
    for document_id in range(5):
        hub.bus.ask_for_presence(document_id)
    await eventually(lambda: bool(tried))
    for _ in range(100):
        await asyncio.sleep(0)
    assert tried == [document_group(0)]


async def test_a_servers_own_write_returns_though_the_layer_answers_nothing(
    no_watch: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.05}
    document, _ = await shared_document()
    session = await sync_to_async(make_session)(document)
    monkeypatch.setattr("realtime.bus.get_channel_layer", HangingLayer)
    async with asyncio.timeout(10):
        await sync_to_async(append_update)(session, update_that_types("a", client_id=7))


async def test_a_group_that_a_layer_does_not_let_go_of_keeps_no_other_from_being_joined(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _), (other, _) = await shared_document(), await shared_document()
    await hub.bus.ready()
    room = await hub.open(one.pk, empty)
    layer: Any = hub.bus._layer
    group_add, leaving, joined = layer.group_add, [], []

    async def swallow(group: str, channel: str) -> None:
        leaving.append(group)
        await asyncio.Event().wait()

    async def noted(group: str, channel: str) -> None:
        await group_add(group, channel)
        joined.append(group)

    monkeypatch.setattr(layer, "group_discard", swallow)
    monkeypatch.setattr(layer, "group_add", noted)
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.2}
    room.drop("idle")
    await eventually(lambda: set(leaving) == groups_of(one))
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 10.0}
    async with asyncio.timeout(5):
        await hub.open(other.pk, empty)
    assert set(joined) == groups_of(other)
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.2}


async def test_a_process_that_ends_waits_once_for_a_layer_that_hangs_and_not_for_each_of_its_rooms(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        document, _ = await shared_document()
        await hub.open(document.pk, empty)
    await hub.bus.ready()
    asked: list[str] = []

    class Hanging(HangingLayer):
        async def group_discard(self, group: str, channel: str) -> None:
            asked.append(group)
            await self.hang()

    monkeypatch.setattr(hub.bus, "_layer", Hanging())
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.2}
    await hub.bus.stop()
    assert len(asked) == 1


async def test_each_process_tells_of_its_own_people_alone(
    hub: Hub, another_process: Callable[[], Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    second, third = another_process(), another_process()
    room_of_second = await second.open(document.pk, empty)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.show(11, 1, '{"name":"Ada"}')
        await eventually(room_of_second.awareness.entries)
        answers: list[Sequence[Claim]] = []
        monkeypatch.setattr(second.bus, "publish_awareness", lambda document_id, claims: answers.append(claims))
        room_of_third = await third.open(document.pk, empty)
        await eventually(lambda: answers and room_of_third.awareness.entries())
        assert [list(claims) for claims in answers] == [[]]  # Ada sits in the first process


async def test_a_layer_that_hangs_ends_a_rejoining_at_its_first_group(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        document, _ = await shared_document()
        await hub.open(document.pk, empty)
    asked: list[str] = []

    class Hanging(HangingLayer):
        async def group_add(self, group: str, channel: str) -> None:
            asked.append(group)
            await super().group_add(group, channel)

    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.05}
    monkeypatch.setattr(hub.bus, "_layer", Hanging())
    monkeypatch.setattr(hub.bus, "_is_joined", False)
    await hub.bus.check()
    assert asked == [PROCESSES_GROUP]


async def test_a_group_that_could_not_be_joined_once_is_joined_by_the_watch(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 0.1}
    document, _ = await shared_document()
    await hub.bus.ready()
    await eventually(lambda: hub.bus._is_joined)
    layer: Any = hub.bus._layer
    group_add, refusals, joined = layer.group_add, [TimeoutError()], []

    async def refuse_once(group: str, channel: str) -> None:
        if group == document_group(document.pk):
            if refusals:
                raise refusals.pop()
            joined.append(group)
        await group_add(group, channel)

    monkeypatch.setattr(layer, "group_add", refuse_once)
    await hub.open(document.pk, empty)
    await eventually(lambda: bool(joined))


async def test_groups_that_a_layer_lost_are_joined_again_though_its_heartbeat_came_back(
    hub: Hub, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 0.1}
    document, _ = await shared_document()
    await hub.open(document.pk, empty)
    await eventually(lambda: hub.bus._is_joined)
    layer: Any = hub.bus._layer
    group_add, receive, joined, faults = layer.group_add, layer.receive, [], [ConnectionError()]

    async def noted(group: str, channel: str) -> None:
        joined.append(group)
        await group_add(group, channel)

    async def restarted_empty(channel: str) -> Any:
        if faults:
            for group in (PROCESSES_GROUP, document_group(document.pk)):
                await layer.group_discard(group, channel)
            raise faults.pop()
        return await receive(channel)

    monkeypatch.setattr(layer, "group_add", noted)
    monkeypatch.setattr(layer, "receive", restarted_empty)
    await eventually(lambda: document_group(document.pk) in joined)


async def test_a_group_that_could_not_be_left_once_is_left_by_the_watch(
    quick_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _ = await shared_document()
    await hub.bus.ready()
    room = await hub.open(document.pk, empty)
    layer: Any = hub.bus._layer
    group_discard, refusals, left = layer.group_discard, [TimeoutError(), TimeoutError()], []

    async def refuse_once(group: str, channel: str) -> None:
        if refusals:
            raise refusals.pop()
        await group_discard(group, channel)
        left.append(group)

    monkeypatch.setattr(layer, "group_discard", refuse_once)
    room.drop("idle")
    await eventually(lambda: sorted(left) == sorted(groups_of(document)))
    assert not refusals


async def test_a_room_that_ends_while_all_groups_are_joined_again_is_not_joined(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 10.0}
    await hub.bus.ready()
    rooms = [await hub.open((await shared_document())[0].pk, empty) for _ in range(2)]
    layer: Any = hub.bus._layer
    group_add, is_asked, may_answer, joined = layer.group_add, asyncio.Event(), asyncio.Event(), []

    async def held(group: str, channel: str) -> None:
        joined.append(group)
        if group != PROCESSES_GROUP:
            is_asked.set()
            await may_answer.wait()
        await group_add(group, channel)

    monkeypatch.setattr(layer, "group_add", held)
    rejoining = asyncio.create_task(hub.bus._rejoin(hub.now()))
    await is_asked.wait()
    [behind] = [room for room in rooms if document_group(room.document_id) not in joined]
    behind.drop("idle")
    await eventually(lambda: behind.document_id not in hub.bus._subscribed)
    may_answer.set()
    await rejoining
    assert document_group(behind.document_id) not in joined
