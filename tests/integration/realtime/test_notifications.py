"""Notifications at their door: what is unread comes on connecting, what is new comes live, each once to a socket, and
what the channel layer loses is found."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import channel_layers, get_channel_layer
from django.db import InterfaceError, OperationalError, transaction
from pytest_django import Settings

from realtime.groups import mailbox_group, notifications_group
from realtime.hub import Hub
from realtime.models import Notification
from realtime.notifications import consumers, readers
from realtime.notifications.changes import mark_read, still_unread
from realtime.notifications.consumers import READ_IDS_MAX, NotificationConsumer
from realtime.notifications.mailboxes import Mailbox
from realtime.notifications.readers import PAGE_MAX
from realtime.notifications.sending import asend_notification_to_user, send_notification_to_user
from tests.builders import in_thread, make_user
from tests.integration.realtime.rooms import eventually
from tests.integration.realtime.signing_in import SignedIn, execute, sign_in
from tests.integration.realtime.tabs import Tab

pytestmark = [pytest.mark.django_db(transaction=True)]

a_user = sync_to_async(make_user)


async def both(holds: Callable[[Tab], bool], *tabs: Tab) -> None:
    """Wait until it holds for each of these."""
    await asyncio.gather(*(tab.until(partial(holds, tab)) for tab in tabs))


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def dead_layer(settings: Settings) -> None:
    host = "unix:///nowhere/valkey"
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [host]}}
    }
    channel_layers.backends.clear()


@pytest.fixture
def quick_watch(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 0.2, "LAYER_TIMEOUT_SECONDS": 0.2}


@dataclass(slots=True)
class Late:
    """A notification of a transaction that waits before its commit."""

    id: int = 0
    may_commit: Event = field(default_factory=Event)


@asynccontextmanager
async def a_transaction_that_tells(user: Any, message: Any) -> AsyncIterator[Late]:
    late, begun = Late(), Event()

    def tell() -> None:
        with transaction.atomic():
            late.id = send_notification_to_user(user.pk, message)
            begun.set()
            late.may_commit.wait(10)

    telling = in_thread(tell)
    await asyncio.to_thread(begun.wait, 10)
    try:
        yield late
    finally:
        late.may_commit.set()
        await asyncio.to_thread(telling.result, 10)


@sync_to_async
def unread_count(user: Any) -> int:
    return Notification.objects.filter(user=user, read_at=None).count()


async def test_what_is_unread_comes_first_and_what_is_new_behind_it(no_watch: None, hub: Hub) -> None:
    ada, bob = await a_user(), await a_user()
    count = 2 * PAGE_MAX + 5
    ids = [await asend_notification_to_user(ada.pk, number) for number in range(count)]
    await asend_notification_to_user(bob.pk, "for bob")
    await sync_to_async(mark_read)(ada.pk, ids[:2])
    async with Tab(ada) as tab:
        assert tab.received[0] == {"type": "connection_established", "unread": count - 2}
        await tab.until(lambda: len(tab.shown) == count - 2)
        await asend_notification_to_user(ada.pk, "new")
        await tab.until(lambda: tab.shown[-1] == "new")
        assert tab.shown == [*range(2, count), "new"]
        assert tab.ids[:-1] == ids[2:]
        at = next(each["at"] for each in tab.received if each["type"] == "notification")
        assert at == (await Notification.objects.aget(pk=ids[2])).created_at.isoformat()


async def test_each_tab_is_sent_each_once_and_hears_what_another_has_read(no_watch: None, hub: Hub) -> None:
    ada, bob = await a_user(), await a_user()
    first, second = [await asend_notification_to_user(ada.pk, word) for word in ("one", "two")]
    theirs = await asend_notification_to_user(bob.pk, "for bob")
    async with Tab(ada) as one, Tab(ada) as other:
        await both(lambda tab: tab.ids == [first, second], one, other)
        one.send({"type": "read", "ids": [second, theirs, 10**15]})
        await both(lambda tab: tab.read == [[second]], one, other)
        one.send({"type": "read", "ids": [second]})
        await one.until(lambda: one.read == [[second], [second]])
        other.send({"type": "read", "up_to": second})
        await both(lambda tab: tab.read[-1] == [first], one, other)
        assert (await unread_count(ada), await unread_count(bob)) == (0, 1)
        await asend_notification_to_user(ada.pk, "three")
        await both(lambda tab: len(tab.shown) == 3, one, other)
        assert one.shown == other.shown == ["one", "two", "three"]
        assert other.read == [[second], [first]]


async def test_up_to_marks_only_what_this_socket_was_sent(no_watch: None, hub: Hub) -> None:
    """What is committed behind a later one has a smaller id, and nobody has seen it."""
    ada = await a_user()
    async with Tab(ada) as tab, a_transaction_that_tells(ada, "late") as late:
        soon = await asend_notification_to_user(ada.pk, "soon")
        await tab.until(lambda: tab.shown == ["soon"])
        assert late.id < soon
        tab.send({"type": "read", "up_to": soon})
        await tab.until(lambda: tab.read == [[soon]])
        late.may_commit.set()
        await tab.until(lambda: tab.shown == ["soon", "late"])
        assert await unread_count(ada) == 1


async def test_nothing_comes_twice_while_a_transaction_stays_open(no_watch: None, hub: Hub) -> None:
    """Since that may tell something yet, each look finds again what was told since it began."""
    ada = await a_user()
    async with Tab(ada) as tab, a_transaction_that_tells(ada, "late") as late:
        for number in range(3):
            await asend_notification_to_user(ada.pk, number)
            await tab.until(lambda number=number: tab.shown[-1:] == [number])  # type: ignore[misc]
        late.may_commit.set()
        await tab.until(lambda: tab.shown[-1:] == ["late"])
        await asend_notification_to_user(ada.pk, "last")
        await tab.until(lambda: tab.shown[-1:] == ["last"])
        assert tab.shown == [0, 1, 2, "late", "last"]


async def test_without_a_channel_layer_the_watch_finds_what_is_new_late_and_read(
    quick_watch: None, dead_layer: None, hub: Hub
) -> None:
    ada = await a_user()
    async with Tab(ada) as one, Tab(ada) as other:
        first = await asend_notification_to_user(ada.pk, "one")
        await both(lambda tab: tab.shown == ["one"], one, other)
        # As another process would: this one's own tabs are told without the layer.
        await asyncio.to_thread(lambda: in_thread(lambda: mark_read(ada.pk, [first])).result())
        await both(lambda tab: tab.read == [[first]], one, other)
        await asend_notification_to_user(ada.pk, "two")
        await both(lambda tab: tab.shown == ["one", "two"], one, other)
        one.send({"type": "read", "up_to": one.ids[-1]})
        await both(lambda tab: len(tab.read) == 2, one, other)


async def test_an_event_of_ones_own_in_the_group_is_sent_on_as_json(no_watch: None, hub: Hub) -> None:
    ada = await a_user()
    layer = get_channel_layer()
    group = notifications_group(ada.pk)
    async with Tab(ada) as tab:
        await layer.group_send(group, {"type": "send_notification", "message": b"no JSON"})
        await layer.group_send(group, {"type": "something_else", "message": 1})
        await layer.group_send(group, {"type": "send_notification", "message": {"text": "lunch"}})
        await tab.until(lambda: len(tab.received) > 1)
        assert tab.received[1:] == [{"type": "notification", "message": {"text": "lunch"}}]
        assert tab.closed is None


async def test_a_forged_hint_adds_nothing(no_watch: None, hub: Hub) -> None:
    ada = await a_user()
    layer = get_channel_layer()
    async with Tab(ada) as tab:
        id_ = await asend_notification_to_user(ada.pk, "true")
        await tab.until(lambda: tab.ids == [id_])
        for forged in (id_, id_ + 1):
            event = {"type": "send_notification", "id": forged, "message": "forged", "at": ""}
            await layer.group_send(notifications_group(ada.pk), event)
        await layer.group_send(mailbox_group(ada.pk), {"type": "read", "ids": [id_]})
        await asend_notification_to_user(ada.pk, "true too")
        await tab.until(lambda: len(tab.shown) > 1)
        assert (tab.shown, tab.read) == (["true", "true too"], [])


async def test_a_socket_that_reads_nothing_holds_a_page_and_loses_nothing(no_watch: None, hub: Hub) -> None:
    ada = await a_user()
    async with Tab(ada) as tab:
        tab.reads.clear()
        for number in range(3 * PAGE_MAX):
            await asend_notification_to_user(ada.pk, number)
        async with Tab(ada) as quick:
            await quick.until(lambda: len(quick.shown) == 3 * PAGE_MAX)
            quick.send({"type": "read", "ids": quick.ids[-PAGE_MAX:]})
            await quick.until(lambda: quick.read != [])
        assert tab.shown == []
        tab.reads.set()
        await asend_notification_to_user(ada.pk, "last")
        await tab.until(lambda: tab.shown[-1:] == ["last"])
        assert tab.shown == [*range(2 * PAGE_MAX), "last"]


async def test_a_page_that_the_database_does_not_give_is_asked_for_again(
    quick_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await a_user()
    failures = iter([OperationalError, InterfaceError])

    def failing(user_key: Any, ids: Any) -> list[Notification]:
        if (error := next(failures, None)) is not None:
            raise error
        return still_unread(user_key, ids)

    monkeypatch.setattr(readers, "still_unread", failing)
    await asend_notification_to_user(ada.pk, "hello")
    async with Tab(ada) as tab:
        await tab.until(lambda: tab.shown == ["hello"])
        assert next(failures, None) is None


async def test_what_was_read_while_it_was_on_its_way_is_told_behind_it(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await a_user()
    loop = asyncio.get_running_loop()

    def read_meanwhile(user_key: Any, ids: Any) -> list[Notification]:
        page = still_unread(user_key, ids)
        mark_read(user_key, ids)
        asyncio.run_coroutine_threadsafe(Mailbox.look_at_all(hub, list(hub.guests)), loop).result(10)
        return page

    monkeypatch.setattr(readers, "still_unread", read_meanwhile)
    id_ = await asend_notification_to_user(ada.pk, "hello")
    async with Tab(ada) as tab:
        await tab.until(lambda: tab.read == [[id_]])
        assert [each["type"] for each in tab.received] == ["connection_established", "notification", "read"]


async def test_what_is_read_on_the_page_is_read_in_every_tab(no_watch: None, hub: Hub) -> None:
    ada = await sign_in(await a_user())
    id_ = await asend_notification_to_user(ada.user.pk, "hello")
    async with Tab(person=ada) as tab:
        await tab.until(lambda: tab.ids == [id_])
        await sync_to_async(ada.browser.post)("/notifications/read/", {"id": id_})
        await tab.until(lambda: tab.read == [[id_]])


async def test_more_than_its_unread_are_read_for_it_and_every_tab_hears(
    settings: Settings, no_watch: None, hub: Hub
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNREAD_NOTIFICATIONS_MAX": 2}
    ada = await a_user()
    async with Tab(ada) as tab:
        for number in range(3):
            await asend_notification_to_user(ada.pk, number)
            await tab.until(lambda: tab.shown[-1:] == [number])  # noqa: B023 (it is waited for in this turn)
        await tab.until(lambda: tab.read == [[tab.ids[0]]])


LOSSES: dict[str, Callable[[SignedIn], object]] = {
    "logout": lambda person: person.sign_out(),
    "password": lambda person: change(person.user, password="another"),
    "deactivated": lambda person: change(person.user, is_active=False),
    "deleted": lambda person: person.user.delete(),
}


def change(user: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(user, name, value)
    user.save()


@pytest.mark.parametrize("way", LOSSES)
async def test_a_socket_ends_with_what_let_it_in(way: str, no_watch: None, hub: Hub) -> None:
    ada = await sign_in(await a_user())
    await hub.bus.ready()
    async with Tab(person=ada) as tab:
        assert tab.closed is None
        await sync_to_async(LOSSES[way])(ada)
        assert await tab.until_closed() == 4401
        await get_channel_layer().group_send(
            notifications_group(ada.user.pk), {"type": "send_notification", "message": "too late"}
        )
        await eventually(lambda: not list(hub.guests))
        assert tab.shown == []
    async with Tab(person=ada) as again:
        assert again.closed == 4401


async def test_the_watch_ends_a_socket_whose_session_went_without_a_word(quick_watch: None, hub: Hub) -> None:
    ada = await sign_in(await a_user())
    async with Tab(person=ada) as tab:
        await sync_to_async(execute)("DELETE FROM django_session WHERE session_key = %s", ada.session_key)
        assert await tab.until_closed() == 4401


async def test_a_draining_process_lets_go_and_takes_nobody(hub: Hub) -> None:
    ada = await a_user()
    async with Tab(ada) as tab:
        await hub.stop()
        assert await tab.until_closed() == 1012
        async with Tab(ada) as late:
            assert late.closed == 1012


async def test_only_who_is_signed_in_on_a_page_of_ours_comes_in(settings: Settings, hub: Hub) -> None:
    ada = await a_user()
    async with Tab() as nobody:
        assert (nobody.closed, nobody.received) == (4401, [])
    gone = await a_user(is_active=False)
    async with Tab(gone) as inactive:
        assert (inactive.closed, inactive.received) == (4401, [])
    elsewhere = [(b"host", b"here.example"), (b"origin", b"https://elsewhere.example")]
    async with Tab(ada, headers=elsewhere) as abused:
        assert (abused.closed, abused.received) == (4403, [])
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SOCKETS_PER_USER_MAX": 1}
    async with Tab(ada) as one:
        assert one.closed is None
        async with Tab(ada) as other:
            assert other.closed == 1013
    await eventually(lambda: not list(hub.guests) and not len(hub.groups) and not len(hub.sockets))


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[" * 10_000,
        "null",
        "[]",
        '{"type": "read"}',
        '{"type": "read", "ids": 7}',
        '{"type": "read", "ids": [true]}',
        '{"type": "read", "ids": [0]}',
        '{"type": "read", "ids": ["7"]}',
        f'{{"type": "read", "ids": [{2**63}]}}',
        f'{{"type": "read", "ids": {[1] * (READ_IDS_MAX + 1)}}}',
        '{"type": "read", "up_to": -1}',
        '{"type": "write", "ids": [1]}',
    ],
    ids=lambda text: text[:40],
)
async def test_what_is_not_understood_is_answered_and_changes_nothing(text: str, no_watch: None, hub: Hub) -> None:
    ada = await a_user()
    await asend_notification_to_user(ada.pk, "hello")
    async with Tab(ada) as tab:
        tab.send_text(text)
        await tab.until(lambda: tab.received[-1]["type"] == "error")
        assert tab.received[-1]["code"] == "malformed"
        tab.send({"type": "read", "up_to": 2**63 - 1})
        await tab.until(lambda: len(tab.read) == 1)
        assert tab.closed is None


async def test_whoever_sends_fast_is_read_slower_and_loses_nothing(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "READS_PER_SECOND", 50)
    monkeypatch.setattr(consumers, "READS_BURST", 3)
    async with Tab(await a_user()) as tab:
        began = hub.now()
        for _ in range(13):
            tab.send_text("no JSON")
        await tab.until(lambda: len(tab.received) == 14)
        assert hub.now() - began >= 9 / 50  # the last one's pause comes behind its answer


@pytest.mark.parametrize(
    ("send", "code"), [(lambda tab: tab.send_bytes(b"\x00"), 1003), (lambda tab: tab.send_text("x" * 1_100_000), 1009)]
)
async def test_what_no_client_of_this_door_sends_closes_it(send: Callable[[Tab], None], code: int, hub: Hub) -> None:
    async with Tab(await a_user()) as tab:
        send(tab)
        assert await tab.until_closed() == code


class Shouting(NotificationConsumer):
    """A consumer of somebody's own, as Channels' tutorials have it."""

    async def send_notification(self, event: dict[str, Any]) -> None:
        await self.send(text_data=f'{{"type": "notification", "message": "{event["message"].upper()}"}}')


async def test_a_consumer_of_ones_own_says_it_in_another_form(no_watch: None, hub: Hub) -> None:
    ada = await a_user()
    await asend_notification_to_user(ada.pk, "stored")
    async with Tab(ada, consumer=Shouting) as tab:
        await tab.until(lambda: tab.shown == ["STORED"])
        await get_channel_layer().group_send(
            notifications_group(ada.pk), {"type": "send_notification", "message": "passed on"}
        )
        await tab.until(lambda: tab.shown == ["STORED", "PASSED ON"])
