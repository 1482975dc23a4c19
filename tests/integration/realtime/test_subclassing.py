"""Consumers of others, written for pycrdt-websocket and ypy-websocket, and what code of one's own says to a room."""

import asyncio
import gc
import importlib.util
import logging
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.db import OperationalError
from pycrdt import Doc, Text, create_sync_message, create_update_message
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.roles import access_changed, role_for
from history.models import Kind, Session, Update, Via
from realtime.groups import document_group, group_name, notifications_group
from realtime.hub import Hub
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import encode_awareness, encode_update
from realtime.yjs_consumers import APPENDING_COST_BYTES, YjsConsumer
from tests.integration.realtime.rooms import (
    HeldAppend,
    empty,
    eventually,
    rows_of,
    shared_document,
    stored,
    update_that_types,
)
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]

NEWSROOM = Path(__file__).parents[2] / "host_project" / "newsroom"
UPDATE_FRAME = b"\x00\x02"
BETWEEN = b"\x01\x01\x02\x00\xc4\x01\x01\x01\x02\x01x\x00"
"""Client 2 types an x between the halves of the emoji that client 1 has typed at 1 and 2."""
OWN_FRAME = b"\x64of our own"


def words_of_others(name: str) -> ModuleType:
    """A module of the host project, loaded anew."""
    spec = importlib.util.spec_from_file_location(name, NEWSROOM / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def updates_to(socket: Socket) -> list[bytes]:
    return [frame for frame in socket.received if frame.startswith(UPDATE_FRAME)]


async def say(group: str, **message: Any) -> None:
    await get_channel_layer().group_send(group, message)


async def doors_of(document: Document) -> list[tuple[str, Any, int]]:
    """By row: through which door, of whom, and its kind."""

    @sync_to_async
    def read() -> list[tuple[str, Any, int]]:
        sessions = {each.id: each for each in Session.objects.filter(document=document)}
        rows = Update.objects.filter(document=document).order_by("seq")
        return [(Via(sessions[row.session_id].via).label, sessions[row.session_id].user_id, row.kind) for row in rows]

    return await read()


async def settled(hub: Hub, document: Document, *sockets: Socket) -> None:
    """Wait until all that was sent to a room before has been handled, as a message of our own behind it has."""
    before = [socket.received.count(OWN_FRAME) for socket in sockets]
    await say(group_name(document.name), type="send_message", message=OWN_FRAME)
    for socket, count in zip(sockets, before, strict=True):
        await socket.until(lambda socket=socket, count=count: socket.received.count(OWN_FRAME) > count)  # type: ignore[misc]


# The documented consumers


@pytest.mark.parametrize("name", ["notes", "old_notes"])
async def test_the_documented_consumer_logs_and_delivers_what_is_sent_to_its_group_once_for_all_processes(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = words_of_others(name)
    seen: list[bytes] = []
    monkeypatch.setattr(module.DocConsumer, "on_update_event", lambda self, event: seen.append(event.update))
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    others = [another_process(), another_process()]
    rooms = [await each.open(document.pk, empty) for each in others]
    ada, bob = (Socket(document.name, user=people[who], consumer=module.DocConsumer) for who in ("ada", "bob"))
    async with ada, bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        typed = ada.type("ada")
        await bob.until(lambda: bob.text == "ada")
        pushed = update_that_types("!", client_id=7)
        for _ in range(3):
            await sync_to_async(module.send_doc_update)(document.name, pushed)
        for each in (ada, bob):
            await each.until(lambda each=each: "!" in each.text)  # type: ignore[misc]
        await eventually(lambda: all(room.seq == 2 for room in rooms))
        await settled(hub, document, ada, bob)
        assert seen == [typed, pushed]
        assert updates_to(ada) == [encode_update(pushed)]
        assert updates_to(bob) == [encode_update(typed), encode_update(pushed)]
    assert await doors_of(document) == [
        ("websocket", people["ada"].pk, Kind.SYNC),
        ("channel", None, Kind.EDIT),
    ]


async def test_the_documented_check_keeps_nobody_waiting_and_lets_nobody_in(hub: Hub) -> None:
    module = words_of_others("notes")
    document, _ = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, consumer=module.DocConsumer) as nobody:
        await nobody.until_answered()
        assert (nobody.accepted, nobody.received) == (False, [])


class Attributes(YjsConsumer):
    """Notes what a consumer has at each moment of its life."""

    noted: list[tuple[str, Any, Any, Any]] = []

    def note(self, moment: str) -> None:
        text = None if self.ydoc is None else str(self.ydoc.get("text", type=Text))
        shim = None if self._websocket_shim is None else self._websocket_shim.path
        self.noted.append((moment, self.room_name, text, shim))

    async def make_ydoc(self) -> "Doc[Any]":
        self.note("make_ydoc")
        return Doc()

    async def connect(self) -> None:
        self.note("before")
        await super().connect()
        self.note("connected")

    async def disconnect(self, code: int) -> None:
        self.note("disconnect")
        await super().disconnect(code)


async def test_a_consumer_has_the_attributes_of_pycrdt_websockets_when_that_has_them(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    consumer: type[Attributes] = type("Fresh", (Attributes,), {"noted": []})
    async with Socket(document.name, user=people["ada"], consumer=consumer) as ada:
        await ada.until_synced()
        ada.type("a")
        await stored(hub, document, 1)
    path = f"/ws/{document.name}"
    assert consumer.noted == [
        ("before", None, None, None),
        ("make_ydoc", document.name, None, path),
        ("connected", document.name, "", path),
        ("disconnect", document.name, "a", path),
    ]


async def test_what_a_consumer_sends_to_its_group_reaches_everyone_once_and_edits_are_its_users(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.VIEWER)
    consumers: dict[Any, YjsConsumer] = {}

    class Kept(YjsConsumer):
        async def connect(self) -> None:
            await super().connect()
            consumers[self.scope["user"].username] = self

    other = another_process()
    await other.open(document.pk, empty)
    sockets = [Socket(document.name, user=people[who], consumer=Kept) for who in ("ada", "bob", "eve")]
    async with sockets[0] as ada, sockets[1] as bob, sockets[2] as eve:
        await asyncio.gather(*(each.until_synced() for each in sockets))
        of_ada, of_eve = consumers["ada"], consumers["eve"]
        one, two, three = (update_that_types(word, client_id=number) for number, word in enumerate("abc", 3))
        await of_ada.group_send_message(create_update_message(one))
        of_ada.ydoc.apply_update(two)
        await stored(hub, document, 2)
        await of_ada._websocket_shim.send(OWN_FRAME)
        other.bus.publish_message(document.pk, OWN_FRAME + b" from elsewhere")
        await of_ada.group_send_message(create_sync_message(of_ada.ydoc))
        with pytest.raises(Exception, match="may not write"):
            await of_eve.group_send_message(create_update_message(three))
        for each in sockets:
            await each.until(lambda each=each: any(OWN_FRAME + b" from" in frame for frame in each.received))  # type: ignore[misc]
            counted = Counter(each.received)
            assert {counted[encode_update(update)] for update in (one, two)} == {1}
            assert (counted[OWN_FRAME], counted[encode_update(three)]) == (1, 0)
        assert ada.closed is bob.closed is eve.closed is None
    assert await doors_of(document) == [("websocket", people["ada"].pk, Kind.SYNC)] * 2


# The public group


async def test_whatever_is_sent_to_the_public_group_reaches_each_socket_once_and_closes_none(
    no_watch: None, hub: Hub, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UPDATE_BYTES_MAX": 5000, "FRAME_BYTES_MAX": 6000}
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    group = group_name(document.name)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        ada.show(ada.doc.client_id, 1, '{"user": {"name": "Ada"}}')
        await bob.until(lambda: ada.doc.client_id in bob.shown)
        update = update_that_types("words", client_id=7)
        await say(group, type="send_message", message=create_update_message(update))
        await say(group, type="doc_update", update=update)
        awareness = [AwarenessEntry(5, 1, '{"user": {"name": "a task"}}'), AwarenessEntry(ada.doc.client_id, 9, None)]
        await say(group, type="send_message", message=encode_awareness(awareness))
        for hostile in (
            {"type": "doc_update", "update": b"\xff\xff\xff\xff\x0f"},
            {"type": "doc_update", "update": b"\x01\x01\x02\x01\x84\x02\x00\x01y\x00"},  # builds on what is not there
            {"type": "doc_update", "update": update_that_types("x" * 9000, client_id=9)},
            {"type": "doc_update", "update": "text"},
            {"type": "doc_update"},
            {"type": "send_message", "message": b""},
            {"type": "send_message", "message": b"\x00\x02\x05\x01"},
            {"type": "send_message", "message": b"\x64" + bytes(7000)},
            {"type": "send_message", "message": 7},
            {"type": "close"},
            {"type": "websocket.disconnect", "code": 4403},
            {"type": "disconnect", "code": 4403},
            {"type": "make.ydoc"},
            {"type": "_enter"},
            {"no": "type"},
        ):
            await say(group, **hostile)
        await settled(hub, document, ada, bob)
        for each in (ada, bob):
            assert [frame for frame in each.received if frame.startswith(UPDATE_FRAME)] == [encode_update(update)]
            assert (each.text, each.closed) == ("words", None)
            state = each.state_of(5)
            assert state is not None and state["user"] == {"name": "a task", "id": None, "verified": False}
        ada_as_shown = bob.state_of(ada.doc.client_id)
        assert ada_as_shown is not None and ada_as_shown["user"]["verified"]
        assert bob.received.count(OWN_FRAME) == ada.received.count(OWN_FRAME) == 1
    assert await doors_of(document) == [("channel", None, Kind.EDIT)]
    assert len([each for each in caplog.messages if each.startswith("not taken from the channel layer")]) == 15


async def test_processes_that_take_a_message_at_the_same_moment_log_it_once(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    hubs = [hub, another_process(), another_process()]
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        rooms = [await each.open(document.pk, empty) for each in hubs]
        held = [HeldAppend(each) for each in hubs]
        update = update_that_types("words", client_id=7)
        await say(group_name(document.name), type="doc_update", update=update)
        for each in held:
            await each.under_way.wait()
        for each in held:
            each.may_go_on.set()
        await ada.until(lambda: ada.text == "words")
        await eventually(lambda: all(room.seq == 1 and room.is_idle for room in rooms[1:]))
        ada.type("more ")  # on all of them people write on
        await eventually(lambda: all(room.seq == 2 for room in rooms))
        assert updates_to(ada) == [encode_update(update)]
        assert [room.closed for room in rooms] == [False] * 3
    assert [via for via, _, _ in await doors_of(document)] == ["channel", "websocket"]


async def test_without_channel_messages_the_public_group_is_ignored_with_one_line_in_the_log(
    no_watch: None, hub: Hub, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CHANNEL_MESSAGES": False}
    document, people = await shared_document(ada=Role.OWNER)
    update = update_that_types("words", client_id=7)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        await say(group_name(document.name), type="doc_update", update=update)
        await eventually(lambda: any("CHANNEL_MESSAGES is off" in each for each in caplog.messages))
        for message in ({"type": "doc_update", "update": update}, {"type": "send_message", "message": OWN_FRAME}):
            hub.rooms[document.pk].public.hear(message)
        settings.PALIMPSEST = {**settings.PALIMPSEST, "CHANNEL_MESSAGES": True}
        await settled(hub, document, ada)
        assert (ada.text, ada.received.count(OWN_FRAME)) == ("", 1)
    assert len([each for each in caplog.messages if "CHANNEL_MESSAGES" in each]) == 1
    assert await rows_of(document) == []


async def test_what_floods_the_public_group_is_dropped_beyond_what_may_wait(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("realtime.public_groups.WAITING_MAX", 3)
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        public = hub.rooms[document.pk].public
        for _ in range(5):
            public.hear({"type": "send_message", "message": OWN_FRAME})
        await ada.until(lambda: ada.received.count(OWN_FRAME) == 3)
        await settled(hub, document, ada)
        assert ada.received.count(OWN_FRAME) == 4
    assert len([each for each in caplog.messages if "a message is lost" in each]) == 2


@sync_to_async
def a_document_named(name: str, owner: Any) -> Document:
    document = Document.objects.create(name=name, title=name)
    Membership.objects.create(document=document, user=owner, role=Role.OWNER)
    return document


@pytest.mark.parametrize("name", ["notifications_7", "chat_hall", "palimpsest.processes", "a room/é", "x" * 150])
async def test_a_room_of_any_name_has_a_public_group_that_is_nobody_elses(no_watch: None, hub: Hub, name: str) -> None:
    ada = await sync_to_async(get_user_model().objects.create)(username="ada")
    document = await a_document_named(name, ada)
    async with Socket(name, user=ada) as socket:
        await socket.until_synced()
        update = update_that_types("words", client_id=7)
        if name == notifications_group(7):
            await say(name, type="doc_update", update=update)
            await say(document_group(document.pk), type="doc_update", update=update)
            await settled(hub, document, socket)
            assert await rows_of(document) == []
        await say(group_name(name), type="doc_update", update=update)
        await socket.until(lambda: socket.text == "words")
    assert await doors_of(document) == [("channel", None, Kind.EDIT)]


class WithHandlers(YjsConsumer):
    """Has a message of its own, and takes updates with a stamp."""

    async def somebody_knocked(self, message: dict[str, Any]) -> None:
        await self.send(bytes_data=OWN_FRAME + message["who"].encode())

    async def doc_update(self, update_wrapper: YjsConsumer.WrappedUpdate) -> None:
        if update_wrapper["update"] == b"fail":
            raise RuntimeError("a fault of the host's")
        await super().doc_update(update_wrapper)
        await self.group_send_message(OWN_FRAME)


async def test_a_consumers_own_handlers_run_for_each_socket_and_its_doc_update_once_for_all(
    no_watch: None, hub: Hub
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    group = group_name(document.name)
    sockets = [Socket(document.name, user=people[who], consumer=WithHandlers) for who in ("ada", "bob")]
    async with sockets[0], sockets[1]:
        await asyncio.gather(*(each.until_synced() for each in sockets))
        await say(group, type="doc.update", update=b"fail")
        await say(group, type="doc_update", update=b"fail")
        await say(group, type="somebody.knocked", who="eve")
        await say(group, type="doc.update", update=update_that_types("words", client_id=7))
        for each in sockets:
            await each.until(lambda each=each: OWN_FRAME in each.received)  # type: ignore[misc]
            await each.until(lambda each=each: OWN_FRAME + b"eve" in each.received)  # type: ignore[misc]
            assert (Counter(each.received)[OWN_FRAME], each.text, each.closed) == (1, "words", None)
    assert await doors_of(document) == [("channel", None, Kind.EDIT)]


# Observers


class Observing(YjsConsumer):
    """Begins with a letterhead and keeps what it observes."""

    letterhead = ""
    made: list["weakref.ref[Doc[Any]]"] = []
    seen: list[bytes] = []
    deltas: list[Any] = []
    texts: list[str] = []

    async def make_ydoc(self) -> "Doc[Any]":
        doc: Doc[Any] = Doc()
        self.body = doc.get("text", type=Text)
        if self.letterhead:
            self.body.insert(0, self.letterhead)
        doc.observe(self.on_update_event)
        self.body.observe(self.on_text)
        self.made.append(weakref.ref(doc))
        return doc

    async def on_update_event(self, event: Any) -> None:
        self.seen.append(event.update)
        if self.ydoc is not None:
            self.texts.append(str(self.ydoc.get("text", type=Text)))

    def on_text(self, event: Any) -> None:
        self.deltas.append(event.delta)


@pytest.fixture
def observing() -> type[Observing]:
    return type("FreshObserving", (Observing,), {"made": [], "seen": [], "deltas": [], "texts": []})


async def test_observers_outlive_the_socket_that_made_them_and_see_what_other_processes_store(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub], observing: type[Observing]
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    other = another_process()
    elsewhere = await other.open(document.pk, empty)
    async with Socket(document.name, user=people["bob"], consumer=observing) as bob:
        async with Socket(document.name, user=people["ada"], consumer=observing) as ada:
            await asyncio.gather(ada.until_synced(), bob.until_synced())
        update = update_that_types("from elsewhere", client_id=7)
        await elsewhere.write_and_wait(other.rooms[document.pk].public.session, update, kind=Kind.EDIT)
        await bob.until(lambda: bob.text == "from elsewhere")
        await eventually(lambda: bool(observing.texts))
    assert (len(observing.made), observing.seen, observing.texts) == (1, [update], ["from elsewhere"])
    assert observing.deltas == [[{"insert": "from elsewhere"}]]


async def test_what_a_socket_observes_by_itself_ends_with_it(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    told: list[str] = []

    class ForItself(YjsConsumer):
        async def connect(self) -> None:
            await super().connect()
            self.ydoc.observe(lambda event: told.append(self.scope["user"].username))

    async with Socket(document.name, user=people["bob"], consumer=ForItself) as bob:
        async with Socket(document.name, user=people["ada"], consumer=ForItself) as ada:
            await asyncio.gather(ada.until_synced(), bob.until_synced())
            ada.type("a")
            await bob.until(lambda: bob.text == "a")
            assert sorted(told) == ["ada", "bob"]
        told.clear()
        bob.type("b")
        await stored(hub, document, 2)
        assert told == ["bob"]


async def test_observers_come_to_a_room_that_another_door_has_opened_while_people_type_there(
    no_watch: None, hub: Hub, observing: type[Observing]
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for place in range(30):
            ada.type("a", at=place)
        async with Socket(document.name, user=people["bob"], consumer=observing) as bob:
            for place in range(30, 60):
                ada.type("b", at=place)
                await asyncio.sleep(0)
            await bob.until_synced()
            await bob.until(lambda: bob.text == "a" * 30 + "b" * 30)
            last = ada.type("!", at=60)
            await eventually(lambda: observing.seen[-1:] == [last])
            assert str(hub.rooms[document.pk].doc.get("text", type=Text)) == ada.text
            assert (ada.closed, len(observing.made)) == (None, 1)


async def test_observers_come_to_an_open_room_before_anybody_who_has_them_is_in(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    under_way, may_go_on = asyncio.Event(), asyncio.Event()
    made: list[Doc[Any]] = []

    async def make_ydoc() -> "Doc[Any]":
        under_way.set()
        await may_go_on.wait()
        made.append(Doc())
        return made[-1]

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        coming = [asyncio.create_task(hub.open(document.pk, make_ydoc)) for _ in range(2)]
        await under_way.wait()
        assert not any(each.done() for each in coming)
        may_go_on.set()
        first, second = await asyncio.gather(*coming)
        assert (first.doc, second.doc) == (made[0], made[0])


async def test_observers_that_could_not_come_to_an_open_room_come_with_the_next_who_has_them(
    no_watch: None, hub: Hub, observing: type[Observing], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        room = hub.rooms[document.pk]
        tail_after = room.tail_after

        async def failing(after: int) -> Any:
            if observing.made:
                monkeypatch.undo()
                raise OperationalError("the database is away")
            return await tail_after(after)

        monkeypatch.setattr(room, "tail_after", failing)
        async with Socket(document.name, user=people["bob"], consumer=observing) as bob:
            await bob.until(lambda: bob.closed == 1013)
        async with Socket(document.name, user=people["bob"], consumer=observing) as bob:
            await bob.until_synced()
            typed = ada.type("a")
            await eventually(lambda: observing.seen[-1:] == [typed])


async def test_what_code_applies_to_its_document_faster_than_the_log_takes_it_is_bounded(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.yjs_consumers.APPENDING_BYTES_MAX", 5 * APPENDING_COST_BYTES)

    class Applying(YjsConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            if bytes_data is not None and bytes_data[:1] == OWN_FRAME[:1]:
                self.ydoc.apply_update(bytes_data[1:])
            else:
                await super().receive(text_data, bytes_data)

    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"], consumer=Applying) as ada:
        await ada.until_synced()
        held = HeldAppend(hub)
        for client_id in range(7, 17):
            ada.send(OWN_FRAME[:1] + update_that_types("a", client_id=client_id))
        await ada.until(lambda: ada.closed == 1013)
        held.may_go_on.set()
    await hub.commits.flushed()
    assert len(await rows_of(document)) <= 6


async def test_a_consumer_that_makes_no_document_is_told_so(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(YjsConsumer):
        async def make_ydoc(self) -> "Doc[Any]":
            return None  # type: ignore[return-value]

    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"], consumer=Forgetful) as ada:
        await ada.until(lambda: ada.closed == 1013)
    assert "make_ydoc returns a Doc" in caplog.text


async def test_a_consumer_whose_disconnect_fails_lets_go_of_its_room(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    consumers: list[YjsConsumer] = []

    class Failing(YjsConsumer):
        async def disconnect(self, code: int) -> None:
            consumers.append(self)
            raise LookupError("of one's own")

    with pytest.raises(LookupError):
        async with Socket(document.name, user=people["ada"], consumer=Failing) as ada:
            await ada.until_synced()
    assert [each.connection for each in consumers] == [None]


async def test_a_room_that_is_opened_again_observes_the_log_and_not_what_it_would_begin_with(
    no_watch: None, hub: Hub, observing: type[Observing]
) -> None:
    observing.letterhead = "Dear "
    document, people = await shared_document(ada=Role.OWNER)
    for opened, word in enumerate(("Bob", "Eve"), 1):
        async with Socket(document.name, user=people["ada"], consumer=observing) as ada:
            await ada.until_synced()
            known = len(observing.seen)
            typed = ada.type(word, at=len(ada.text))
            await stored(hub, document, opened + 1)
            await eventually(lambda known=known: len(observing.seen) > known)  # type: ignore[misc]
            assert observing.seen[-1] == typed
            assert str(hub.rooms[document.pk].doc.get("text", type=Text)) == ada.text
        hub.rooms[document.pk].drop("idle")
    assert all(each in observing.deltas[-2] for each in ({"delete": 5}, {"insert": "Dear Bob"}))
    assert observing.deltas[-1] == [{"retain": 8}, {"insert": "Eve"}]
    assert [kind for _, _, kind in await doors_of(document)] == [Kind.SEED, Kind.SYNC, Kind.SYNC]


async def test_a_document_is_freed_with_its_observers_when_it_is_folded_anew_and_when_its_room_ends(
    no_watch: None, hub: Hub, observing: type[Observing]
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"], consumer=observing) as ada:
        await ada.until_synced()
        ada.send(encode_update(update_that_types("a😀b", client_id=1)))
        await stored(hub, document, 1)
        ada.send(encode_update(BETWEEN))
        await stored(hub, document, 3)
        gc.collect()
        assert [made() is None for made in observing.made] == [True, False]
    hub.rooms[document.pk].drop("idle")
    await asyncio.sleep(0)
    gc.collect()
    assert [made() is None for made in observing.made] == [True, True]


async def test_an_edit_of_the_document_past_the_log_is_shown_to_nobody_and_has_the_room_loaded_again(
    no_watch: None, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    consumers: list[YjsConsumer] = []

    class Kept(YjsConsumer):
        async def connect(self) -> None:
            await super().connect()
            consumers.append(self)

    async with Socket(document.name, user=people["ada"], consumer=Kept) as ada:
        await ada.until_synced()
        consumers[0].ydoc.get("text", type=Text).insert(0, "not logged")
        await ada.until(lambda: ada.closed == 1013)
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        assert (ada.text, bob.text) == ("", "")
    assert await rows_of(document) == []
    assert [each.levelno for each in caplog.records if "past the log" in each.message][:1] == [logging.ERROR]


# Rights of one's own


class OfADesk(YjsConsumer):
    """Lets everybody who has an account write, but those whom the project's rule makes viewers or shuts out by name."""

    out: set[str] = set()

    def get_role(self, user: Any, document: Document) -> Role | None:
        if not user.is_authenticated or user.username in self.out:
            return None
        return role_for(user, document) or Role.EDITOR


class OfADeskLater(OfADesk):
    async def get_role(self, user: Any, document: Document) -> Role | None:  # type: ignore[override]
        return await sync_to_async(super().get_role)(user, document)


@pytest.mark.parametrize("base", [OfADesk, OfADeskLater])
async def test_a_consumers_get_role_lets_in_shuts_out_and_holds_in_the_append(
    no_watch: None, hub: Hub, base: type[OfADesk]
) -> None:
    consumer: type[OfADesk] = type("Fresh", (base,), {"out": {"eve"}})
    document, people = await shared_document(vic=Role.VIEWER, eve=Role.OWNER)
    stranger = (await shared_document(stranger=Role.OWNER))[1]["stranger"]
    async with Socket(document.name, user=people["eve"], consumer=consumer) as eve:
        await eve.until_answered()
        assert eve.closed == 4404
    async with (
        Socket(document.name, user=stranger, consumer=consumer) as guest,
        Socket(document.name, user=people["vic"], consumer=consumer) as vic,
        Socket(document.name, user=people["eve"]) as elsewhere,
    ):
        await asyncio.gather(guest.until_synced(), vic.until_synced(), elsewhere.until_synced())
        guest.type("a")
        await stored(hub, document, 1)
        vic.type("b")
        await vic.until(lambda: vic.denied == 1)
        await sync_to_async(access_changed)(document)  # asked again: it says the same
        guest.type("c")
        await stored(hub, document, 2)
        consumer.out.add("stranger")
        elsewhere.type("d")
        await stored(hub, document, 3)
        await sync_to_async(access_changed)(document)
        guest.type("too late")
        await guest.until(lambda: guest.closed == 4403)
    assert [user for _, user, _ in await rows_of(document)] == [stranger.pk, stranger.pk, people["eve"].pk]


async def test_a_subprotocol_that_a_client_offers_is_taken_so_that_browsers_stay(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    for offered, taken in (([], None), (["yjs.v1", "token"], "yjs.v1")):
        async with Socket(document.name, user=people["ada"], subprotocols=offered) as ada:
            await ada.until_synced()
            assert (ada.accepted, ada.subprotocol) == (True, taken)
