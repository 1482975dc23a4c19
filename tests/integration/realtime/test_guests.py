"""Sockets that are in no room end with what let them in, as those in a room do: told by the channel layer, or found by
the watch."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pytest_django import Settings

from documents.credentials import ANONYMOUS
from documents.models import Document, Role
from documents.roles import Admission, Applicant
from realtime.bus import signed
from realtime.chat.consumers import ChatConsumer
from realtime.guests import admit_by_account
from realtime.hub import Hub
from realtime.rechecks import EVERYONE
from tests.builders import make_user
from tests.integration.realtime.chatting import ChatSocket
from tests.integration.realtime.rooms import empty, eventually, shared_document, take_role_by_sql
from tests.integration.realtime.signing_in import SignedIn, execute, sign_in
from tests.integration.realtime.test_rights_that_change import ALL, TOLD, Loss

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


async def two_people() -> tuple[Document, SignedIn, SignedIn]:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    return document, await sign_in(people["ada"]), await sign_in(people["bob"])


async def ends_as(hub: Hub, loss: Loss, document: Document, ada: SignedIn, bob: SignedIn) -> None:
    """Lose a right while both are in the document's chat and in a free room."""
    async with (
        ChatSocket(document.name, person=ada) as by_ada,
        ChatSocket(document.name, person=bob) as by_bob,
        ChatSocket("lobby", person=bob) as in_lobby,
    ):
        for each in (by_ada, by_bob, in_lobby):
            await each.until_in()
        await eventually(lambda: not hub.rechecks._accounts_busy)  # with their having signed in
        await sync_to_async(loss.take)(document, bob)
        if loss.code is None:
            by_bob.say("may I?")
            await by_bob.until(lambda: by_bob.errors == ["read_only"])
        else:
            assert await by_bob.until_closed() in {loss.code, loss.code_of_the_watch}
        if loss.code == 4401:
            assert await in_lobby.until_closed() == 4401
        else:
            in_lobby.say("still here")
            await in_lobby.until_said("still here")
        assert by_ada.closed is None or loss is TOLD["document deleted"]


@pytest.mark.parametrize("way", TOLD)
async def test_a_guest_ends_with_its_right_as_soon_as_the_channel_layer_tells(
    way: str, no_watch: None, hub: Hub
) -> None:
    document, ada, bob = await two_people()
    await hub.bus.ready()
    await ends_as(hub, TOLD[way], document, ada, bob)


@pytest.mark.parametrize("way", ALL)
async def test_a_guest_ends_with_its_right_when_the_watch_looks_though_the_channel_layer_is_dead(
    way: str, dead_layer: None, quick_watch: None, hub: Hub
) -> None:
    document, ada, bob = await two_people()
    await ends_as(hub, ALL[way], document, ada, bob)


async def test_a_purged_documents_chat_is_closed_by_the_watch(dead_layer: None, quick_watch: None, hub: Hub) -> None:
    document, ada, _ = await two_people()
    async with ChatSocket(document.name, person=ada) as socket:
        await socket.until_in()
        await sync_to_async(document.delete)()
        assert await socket.until_closed() == 4404


async def test_a_right_that_is_taken_from_a_guest_on_the_way_in_is_noticed_without_the_watch(
    dead_layer: None, no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _, bob = await two_people()
    enter = hub.guests.enter

    async def enter_late(*args: object) -> object:
        await take_role_by_sql(document, bob.user)
        hub.bus._hear(signed({"type": "rights", "document": document.pk}))  # it finds him nowhere
        return await enter(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(hub.guests, "enter", enter_late)
    async with ChatSocket(document.name, person=bob) as socket:
        assert await socket.until_closed() == 4403


async def test_a_room_and_a_lobby_of_one_document_each_hear_of_it_until_the_last_is_gone(
    no_watch: None, hub: Hub
) -> None:
    document, ada, bob = await two_people()
    await hub.bus.ready()
    async with ChatSocket(document.name, person=bob) as by_bob:
        await by_bob.until_in()
        room = await hub.open(document.pk, empty)
        async with ChatSocket(document.name, person=ada) as by_ada:
            await by_ada.until_in()
        room.drop("no more")
        await eventually(lambda: hub.bus._subscribed[document.pk] == 1)
        await sync_to_async(TOLD["member removed"].take)(document, bob)
        assert await by_bob.until_closed() == 4403
    await eventually(lambda: document.pk not in hub.bus._subscribed)
    assert list(hub.guests) == []
    assert len(hub.groups) == 0


async def test_sessions_that_only_a_cache_knows_end_guests_too(
    dead_layer: None, no_watch: None, hub: Hub, settings: Settings
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    ada = await sign_in(await sync_to_async(make_user)("ada"))
    async with ChatSocket("lobby", person=ada) as socket:
        await socket.until_in()
        await sync_to_async(ada.sign_out)()
        hub.rechecks.look_at_accounts_soon(str(ada.user.pk))
        assert await socket.until_closed() == 4401


async def test_a_superuser_who_is_one_no_longer_and_everyone_of_many_accounts_are_looked_at(
    dead_layer: None, no_watch: None, hub: Hub
) -> None:
    document, _, _ = await two_people()
    root = await sign_in(await sync_to_async(make_user)("root", is_superuser=True))
    async with ChatSocket(document.name, person=root) as socket:
        await socket.until_in()
        await sync_to_async(execute)("UPDATE auth_user SET is_superuser = false WHERE id = %s", root.user.pk)
        hub.rechecks.look_at_accounts_soon(EVERYONE)
        assert await socket.until_closed() == 4403


async def test_guests_are_let_go_with_all_others_when_the_server_restarts(hub: Hub) -> None:
    document, ada, bob = await two_people()
    async with ChatSocket(document.name, person=ada) as first, ChatSocket("lobby", person=bob) as second:
        await asyncio.gather(first.until_in(), second.until_in())
        await hub.stop()
        assert (first.closed, second.closed) == (1012, 1012)
        async with ChatSocket("lobby", person=bob) as late:
            assert await late.until_closed() == 1012


def test_nobody_is_nobody() -> None:
    applicant = Applicant(ANONYMOUS)
    assert admit_by_account({applicant: None}) == {applicant: Admission(None, 0, signed_in=False)}


async def test_a_rule_that_fails_for_one_keeps_nobody_else_in(dead_layer: None, no_watch: None, hub: Hub) -> None:
    class Moody(ChatConsumer):
        fails = False

        @classmethod
        def may_enter(cls, user: Any, room_name: str) -> bool:
            if user.username == "ada" and cls.fails:
                raise RuntimeError("a fault of the host's")
            return not cls.fails

    _, ada, bob = await two_people()
    async with (
        ChatSocket("lobby", person=ada, consumer=Moody) as by_ada,
        ChatSocket("lobby", person=bob, consumer=Moody) as by_bob,
    ):
        await asyncio.gather(by_ada.until_in(), by_bob.until_in())
        Moody.fails = True
        (lobby,) = hub.guests
        await hub.rechecks.look_at_room(lobby)
        assert await by_bob.until_closed() == 4403
        assert by_ada.closed is None
        by_ada.say("may I?")
        assert await by_ada.until_closed() == 1013
