"""What one's own code says in a room, and whom a chat message tells."""

from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from documents.models import Role
from documents.opening import NoSuchDocument, delete_document
from realtime.hub import Hub
from realtime.message_errors import MessageRefused
from realtime.models import ChatMessage
from realtime.notifications.messages import NotificationInvalid
from realtime.notifications.sending import asend_message_to_group, send_message_to_group
from tests.builders import make_user
from tests.integration.realtime.chatting import ChatSocket
from tests.integration.realtime.rooms import shared_document
from tests.integration.realtime.tabs import Tab

pytestmark = [pytest.mark.django_db(transaction=True)]


def has_messages(socket: ChatSocket, count: int) -> bool:
    return len(socket.messages) == count


@sync_to_async
def rolled_back(room: str, *messages: Any) -> None:
    with transaction.atomic():
        for message in messages:
            send_message_to_group(room, message)
        transaction.set_rollback(True)


async def test_a_message_to_a_room_reaches_everyone_in_its_chat(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, vic=Role.VIEWER)
    async with (
        ChatSocket(document.name, user=people["ada"]) as ada,
        ChatSocket(document.name, user=people["vic"]) as vic,
    ):
        for socket in (ada, vic):
            await socket.until_in()
        await rolled_back(document.name, "never", {"never": 1})
        await asend_message_to_group(document.name, "stored")
        await asend_message_to_group(document.name, {"passed": "on"})
        for socket in (ada, vic):
            await socket.until(partial(has_messages, socket, 2))
            assert [each["message"] for each in socket.messages] == ["stored", {"passed": "on"}]
            assert [each["author"] for each in socket.messages] == [None, None]
    assert [each.text async for each in ChatMessage.objects.all()] == ["stored"]


async def test_what_cannot_be_said_in_a_room_is_a_clear_error(hub: Hub) -> None:
    document, _ = await shared_document(ada=Role.OWNER)
    await sync_to_async(delete_document)(document)
    for room in (document.name, "not a\x00name", "chat/of"):
        for message in ("text", {"no": "text"}):
            with pytest.raises(NoSuchDocument):
                await asend_message_to_group(room, message)
    with pytest.raises(MessageRefused):
        await asend_message_to_group("lobby", "")
    with pytest.raises(NotificationInvalid):
        await asend_message_to_group("lobby", None)


async def test_whoever_is_mentioned_in_a_chat_hears_of_it_at_once(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.VIEWER)
    stranger = await sync_to_async(make_user)("stranger")
    async with (
        ChatSocket(document.name, user=people["ada"]) as chat,
        Tab(people["bob"]) as bob,
        Tab(people["ada"]) as ada,
        Tab(stranger) as elsewhere,
    ):
        await chat.until_in()
        for _ in range(2):
            chat.send({"message": "@bob and @ada and @stranger", "key": "once"})
        await chat.until(lambda: len(chat.messages) == 2)
        await bob.until(lambda: len(bob.shown) == 2)
        told = bob.shown[-1]
        assert (told["kind"], told["room"], told["by"]) == ("mentioned", document.name, "ada")
        assert told["message"] == chat.messages[0]["id"]
        kinds = [[each["kind"] for each in tab.shown] for tab in (bob, ada, elsewhere)]
        assert kinds == [["shared", "mentioned"], ["shared"], []]
