"""Handlers of synchronous consumers that block, fail or are one's own: they are nobody else's trouble."""

import asyncio
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from django.db import connections
from pytest_django import Settings

from documents.models import Membership, Role
from realtime import handler_threads
from realtime.chat.consumers import ChatConsumer
from realtime.chat.posting import send_chat_message
from realtime.groups import chat_group
from realtime.hub import Hub
from tests.builders import make_user
from tests.integration.realtime.chatting import ChatSocket, texts_of
from tests.integration.realtime.rooms import eventually, shared_document
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


class Blocking(ChatConsumer):
    """Its handler blocks until `may_go_on`, where somebody says `block`."""

    blocked = 0
    may_go_on = threading.Event()
    databases: list[Any] = []

    def say(self, content: dict[str, Any]) -> None:
        if content["message"] == "block":
            kind = type(self)
            kind.databases.append(connections["default"])
            kind.blocked += 1
            assert kind.may_go_on.wait(30)
        super().say(content)


@pytest.fixture
def blocking() -> type[Blocking]:
    fresh = {"blocked": 0, "may_go_on": threading.Event(), "databases": []}
    return type("FreshBlocking", (Blocking,), fresh)


async def test_a_handler_that_blocks_delays_no_other_socket_of_any_door(hub: Hub, blocking: type[Blocking]) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with (
        ChatSocket(document.name, user=people["ada"], consumer=blocking) as stuck,
        ChatSocket(document.name, user=people["bob"], consumer=blocking) as alike,
        ChatSocket(document.name, user=people["bob"]) as stock,
        Socket(document.name, user=people["bob"]) as editor,
    ):
        await asyncio.gather(stuck.until_in(), alike.until_in(), stock.until_in(), editor.until_synced())
        stuck.say("block")
        await eventually(lambda: blocking.blocked == 1)
        alike.say("one")
        for each in (stuck, alike, stock):  # what others say reaches the one that is stuck as well
            await each.until_said("one")
        stock.say("two")
        for each in (stuck, alike, stock):
            await each.until_said("one", "two")
        editor.type("three")
        await eventually(lambda: hub.rooms[document.pk].seq == 1)
        async with asyncio.timeout(5):
            assert await sync_to_async(lambda: threading.current_thread().name)()  # the thread that Django shares
        async with ChatSocket(document.name, user=people["bob"], consumer=blocking) as late:
            await late.until_in()
        await Membership.objects.filter(user=people["ada"]).adelete()
        hub.rechecks.look_at_document_soon(document.pk)
        assert await stuck.until_closed() == 4403  # though its handler still blocks
        blocking.may_go_on.set()
    assert await texts_of(document) == ["one", "two"]  # by then nobody may say it


@pytest.mark.parametrize("blocks_before_its_lobby", [True, False])
async def test_a_handler_that_lets_somebody_in_too_late_leaves_nothing_behind(
    hub: Hub, blocking: type[Blocking], settings: Settings, blocks_before_its_lobby: bool
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "AUTHENTICATE_SECONDS": 0.2}
    ended = threading.Event()

    class Slow(blocking):  # type: ignore[misc, valid-type]
        def enter(self) -> None:
            try:
                if blocks_before_its_lobby:
                    self.may_go_on.wait(30)
                super().enter()
            finally:
                ended.set()

        def _start(self) -> Any:
            if not blocks_before_its_lobby:
                self.may_go_on.wait(30)
            return super()._start()

    (ada,) = [await sync_to_async(make_user)("ada")]
    async with ChatSocket("lobby", user=ada, consumer=Slow) as late:
        assert await late.until_closed() == 1013
    blocking.may_go_on.set()
    await eventually(ended.is_set)
    await eventually(lambda: not list(hub.guests))
    assert len(hub.sockets) == 0


