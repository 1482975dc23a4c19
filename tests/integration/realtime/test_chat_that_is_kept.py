"""How long what was said is kept, who takes it away, and how everyone has all of it whatever the channel layer does."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from documents.models import Chore, Role
from realtime.bus import signed
from realtime.chat.lobbies import ChatGuest, ChatLobby
from realtime.chat.models import ChatMessage, ChatRoom
from realtime.chat.posting import send_chat_message
from realtime.hub import Hub
from realtime.tasks import purge_chat
from tests.builders import in_thread, make_document, make_user
from tests.integration.realtime.chatting import ChatSocket, texts_of
from tests.integration.realtime.rooms import eventually, shared_document

pytestmark = [pytest.mark.django_db(transaction=True)]

say = sync_to_async(send_chat_message)


def texts() -> list[str]:
    return list(ChatMessage.objects.order_by("pk").values_list("text", flat=True))


# The channel layer


async def test_what_is_said_elsewhere_is_found_by_the_watch_with_the_layer_dead(
    dead_layer: None, quick_watch: None, hub: Hub
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with (
        ChatSocket(document.name, user=people["ada"]) as ada,
        ChatSocket(document.name, user=people["bob"]) as bob,
    ):
        await asyncio.gather(ada.until_in(), bob.until_in())
        ada.say("here")
        await bob.until_said("here")  # in one process at once
        for number in range(120):
            await say(document.name, str(number))  # as another process would
        await asyncio.gather(*(each.until(lambda each=each: len(each.said) == 121) for each in (ada, bob)))  # type: ignore[misc]
        assert ada.said == bob.said == ["here", *map(str, range(120))]


async def test_messages_that_are_lost_repeated_and_reordered_on_the_way_are_each_shown_once_in_order(
    no_watch: None, hub: Hub
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with ChatSocket(document.name, user=people["ada"]) as ada:
        await ada.until_in()
        (lobby,) = hub.guests
        assert isinstance(lobby, ChatLobby)
        events: list[dict[str, Any]] = []
        hear = lobby.hear
        lobby.hear = events.append  # type: ignore[method-assign, assignment]
        (ear,) = hub.groups._ears.values()
        ear.listeners[:] = [events.append]
        for number in range(9):
            await say(document.name, str(number))
        await eventually(lambda: len(events) == 9)
        for place in (1, 0, 0, 8, 5, 5, 7):  # and 2, 3, 4 and 6 never
            hear(events[place])
        await ada.until(lambda: len(ada.said) == 9)
        assert ada.said == [str(number) for number in range(9)]
        ear.listeners[:] = [hear]
        ada.say("and on")
        await ada.until(lambda: ada.said[9:] == ["and on"])


async def test_a_hint_of_another_rooms_message_shows_nothing(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with ChatSocket(document.name, user=people["ada"]) as ada:
        await ada.until_in()
        (lobby,) = hub.guests
        event = {"type": "chat_message", "id": 10**9, "before": 0, "message": "of before", "author": None, "at": ""}
        lobby.hear(signed({**event, "document": None}))  # type: ignore[attr-defined]
        lobby.hear(signed({**event, "document": document.pk + 1}))  # type: ignore[attr-defined]
        ada.say("mine")
        await ada.until_said("mine")


async def test_whoever_comes_to_a_chat_that_was_set_back_is_not_behind_for_ever(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    kept, _ = [await say(document.name, text) for text in ("kept", "lost")]
    async with ChatSocket(document.name, user=people["ada"]) as ada:
        await ada.until_in()
        await sync_to_async(restore)(kept.id)
        async with ChatSocket(document.name, user=people["ada"], after=0) as again:
            await again.until_said("kept")
            (lobby,) = hub.guests
            await eventually(lambda: not any(guest.is_behind for guest in lobby.members))  # type: ignore[attr-defined]


async def test_a_database_restored_from_a_backup_goes_on_where_it_stands(quick_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with ChatSocket(document.name, user=people["ada"]) as ada:
        await ada.until_in()
        for text in ("kept", "lost", "lost"):
            ada.say(text)
        await ada.until_said("kept", "lost", "lost")
        kept = ada.messages[0]["id"]
        await sync_to_async(restore)(kept)
        (guest,) = (guest for each in hub.guests for guest in each.members)
        assert isinstance(guest, ChatGuest)
        await eventually(lambda: guest.seen == kept)
        ada.say("new")  # under an id that there was before
        await ada.until_said("kept", "lost", "lost", "new")


def restore(last_id: int) -> None:
    ChatMessage.objects.filter(pk__gt=last_id).delete()
    ChatRoom.objects.update(last_id=last_id)
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval(pg_get_serial_sequence('realtime_chatmessage', 'id'), %s)", [last_id])


def test_ids_are_in_the_order_of_commits(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_LOCK_TIMEOUT_MS": 10_000}
    send_chat_message("lobby", "before them")
    with transaction.atomic():
        first = send_chat_message("lobby", "first")
        second = in_thread(lambda: send_chat_message("lobby", "second"))
        elsewhere = in_thread(lambda: send_chat_message("elsewhere", "other rooms go on")).result(timeout=5)
        assert not second.done()
    said = second.result(timeout=5)
    assert (said.before, said.id > elsewhere.id > first.id) == (first.id, True)


async def test_a_room_that_is_held_for_long_answers_that_a_message_may_not_be_stored(
    hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "APPEND_LOCK_TIMEOUT_MS": 50}
    ada = await sync_to_async(make_user)("ada")
    await say("lobby", "before")

    def hold() -> Iterator[None]:
        with transaction.atomic():
            ChatRoom.objects.select_for_update().get()
            yield

    async with ChatSocket("lobby", user=ada) as socket:
        await socket.until_in()
        held = hold()
        await sync_to_async(lambda: next(held))()
        socket.say("in vain", key="1")
        await socket.until(lambda: socket.errors == ["unavailable"])
        await sync_to_async(lambda: next(held, None))()
        socket.say("in vain", key="1")
        await socket.until_said("in vain")
    assert await texts_of(name="lobby") == ["before", "in vain"]


# How long


def test_messages_are_purged_by_age_and_by_number_the_oldest_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = make_document()
    for number in range(6):
        send_chat_message(document.name, f"d{number}")
        send_chat_message("lobby", f"l{number}")
    send_chat_message("old", "old")
    ChatMessage.objects.filter(text__in=("d0", "old")).update(at=timezone.now() - timedelta(days=8))

    settings.PALIMPSEST = {**settings.PALIMPSEST, "CHAT_MESSAGES_MAX": 0}
    assert purge_chat() == 0
    settings.PALIMPSEST = {"CHAT_DAYS": 7, "CHAT_MESSAGES_MAX": 4}
    monkeypatch.setattr("realtime.tasks.PURGE_ROWS_MAX", 3)
    assert purge_chat() == 3
    assert texts() == ["d1", "l1", "d2", "l2", "d3", "l3", "d4", "l4", "d5", "l5"]
    assert purge_chat() == 2
    assert texts() == ["d2", "l2", "d3", "l3", "d4", "l4", "d5", "l5"]
    assert purge_chat() == 0
    assert set(ChatRoom.objects.values_list("name", flat=True)) == {"", "lobby"}
    turn = Chore.objects.filter(task="realtime.tasks.purge_chat").latest("id")
    assert (turn.outcome, turn.made) == ("done", 0)


async def test_a_room_that_was_purged_while_somebody_is_in_it_goes_on(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CHAT_DAYS": 1}
    ada = await sync_to_async(make_user)("ada")
    async with ChatSocket("lobby", user=ada) as socket:
        await socket.until_in()
        socket.say("yesterday")
        await socket.until_said("yesterday")
        await ChatMessage.objects.aupdate(at=timezone.now() - timedelta(days=2))
        assert await sync_to_async(purge_chat)() == 1
        assert not await ChatRoom.objects.aexists()
        socket.say("today")
        await socket.until_said("yesterday", "today")
        async with ChatSocket("lobby", user=ada, after=socket.messages[0]["id"]) as again:
            await again.until_said("today")


# Moderation


async def test_superusers_alone_see_and_remove_messages_in_the_admin(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with ChatSocket(document.name, user=people["ada"]) as socket:
        await socket.until_in()
        for text in ("rude", "ruder", "kind"):
            socket.say(text)
        await socket.until_said("rude", "ruder", "kind")
        ids = [each["id"] for each in socket.messages]
        await moderate(ids)
        removed = [{"type": "chat_message_removed", "id": each} for each in ids[:2]]
        await socket.until(lambda: all(each in socket.received for each in removed))
    assert await texts_of(document) == ["kind"]


@sync_to_async
def moderate(ids: list[int]) -> None:
    listed = "/admin/realtime/chatmessage/"
    staff = make_user("staff", is_staff=True)
    browser = Client()
    browser.force_login(staff)
    assert browser.get(listed).status_code == 403
    assert browser.post(f"{listed}{ids[0]}/delete/", {"post": "yes"}).status_code == 403

    browser.force_login(make_user("root", is_staff=True, is_superuser=True))
    assert b"ruder" in browser.get(listed).content
    assert browser.get(f"{listed}{ids[0]}/change/").status_code == 200
    assert browser.get(f"{listed}add/").status_code == 403
    assert browser.post(f"{listed}{ids[0]}/delete/", {"post": "yes"}).status_code == 302
    chosen = {"action": "delete_selected", "_selected_action": [ids[1]], "post": "yes"}
    assert browser.post(listed, chosen).status_code == 302
    assert sorted(each.object_repr for each in LogEntry.objects.all()) == [f"message {each}" for each in ids[:2]]
