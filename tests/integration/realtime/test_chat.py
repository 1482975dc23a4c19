"""Chats: who is in them, what is stored, and what everyone is sent."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.opening import NoSuchDocument, delete_document, recover_document
from documents.tickets import issue_ticket
from realtime.chat.models import ChatMessage, ChatRoom
from realtime.chat.moderation import remove_messages
from realtime.chat.posting import send_chat_message
from realtime.chat.signals import chat_message_stored
from realtime.groups import chat_group
from realtime.hub import Hub
from realtime.message_errors import MessageRefused
from tests.builders import make_document, make_user
from tests.integration.realtime.chatting import ChatSocket, texts_of
from tests.integration.realtime.rooms import shared_document

pytestmark = [pytest.mark.django_db(transaction=True)]

make_users = sync_to_async(lambda *names: [make_user(name) for name in names])


async def test_what_is_said_is_stored_and_shown_to_everyone_with_author_time_and_id(hub: Hub) -> None:
    ada, bob = await make_users("ada", "bob")
    async with ChatSocket("lobby", user=ada) as by_ada, ChatSocket("lobby", user=bob) as by_bob:
        await asyncio.gather(by_ada.until_in(), by_bob.until_in())
        by_ada.say("hello")
        by_bob.send({"type": "chat_message", "message": "hi 😀"})
        await asyncio.gather(by_ada.until(lambda: len(by_ada.said) == 2), by_bob.until(lambda: len(by_bob.said) == 2))
        assert by_ada.received == by_bob.received
    stored = {each.pk: each async for each in ChatMessage.objects.select_related("author")}
    for each in by_ada.received:
        message = stored[each["id"]]
        assert each == {
            "message": message.text,
            "author": {"user_id": str(message.author_id), "username": str(message.author)},
            "at": message.at.isoformat(),
            "id": message.pk,
        }
    assert [each["id"] for each in by_ada.received] == sorted(stored)


async def test_what_is_said_is_told_to_other_processes_in_the_rooms_group(hub: Hub) -> None:
    (ada,) = await make_users("ada")
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat_lobby", channel)
    async with ChatSocket("lobby", user=ada) as socket:
        await socket.until_in()
        socket.say("hello")
        await socket.until_said("hello")
        async with asyncio.timeout(10):
            event = await layer.receive(channel)
        (shown,) = socket.received
        assert {name: event[name] for name in ("type", *shown)} == {"type": "chat_message", **shown}


async def test_a_documents_viewers_read_its_editors_write_and_nobody_else_comes_in(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.VIEWER)
    (stranger,) = await make_users("stranger")
    sockets = {name: ChatSocket(document.name, user=person) for name, person in people.items()}
    async with sockets["ada"], sockets["bob"], sockets["eve"]:
        for each in sockets.values():
            await each.until_in()
        for name, socket in sockets.items():
            socket.say(f"of {name}")
        for socket in sockets.values():
            await socket.until_received(2)
        await sockets["eve"].until(lambda: sockets["eve"].errors == ["read_only"])
        assert sorted(await texts_of(document)) == ["of ada", "of bob"]
    for user, room, code in (
        (stranger, document.name, 4404),
        (None, document.name, 4401),
        (None, "lobby", 4401),
        (stranger, "not a\x00name", 4404),
        (stranger, "chat/of", 4404),
    ):
        async with ChatSocket(room, user=user) as socket:
            assert await socket.until_closed() == code, (room, code)
            assert socket.accepted
            assert socket.received == []
    assert await texts_of(name=document.name) == []


async def test_a_deleted_documents_chat_is_nobodys_and_comes_back_with_it(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    (stranger,) = await make_users("stranger")
    await sync_to_async(send_chat_message)(document.name, "before", author=people["ada"])
    await sync_to_async(delete_document)(document)
    for user in (people["ada"], stranger):
        async with ChatSocket(document.name, user=user) as socket:
            assert await socket.until_closed() == 4404
    with pytest.raises(NoSuchDocument):
        await sync_to_async(send_chat_message)(document.name, "after")
    await sync_to_async(recover_document)(document)
    async with ChatSocket(document.name, user=people["ada"], after=0) as socket:
        await socket.until_said("before")
    await sync_to_async(document.delete)()
    assert not await ChatRoom.objects.aexists()
    assert not await ChatMessage.objects.aexists()
    async with ChatSocket(document.name, user=stranger, after=0) as socket:  # a free room of that name
        await socket.until_in()
        assert socket.received == []


async def test_a_document_made_under_a_free_rooms_name_shows_neither_what_was_said_in_the_other(hub: Hub) -> None:
    ada, stranger = await make_users("ada", "stranger")
    async with ChatSocket("plans", user=stranger) as outside:
        await outside.until_in()
        outside.say("anybody there?")
        await outside.until_said("anybody there?")

        document = await sync_to_async(make_document)("plans", owner=(ada, Role.OWNER))
        async with ChatSocket("plans", user=ada, after=0) as inside:
            await inside.until_in()
            inside.say("a secret")
            await inside.until_said("a secret")
            outside.say("and now?")
            assert await outside.until_closed() == 1013
            assert outside.said == ["anybody there?"]
        async with ChatSocket("plans", user=stranger) as again:
            assert await again.until_closed() == 4404
    assert await texts_of(document) == ["a secret"]
    assert await texts_of(name="plans") == ["anybody there?"]


async def test_nothing_is_said_from_a_free_room_into_the_document_that_has_its_name_by_now(
    dead_layer: None, no_watch: None, hub: Hub
) -> None:
    ada, stranger = await make_users("ada", "stranger")
    async with ChatSocket("plans", user=ada) as by_ada, ChatSocket("plans", user=stranger) as outside:
        await asyncio.gather(by_ada.until_in(), outside.until_in())
        document = await sync_to_async(make_document)("plans", owner=(ada, Role.OWNER))
        by_ada.say("where am I?")
        outside.say("and I?")
        assert (await by_ada.until_closed(), await outside.until_closed()) == (1013, 1013)
    assert await texts_of(document) == await texts_of(name="plans") == []


async def test_whoever_is_in_a_free_room_when_a_document_takes_its_name_is_sent_away_at_once(
    no_watch: None, hub: Hub
) -> None:
    ada, stranger = await make_users("ada", "stranger")
    await hub.bus.ready()
    async with ChatSocket("plans", user=stranger) as outside, ChatSocket("other", user=stranger) as elsewhere:
        await asyncio.gather(outside.until_in(), elsewhere.until_in())
        await sync_to_async(make_document)("plans", owner=(ada, Role.OWNER))
        assert await outside.until_closed() == 1013
        elsewhere.say("still here")
        await elsewhere.until_said("still here")


async def test_history_comes_by_page_oldest_first(hub: Hub, settings: Settings) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    for number in range(7):
        await sync_to_async(send_chat_message)(document.name, str(number), author=people["ada"])
    async with ChatSocket(document.name, user=people["ada"]) as socket:
        before: int | None = None
        pages: list[list[str]] = []
        while not pages or before is not None:
            socket.send({"type": "history", "before": before, "limit": 3})
            page = (await socket.until_received(len(pages) + 1))[-1]
            assert page["type"] == "history"
            pages.append([each["message"] for each in page["messages"]])
            before = page["before"]
        assert pages == [["4", "5", "6"], ["1", "2", "3"], ["0"]]
        for far, count in ((10**30, 3), (0, 0), (-(10**30), 0)):
            socket.send({"type": "history", "before": far, "limit": 3})
            page = (await socket.until_received(len(socket.received) + 1))[-1]
            assert (len(page["messages"]), page["before"] is None) == (count, not count)
        settings.PALIMPSEST = {**settings.PALIMPSEST, "CHAT_PAGE_MAX": 2}
        for asked in ({"limit": 10**9}, {}):
            socket.send({"type": "history", **asked})
            page = (await socket.until_received(len(socket.received) + 1))[-1]
            assert [each["message"] for each in page["messages"]] == ["5", "6"]
        for wrong in ({"before": "1"}, {"limit": 0}, {"limit": True}, {"before": False}, {"limit": "x"}):
            socket.send({"type": "history", **wrong})
        await socket.until(lambda: socket.errors == ["malformed"] * 5)


async def test_whoever_comes_back_is_sent_what_they_missed_and_told_where_there_is_more(
    hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CHAT_MISSED_MAX": 3}
    document, people = await shared_document(ada=Role.OWNER)
    ids = [(await sync_to_async(send_chat_message)(document.name, str(number))).id for number in range(6)]
    async with ChatSocket(document.name, user=people["ada"], after=ids[2]) as socket:
        await socket.until_said("3", "4", "5")
        assert len(socket.received) == 3
    async with ChatSocket(document.name, user=people["ada"], after=ids[0]) as socket:
        await socket.until_said("3", "4", "5")
        assert socket.received[0] == {"type": "gap", "before": ids[3]}
    async with ChatSocket(document.name, user=people["ada"], query=b"after=-1") as socket:
        assert await socket.until_closed() == 1008


async def test_a_message_that_is_sent_twice_under_one_key_is_said_once(hub: Hub) -> None:
    ada, bob = await make_users("ada", "bob")
    async with ChatSocket("lobby", user=ada) as by_ada, ChatSocket("lobby", user=bob) as by_bob:
        await asyncio.gather(by_ada.until_in(), by_bob.until_in())
        by_ada.say("once", key="1")
        by_ada.say("once", key="1")
        by_bob.say("mine", key="1")
        await by_ada.until(lambda: len(by_ada.said) == 3)
        await by_bob.until(lambda: len(by_bob.said) == 2)
        assert by_ada.said.count("once") == 2  # both tell its sender that it is stored
        assert len({each["id"] for each in by_ada.messages}) == 2
    assert sorted(await texts_of(name="lobby")) == ["mine", "once"]


async def test_what_is_no_message_is_answered_with_an_error_and_the_socket_stays(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CHAT_MESSAGE_LENGTH_MAX": 10}
    (ada,) = await make_users("ada")
    wrong = {
        "{": "malformed",
        "[" * 100_000: "malformed",
        "[]": "malformed",
        '"text"': "malformed",
        "{}": "empty",
        '{"message": 7}': "empty",
        '{"message": " "}': "empty",
        '{"message": "12345678901"}': "too_long",
        r'{"message": "a\u0000"}': "malformed",
        r'{"message": "\ud83d"}': "malformed",
        '{"message": "a", "key": 7}': "malformed",
        '{"type": "dance"}': "unknown_type",
        '{"type": ["history"]}': "unknown_type",
        '{"type": "_connect"}': "unknown_type",
    }
    async with ChatSocket("lobby", user=ada) as socket:
        await socket.until_in()
        for text in wrong:
            socket.send_text(text)
        socket.say("1234567890")
        await socket.until_said("1234567890")
        assert socket.errors == list(wrong.values())
        socket.send_bytes(b"\0")
        assert await socket.until_closed() == 1003
    async with ChatSocket("lobby", user=ada) as socket:
        await socket.until_in()
        socket.send_text("x" * (1024 * 1024 + 1))
        assert await socket.until_closed() == 1009


async def test_whoever_sends_fast_is_read_slower_and_loses_nothing(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CHAT_MESSAGES_PER_SECOND": 50.0, "CHAT_MESSAGES_BURST": 3}
    (ada,) = await make_users("ada")
    async with ChatSocket("lobby", user=ada) as socket:
        await socket.until_in()
        began = hub.now()
        for number in range(13):
            socket.say(str(number))
        await socket.until_said(*map(str, range(13)))
        assert hub.now() - began >= 10 / 50


async def test_a_ticket_serves_for_its_documents_chat_alone_and_a_cookie_for_ones_own_pages(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    ticket = (await sync_to_async(issue_ticket)(people["ada"], document)).text
    async with ChatSocket(document.name, query=f"ticket={ticket}".encode()) as socket:
        await socket.until_in()
        socket.say("by ticket")
        await socket.until_said("by ticket")
        assert socket.messages[0]["author"] == {"user_id": str(people["ada"].pk), "username": "ada"}
    async with ChatSocket("lobby", query=f"ticket={ticket}".encode()) as socket:
        assert await socket.until_closed() == 4401
    headers = [(b"host", b"docs.example"), (b"origin", b"http://evil.example")]
    async with ChatSocket(document.name, user=people["ada"], headers=headers) as socket:
        assert await socket.until_closed() == 4403


async def test_sockets_of_chats_are_counted_with_all_others(hub: Hub, settings: Settings) -> None:
    (ada,) = await make_users("ada")
    for limit in ("SOCKETS_MAX", "SOCKETS_PER_ADDRESS_MAX", "SOCKETS_PER_USER_MAX", "SOCKETS_PER_DOCUMENT_MAX"):
        settings.PALIMPSEST = {limit: 1}
        async with ChatSocket("lobby", user=ada) as first:
            await first.until_in()
            async with ChatSocket("lobby", user=ada) as second:
                assert (await second.until_closed(), second.reason) == (1013, f"too many sockets: {limit}")
    assert len(hub.sockets) == 0
    assert list(hub.guests) == []


async def test_code_says_something_within_its_own_transaction(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    heard: list[dict[str, Any]] = []

    def listen(**told: Any) -> None:
        heard.append(told)
        assert transaction.get_connection().in_atomic_block
        if told["message"].text == "no":
            raise ValueError("not that")

    @sync_to_async
    def say() -> None:
        with transaction.atomic():
            send_chat_message(document.name, "undone", author=people["ada"])
            transaction.set_rollback(True)
        with transaction.atomic():
            send_chat_message(document.name, "of the server")
        with pytest.raises(ValueError, match="not that"):
            send_chat_message("lobby", "no", author=people["ada"])
        with pytest.raises(MessageRefused):
            send_chat_message("lobby", " ")

    chat_message_stored.connect(listen)
    try:
        async with ChatSocket(document.name, user=people["ada"]) as socket:
            await socket.until_in()
            await say()
            await socket.until_said("of the server")
            assert socket.messages[0]["author"] is None
    finally:
        chat_message_stored.disconnect(listen)
    assert await texts_of(document) == ["of the server"]
    assert not await ChatRoom.objects.filter(document=None).aexists()
    first, last = heard[0], heard[-1]
    assert (first["room"], first["author"], first["document"]) == (document.name, people["ada"], document)
    assert (last["room"], last["author"], last["document"]) == ("lobby", people["ada"], None)


async def test_what_others_send_to_the_group_is_shown_without_author_and_a_forged_message_not_at_all(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with ChatSocket(document.name, user=people["ada"]) as socket:
        await socket.until_in()
        group = chat_group(document.name)
        forged = {
            "document": document.pk,
            "id": 99,
            "before": 0,
            "author": {"user_id": "1", "username": "root"},
            "at": "",
        }
        for event in (
            {"type": "chat_message", "message": "forged", **forged},
            {"type": "chat_message", "message": "forged", **forged, "signature": b"0" * 32},
            {"type": "chat_message", "message": "forged", **forged, "signature": "no bytes"},
            {"type": "chat_message_removed", "id": 1, "document": document.pk},
            {"type": "websocket.close"},
            {"type": "websocket.receive", "text": '{"message": "forged"}'},
            {"type": "receive_json", "message": "forged"},
            {"type": "say", "message": "forged"},
            {"type": "close"},
            {"type": "chat_room_taken"},
            {"type": "no_such_handler"},
            {"no": "type"},
            {"type": 7},
            {"type": "chat_message", "message": "lunch"},
        ):
            await get_channel_layer().group_send(group, event)
        await socket.until_said("lunch")
        assert socket.received == [{"message": "lunch", "author": None, "at": None, "id": None}]
        assert socket.closed is None
    assert await texts_of(document) == []


async def test_a_removed_message_is_gone_and_everyone_is_told(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with ChatSocket(document.name, user=people["ada"]) as socket:
        await socket.until_in()
        socket.say("rude")
        socket.say("kind")
        await socket.until_said("rude", "kind")
        rude = socket.messages[0]["id"]
        assert await sync_to_async(remove_messages)(ChatMessage.objects.filter(pk=rude)) == 1
        await socket.until(lambda: {"type": "chat_message_removed", "id": rude} in socket.received)
        socket.say("again")
        await socket.until_said("rude", "kind", "again")
    assert await texts_of(document) == ["kind", "again"]


async def test_an_account_that_is_gone_leaves_its_messages_without_a_name(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    await sync_to_async(send_chat_message)(document.name, "mine", author=people["bob"])
    await sync_to_async(people["bob"].delete)()
    async with ChatSocket(document.name, user=people["ada"], after=0) as socket:
        await socket.until_said("mine")
        assert socket.messages[0]["author"] is None


async def test_a_room_open_to_all_is_written_by_people_without_an_account(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    await Document.objects.acreate(name="open", title="Open", open_to_all=True)
    async with ChatSocket("open") as socket:
        await socket.until_in()
        socket.say("hello")
        await socket.until_said("hello")
        assert socket.messages[0]["author"] is None


async def test_a_right_that_is_gone_when_a_message_comes_stores_nothing(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with ChatSocket(document.name, user=people["bob"]) as socket:
        await socket.until_in()
        await Membership.objects.filter(user=people["bob"]).aupdate(role=Role.VIEWER)
        socket.say("as a viewer")
        await socket.until(lambda: socket.errors == ["read_only"])
        async with asyncio.timeout(5):
            hub.rechecks.look_at_room_soon = lambda *_: None  # type: ignore[method-assign]
            await Membership.objects.filter(user=people["bob"]).adelete()
            socket.say("as nobody")
            assert await socket.until_closed() == 4403
    assert await texts_of(document) == []
