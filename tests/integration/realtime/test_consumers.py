"""Consumers of one's own: what they may override, and what holds for them all the same."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pycrdt import Doc, Text

from documents.models import Document, Role
from documents.tickets import issue_ticket
from history.models import Kind, Update
from realtime.consumers import YjsConsumer
from realtime.hub import Hub
from realtime.protocols.frames import encode_update
from tests.integration.realtime.rooms import empty, rows_of, shared_document, stored, update_that_types
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


class Letters(YjsConsumer):
    """Everyone gets into one room, which begins with a letterhead and tells what is typed into it."""

    made = 0
    seen: list[bytes] = []
    sent: list[bytes] = []

    def make_room_name(self) -> str:
        return "letters"

    async def make_ydoc(self) -> "Doc[Any]":
        type(self).made += 1
        doc: Doc[Any] = Doc()
        doc.get("text", type=Text).insert(0, "Dear ")
        doc.observe(self.on_update_event)
        return doc

    def on_update_event(self, event: Any) -> None:
        self.seen.append(event.update)
        raise ValueError("observers of one's own may fail")

    async def send_message(self, message_wrapper: YjsConsumer.WrappedMessage) -> None:
        self.sent.append(message_wrapper["message"])
        await super().send_message(message_wrapper)


@pytest.fixture
def letters() -> type[Letters]:
    return type("FreshLetters", (Letters,), {"made": 0, "seen": [], "sent": []})


@sync_to_async
def letters_document() -> Document:
    return Document.objects.create(name="letters", title="Letters", open_to_all=True)


async def test_make_ydoc_runs_once_for_a_room_and_its_content_begins_the_log(
    hub: Hub, letters: type[Letters], settings: Any
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    document = await letters_document()
    async with Socket("a", consumer=letters) as ada, Socket("b", consumer=letters) as bob:
        await asyncio.gather(ada.until_synced(), bob.until_synced())
        assert (ada.text, bob.text, letters.made) == ("Dear ", "Dear ", 1)
        ada.type("Bob", at=5)
        await bob.until(lambda: bob.text == "Dear Bob")
    assert [payload for _, _, payload in await rows_of(document)][-1] in letters.seen
    assert any(message == bob.received[-1] for message in letters.sent)
    rows = Update.objects.filter(document=document).order_by("seq")
    assert [row.kind async for row in rows] == [Kind.SEED, Kind.SYNC]


async def test_two_processes_that_open_a_room_first_at_once_seed_it_once(
    hub: Hub, another_process: Callable[[], Hub]
) -> None:
    document, _ = await shared_document()
    seeds = iter(("one", "two", "three"))

    async def seeded() -> "Doc[Any]":
        doc: Doc[Any] = Doc()
        doc.get("text", type=Text).insert(0, next(seeds))
        return doc

    rooms = await asyncio.gather(
        *(each.open(document.pk, seeded) for each in (hub, another_process(), another_process()))
    )
    assert len(await rows_of(document)) == 1
    assert len({str(room.doc.get("text", type=Text)) for room in rooms}) == 1
    assert {room.seq for room in rooms} == {1}


async def test_doc_update_and_group_send_message_are_logged_before_they_are_seen(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    consumers: list[YjsConsumer] = []

    class Kept(YjsConsumer):
        async def connect(self) -> None:
            consumers.append(self)
            await super().connect()

    async with Socket(document.name, user=people["ada"], consumer=Kept) as ada:
        await ada.until_synced()
        await consumers[0].doc_update({"update": update_that_types("one", client_id=3)})
        assert len(await rows_of(document)) == 1
        await consumers[0].group_send_message(encode_update(update_that_types("two", client_id=4)))
        assert len(await rows_of(document)) == 2
        await ada.until(lambda: sorted((ada.text[:3], ada.text[3:])) == ["one", "two"])


async def test_a_stranger_an_anonymous_and_a_missing_document_are_told_apart_only_as_they_should_be(hub: Hub) -> None:
    document, _ = await shared_document(ada=Role.OWNER)
    stranger = (await shared_document(stranger=Role.OWNER))[1]["stranger"]
    for room, user, code in (
        (document.name, None, 4401),
        ("missing", None, 4401),
        (document.name, stranger, 4404),
        ("missing", stranger, 4404),
    ):
        async with Socket(room, user=user) as socket:
            await socket.until_answered()
            assert (socket.closed, socket.received) == (code, [])


async def test_a_cookie_serves_only_pages_of_this_server(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    host = (b"host", b"docs.example:8000")
    for origin, code in (
        (b"http://docs.example:8000", None),
        (b"http://DOCS.example:8000", None),  # host names have no case
        (b"http://docs.example", 4403),
        (b"http://docs.example:8001", 4403),
        (b"https://docs.example:8000", 4403),
        (b"ws://docs.example:8000", 4403),
        (b"http://evil.example:8000", 4403),
        (b"http://docs.example:8000.evil.example", 4403),
        (b"http://docs.example:8000@evil.example", 4403),
        (b"http://docs.example:", 4403),
        (b"docs.example:8000", 4403),
        (b"null", 4403),
        (b"", 4403),
        (b"http://[", 4403),
    ):
        async with Socket(document.name, user=people["ada"], headers=[host, (b"origin", origin)]) as socket:
            await socket.until_answered()
            assert socket.closed == code, origin


@pytest.mark.parametrize("host", [b"", b"docs.example:port", b"[::1", b"docs.example:99999"])
async def test_a_null_origin_is_not_that_of_a_host_that_cannot_be_read(hub: Hub, host: bytes) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    headers = [(b"host", host), (b"origin", b"null")]
    async with Socket(document.name, user=people["ada"], headers=headers) as socket:
        await socket.until_answered()
        assert socket.closed == 4403


async def test_a_page_of_the_default_port_a_proxy_with_tls_and_trusted_origins_may_use_the_cookie(
    hub: Hub, settings: Any
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    host, forwarded = (b"host", b"docs.example"), (b"x-forwarded-proto", b"https")

    async def code_of(origin: bytes, *headers: tuple[bytes, bytes]) -> int | None:
        async with Socket(document.name, user=people["ada"], headers=[*headers, (b"origin", origin)]) as socket:
            await socket.until_answered()
            return socket.closed

    assert await code_of(b"http://docs.example:80", host) is None
    assert await code_of(b"https://docs.example", host, forwarded) == 4403  # anyone can write that header
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert await code_of(b"https://docs.example", host, forwarded) is None
    assert await code_of(b"https://docs.example:443", host, forwarded) is None
    assert await code_of(b"http://docs.example", host, forwarded) == 4403
    settings.CSRF_TRUSTED_ORIGINS = ["https://front.example"]
    assert await code_of(b"https://front.example", host) is None
    assert await code_of(b"https://front.example:444", host) == 4403
    assert await code_of(b"http://docs.example") == 4403  # no Host to compare with


async def test_a_ticket_opens_its_document_from_any_page_and_no_other(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    other, _ = await shared_document(bob=Role.OWNER)
    ticket = await sync_to_async(issue_ticket)(people["ada"], document)
    query = f"ticket={ticket.text}".encode()
    foreign = [(b"host", b"docs.example"), (b"origin", b"https://front.example")]
    async with Socket(document.name, query=query, headers=foreign) as socket:
        await socket.until_synced()
        socket.type("by ticket")
        await stored(hub, document, 1)
    assert [user for _, user, _ in await rows_of(document)] == [people["ada"].pk]
    async with Socket(other.name, query=query) as socket:
        await socket.until(lambda: socket.closed == 4401)
    async with Socket(document.name, query=b"ticket=forged") as socket:
        await socket.until(lambda: socket.closed == 4401)


async def test_a_text_frame_closes_its_socket_with_1003(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.send_text("{}")
        await ada.until(lambda: ada.closed == 1003)


async def test_a_thousand_openings_at_once_load_the_document_once(hub: Hub, monkeypatch: Any) -> None:
    document, _ = await shared_document(ada=Role.OWNER)
    loads: list[str] = []
    load = hub.load

    async def counted(read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loads.append(read.__name__)
        return await load(read, *args, **kwargs)

    monkeypatch.setattr(hub, "load", counted)
    rooms = await asyncio.gather(*(hub.open(document.pk, empty) for _ in range(1000)))
    assert len(set(rooms)) == 1
    assert loads.count("make_ydoc") == 1


async def test_a_bus_that_was_idle_still_hears(hub: Hub, another_process: Callable[[], Hub]) -> None:
    """Idling is what is tested: redis-py 8 under channels_redis 4.3.0 ends a consumer after 5 s of it.

    The watch is off, so that only a hint can bring the edit."""
    document, people = await shared_document(ada=Role.OWNER)
    other = another_process()
    other._watch.cancel()
    room = await other.open(document.pk, empty)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        await asyncio.sleep(6)
        ada.type("still here")
        async with asyncio.timeout(3):
            while room.seq < 1:
                await asyncio.sleep(0.01)