async def test_blocked_handlers_are_bounded_and_whoever_waits_in_vain_is_told(
    hub: Hub, blocking: type[Blocking], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {**settings.PALIMPSEST, "HANDLER_THREADS": 3}
    settings.PALIMPSEST = {**limits, "HANDLER_WAIT_SECONDS": 30.0}
    monkeypatch.setattr(handler_threads, "IDLE_SECONDS_MAX", 0.01)
    ada = await sync_to_async(make_user)("ada")
    threads = hub.guests.threads_of(blocking)
    sockets = [ChatSocket("lobby", user=ada, consumer=blocking) for _ in range(6)]
    for each in sockets:
        await each.until_in()
    for each in sockets[:3]:
        each.say("block")
    await eventually(lambda: blocking.blocked == 3)
    settings.PALIMPSEST = {**limits, "HANDLER_WAIT_SECONDS": 0.05}
    for each in sockets[3:]:
        each.say("free?")
        await each.until(lambda each=each: each.errors == ["busy"])  # type: ignore[misc]
    assert len(threads) == 3
    async with ChatSocket("lobby", user=ada, consumer=blocking) as late:
        assert (await late.until_closed(), late.reason) == (1013, "all handlers are busy: HANDLER_THREADS")
        assert late.accepted
    async with ChatSocket("lobby", user=ada) as stock:  # of another class
        await stock.until_in()
        stock.say("here")
        await stock.until_said("here")
    settings.PALIMPSEST = {**limits, "HANDLER_WAIT_SECONDS": 30.0}
    blocking.may_go_on.set()
    sockets[3].say("now?")
    await sockets[3].until(lambda: "now?" in sockets[3].said)
    for each in sockets:
        async with each:
            pass
    await eventually(lambda: len(threads) == 0)
    await eventually(lambda: all(each.connection is None for each in blocking.databases))
    assert len(blocking.databases) == 3


async def test_a_consumer_of_ones_own_hears_each_message_once_and_in_order_in_its_own_handlers(hub: Hub) -> None:
    class Shouting(ChatConsumer):
        groups = ["everywhere"]
        heard: list[str] = []

        def make_room_name(self) -> str:
            return "shouting"

        def chat_message(self, event: dict[str, Any]) -> None:
            self.heard.append(event["message"])
            self.send_json({"message": event["message"].upper()})

        def typing(self, event: dict[str, Any]) -> None:
            self.send_json({"typing": event["who"]})

        def news(self, event: dict[str, Any]) -> None:
            self.send_json({"news": event["what"]})

        def handlers(self) -> Any:
            return {**super().handlers(), "typing": self.tell_typing, "fail": self.fail}

        def tell_typing(self, content: dict[str, Any]) -> None:
            event = {"type": "typing", "who": str(self.user)}
            async_to_sync(self.channel_layer.group_send)(self.room_group_name, event)

        def fail(self, content: dict[str, Any]) -> None:
            raise RuntimeError("a fault of the host's")

    ada = await sync_to_async(make_user)("ada")
    async with ChatSocket("ignored", user=ada, consumer=Shouting) as socket:
        await socket.until_in()
        for number in range(5):
            socket.say(f"a{number}")
        await socket.until_said(*(f"A{number}" for number in range(5)))
        assert Shouting.heard == [f"a{number}" for number in range(5)]
        socket.send({"type": "typing"})
        await socket.until(lambda: {"typing": "ada"} in socket.received)
        await get_channel_layer().group_send(chat_group("shouting"), {"type": "fail"})  # clients alone ask for that
        await get_channel_layer().group_send("everywhere", {"type": "news", "what": "none"})
        await socket.until(lambda: {"news": "none"} in socket.received)
        socket.send({"type": "fail"})
        assert await socket.until_closed() == 1013


async def test_a_consumer_that_joins_groups_by_itself_works_as_under_channels(hub: Hub) -> None:
    class Tutorial(ChatConsumer):
        def connect(self) -> None:
            self.room_group_name = chat_group("tutorial")
            async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
            self.accept()

        def disconnect(self, code: int) -> None:
            async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)
            gone.append(code)

        def receive_json(self, content: dict[str, Any], **_: Any) -> None:
            event = {"type": "chat_message", "message": content["message"]}
            async_to_sync(self.channel_layer.group_send)(self.room_group_name, event)

    gone: list[int] = []
    async with ChatSocket("tutorial", consumer=Tutorial) as first, ChatSocket("tutorial", consumer=Tutorial) as second:
        await asyncio.gather(first.until(lambda: first.accepted), second.until(lambda: second.accepted))
        first.say("hello")
        await asyncio.gather(first.until_said("hello"), second.until_said("hello"))
    assert gone == [1001, 1001]


def test_a_method_of_a_chat_that_would_never_run_is_refused_at_once() -> None:
    async def chat_message(self: ChatConsumer, event: dict[str, Any]) -> None: ...

    with pytest.raises(TypeError, match=r"Modern\.chat_message is async"):
        type("Modern", (ChatConsumer,), {"chat_message": chat_message})
    type("Helped", (ChatConsumer,), {"fetch": chat_message})  # for async_to_sync


async def test_a_reader_that_is_too_slow_has_everything_once_it_reads_again(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 3000}
    ada = await sync_to_async(make_user)("ada")
    async with (
        ChatSocket("lobby", user=ada) as quick,
        ChatSocket("lobby", user=ada, holds_back=True) as slow,
    ):
        await quick.until_in()
        await eventually(lambda: sum(len(each.members) for each in hub.guests) == 2)
        sent = []
        for number in range(30):
            sent.append(f"{number} " + "x" * 500)
            await sync_to_async(send_chat_message)("lobby", sent[-1])
            await quick.until_said(*sent)
        (lobby,) = hub.guests
        assert all(each.consumer.outgoing._bytes < 4000 for each in lobby.members)  # type: ignore[attr-defined]
        slow.reads.set()
        await slow.until_said(*sent)
        slow.say("back")
        await slow.until_said(*sent, "back")
        await quick.until_said(*sent, "back")


async def test_a_reader_that_asks_and_does_not_read_is_closed(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 3000}
    ada = await sync_to_async(make_user)("ada")
    await sync_to_async(send_chat_message)("lobby", "x" * 2000)
    async with ChatSocket("lobby", user=ada, holds_back=True) as socket:
        await eventually(lambda: any(each.members for each in hub.guests))
        (guest,) = (guest for each in hub.guests for guest in each.members)
        for _ in range(10):
            socket.send({"type": "history"})
        await eventually(lambda: guest.consumer.outgoing.is_closed)  # type: ignore[attr-defined]
        socket.reads.set()
        assert await socket.until_closed() == 1013
        assert len(socket.received) < 5


def test_a_handler_that_never_returns_does_not_keep_the_process_from_ending() -> None:
    program = """
import asyncio, threading, time
import django
django.setup()
from realtime.handler_threads import HandlerThreads

async def main():
    threads = HandlerThreads()
    task = asyncio.ensure_future(threads.run(time.sleep, 1000))
    await asyncio.sleep(0.1)
    task.cancel()
    await threads.stop(seconds_max=0.1)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=os.environ)
