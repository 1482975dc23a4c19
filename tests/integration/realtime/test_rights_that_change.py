"""Whatever lets a person in: once it is gone the socket closes or turns read-only, told by the channel layer or found
by the watch, and nothing that is still in line is stored."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.test import Client, override_settings
from pytest_django import Settings

from documents.conf import Conf
from documents.models import Document, Membership, Role
from documents.opening import delete_document
from documents.roles import access_changed, admit
from documents.tickets import issue_ticket
from realtime.bus import ACCOUNTS_TOLD_MAX, _AccountsTold, signed
from realtime.hub import Hub
from realtime.rechecks import EVERYONE, _admit_again
from realtime.rooms import MakeDoc, Room
from tests.builders import make_user
from tests.integration.realtime.rooms import (
    HeldAppend,
    empty,
    eventually,
    rows_of,
    shared_document,
    stored,
    take_role_by_sql,
)
from tests.integration.realtime.signing_in import SignedIn, execute, sign_in
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


@dataclass(frozen=True, slots=True)
class Loss:
    """A way to lose a right, and the close code that follows; None where the socket only turns read-only.

    `code_of_the_watch` may come in its place where the watch looks before anything is told."""

    take: Callable[[Document, SignedIn], object]
    code: int | None
    code_of_the_watch: int | None = None


def change_account(**fields: object) -> Callable[[Document, SignedIn], object]:
    def take(_: Document, person: SignedIn) -> None:
        for name, value in fields.items():
            setattr(person.user, name, value)
        person.user.save()

    return take


def change_password(_: Document, person: SignedIn) -> None:
    person.user.set_password("another")
    person.user.save()


def lower_role(document: Document, person: SignedIn) -> None:
    membership = Membership.objects.get(document=document, user=person.user)
    membership.role = Role.VIEWER
    membership.save()


def by_sql(sql: str) -> Callable[[Document, SignedIn], object]:
    """With the user's key, the document's and the session's as %(user)s, %(document)s and %(session)s."""

    def take(document: Document, person: SignedIn) -> None:
        with connection.cursor() as cursor:
            cursor.execute(sql, {"user": person.user.pk, "document": document.pk, "session": person.session_key})

    return take


TOLD = {
    "logout": Loss(lambda _, person: person.sign_out(), 4401),
    "password changed": Loss(change_password, 4401),
    "deactivated": Loss(change_account(is_active=False), 4401),
    "account deleted": Loss(lambda _, person: person.user.delete(), 4401),
    "member removed": Loss(lambda _, person: Membership.objects.filter(user=person.user).first().delete(), 4403),  # type: ignore[union-attr]
    "role lowered": Loss(lower_role, None),
    "document deleted": Loss(lambda document, _: delete_document(document), 4403, code_of_the_watch=4404),
}
UNTOLD = {
    "password changed by SQL": Loss(by_sql("UPDATE auth_user SET password = '!' WHERE id = %(user)s"), 4401),
    "deactivated by SQL": Loss(by_sql("UPDATE auth_user SET is_active = false WHERE id = %(user)s"), 4401),
    "session deleted by SQL": Loss(by_sql("DELETE FROM django_session WHERE session_key = %(session)s"), 4401),
    "session expired": Loss(
        by_sql("UPDATE django_session SET expire_date = now() - interval '1 s' WHERE session_key = %(session)s"), 4401
    ),
    "member removed by SQL": Loss(
        by_sql("DELETE FROM documents_membership WHERE user_id = %(user)s AND document_id = %(document)s"), 4403
    ),
    "role lowered by SQL": Loss(
        by_sql("UPDATE documents_membership SET role = 10 WHERE user_id = %(user)s AND document_id = %(document)s"),
        None,
    ),
}
ALL = TOLD | UNTOLD


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


async def two_people() -> tuple[Document, SignedIn, SignedIn]:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    return document, await sign_in(people["ada"]), await sign_in(people["bob"])


async def ends_as(loss: Loss, ada: Socket, bob: Socket) -> None:
    if loss.code is None:
        await bob.until(lambda: bob.denied > 0)
        assert bob.closed is None
    else:
        await bob.until(lambda: bob.closed is not None)
        assert bob.closed in {loss.code, loss.code_of_the_watch or loss.code}


@pytest.mark.parametrize("way", TOLD)
async def test_a_socket_ends_with_its_right_as_soon_as_the_channel_layer_tells(
    way: str, no_watch: None, hub: Hub
) -> None:
    document, ada, bob = await two_people()
    await hub.bus.ready()
    async with ada.socket(document) as by_ada, bob.socket(document) as by_bob:
        await asyncio.gather(by_ada.until_synced(), by_bob.until_synced())
        await sync_to_async(TOLD[way].take)(document, bob)
        await ends_as(TOLD[way], by_ada, by_bob)
        assert by_ada.closed is None or way == "document deleted"


async def test_nobodys_socket_ends_when_its_document_is_open_to_all_no_longer(
    dead_layer: None, quick_watch: None, hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    async with Socket("open") as socket:
        await socket.until_synced()
        socket.type("a")
        document = await Document.objects.aget(name="open")
        await stored(hub, document, 1)
        await sync_to_async(execute)("UPDATE documents_document SET open_to_all = false WHERE id = %s", document.pk)
        socket.type("b")
        await socket.until(lambda: socket.closed == 4403)
    assert len(await rows_of(document)) == 1


def test_no_role_of_before_a_change_is_given_under_the_version_of_after_it(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    document = Document.objects.create(name="open", title="open", open_to_all=True)
    execute("UPDATE documents_document SET open_to_all = false WHERE id = %s", document.pk)
    assert admit(AnonymousUser(), document).role is None


@pytest.mark.parametrize("way", ALL)
async def test_a_socket_ends_with_its_right_when_the_watch_looks_though_the_channel_layer_is_dead(
    way: str, dead_layer: None, quick_watch: None, hub: Hub
) -> None:
    document, ada, bob = await two_people()
    async with ada.socket(document) as by_ada, bob.socket(document) as by_bob:
        await asyncio.gather(by_ada.until_synced(), by_bob.until_synced())
        await sync_to_async(ALL[way].take)(document, bob)
        await ends_as(ALL[way], by_ada, by_bob)
        assert by_ada.closed is None or way == "document deleted"


@pytest.mark.parametrize("way", [way for way in ALL if way != "document deleted"])
async def test_what_is_in_line_is_refused_once_the_right_is_gone_and_the_others_edits_are_stored(
    way: str, dead_layer: None, no_watch: None, hub: Hub
) -> None:
    document, ada, bob = await two_people()
    async with ada.socket(document) as by_ada, bob.socket(document) as by_bob:
        await asyncio.gather(by_ada.until_synced(), by_bob.until_synced())
        by_ada.type("0")
        await by_bob.until(lambda: by_bob.text == "0")
        by_bob.type("1", at=1)  # his session is in the log: no look at his account is for its sake
        await by_ada.until(lambda: by_ada.text == "01")
        held = HeldAppend(hub)
        by_bob.type(" bob", at=2)
        await held.under_way.wait()
        by_ada.type("ada ")
        await eventually(lambda: len(hub.commits._queue) == 1)
        await sync_to_async(ALL[way].take)(document, bob)
        held.may_go_on.set()
        await ends_as(ALL[way], by_ada, by_bob)
        await stored(hub, document, 3)
        assert by_ada.closed is None
    assert [payload_author for _, payload_author, _ in await rows_of(document)] in (
        [ada.user.pk, bob.user.pk, ada.user.pk],
        [ada.user.pk, None, ada.user.pk],  # his account is gone
    )


@pytest.mark.parametrize("is_open", [False, True], ids=["a room opens", "a room is open"])
async def test_a_right_that_is_taken_from_somebody_on_the_way_in_is_noticed_without_the_watch(
    is_open: bool, dead_layer: None, no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _, bob = await two_people()
    open_room = hub.open

    async def open_late(*args: Any) -> Room:
        await take_role_by_sql(document, bob.user)
        hub.bus._hear(signed({"type": "rights", "document": document.pk}))  # it finds him nowhere
        return await open_room(*args)

    if is_open:
        await hub.open(document.pk, empty)
    monkeypatch.setattr(hub, "open", open_late)
    async with bob.socket(document) as by_bob:
        await by_bob.until(lambda: by_bob.closed == 4403)


async def test_an_account_that_ends_on_the_way_in_is_out_again_without_the_watch(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, ada, bob = await two_people()
    await hub.bus.ready()
    is_admitted, may_enter, open_room = asyncio.Event(), asyncio.Event(), hub.open

    async def open_later(document_id: int, make_doc: MakeDoc) -> Room:
        is_admitted.set()
        await may_enter.wait()
        return await open_room(document_id, make_doc)

    async with ada.socket(document) as by_ada:
        await by_ada.until_synced()
        monkeypatch.setattr(hub, "open", open_later)
        async with bob.socket(document) as by_bob:
            await is_admitted.wait()
            since, rechecks = hub.now(), hub.rechecks
            await sync_to_async(TOLD["deactivated"].take)(document, bob)
            await eventually(lambda: rechecks.told_at >= since and not rechecks._accounts_busy)
            may_enter.set()
            await by_bob.until(lambda: by_bob.closed == 4401)


async def test_a_superuser_who_is_one_no_longer_is_out(dead_layer: None, quick_watch: None, hub: Hub) -> None:
    document, _ = await shared_document(ada=Role.OWNER)
    root = await sign_in(await sync_to_async(make_user)("root", is_superuser=True))
    async with root.socket(document) as socket:
        await socket.until_synced()
        await sync_to_async(execute)("UPDATE auth_user SET is_superuser = false WHERE id = %s", root.user.pk)
        await socket.until(lambda: socket.closed == 4403)


async def test_signing_out_of_one_browser_leaves_the_other_in(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    await hub.bus.ready()
    here = await sign_in(people["ada"])
    there = SignedIn(here.user, await sync_to_async(_second_browser)(here))
    async with here.socket(document) as first, there.socket(document) as second:
        await asyncio.gather(first.until_synced(), second.until_synced())
        await sync_to_async(here.sign_out)()
        await first.until(lambda: first.closed == 4401)
        second.type("still here")
        await stored(hub, document, 1)
        assert second.closed is None


def _second_browser(person: SignedIn) -> Client:
    browser = Client()
    browser.force_login(person.user)
    return browser


async def test_a_session_that_goes_just_after_its_logout_was_told_is_found_by_the_second_look(
    dead_layer: None, no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, ada, _ = await two_people()
    async with ada.socket(document) as socket:
        await socket.until_synced()
        load = hub.load

        async def load_before_it_goes(read: Callable[..., object], *args: object) -> object:
            found = await load(read, *args)
            if read is _admit_again:  # the second look waits for the end of this one, however long that takes
                await sync_to_async(execute)("DELETE FROM django_session WHERE session_key = %s", ada.session_key)
            return found

        monkeypatch.setattr(hub, "load", load_before_it_goes)
        hub.rechecks.look_at_accounts_soon(str(ada.user.pk))
        await socket.until(lambda: socket.closed == 4401)


async def test_a_tickets_socket_ends_with_the_password_and_outlives_the_ticket(
    no_watch: None, hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "TICKET_SECONDS": 1}
    document, people = await shared_document(ada=Role.OWNER)
    await hub.bus.ready()
    ticket = await sync_to_async(issue_ticket)(people["ada"], document)
    async with Socket(document.name, query=f"ticket={ticket.text}".encode()) as socket:
        await socket.until_synced()
        await hub.rechecks.check_accounts()
        await hub.rechecks.look_at_room(hub.rooms[document.pk])
        assert socket.closed is None
        await sync_to_async(execute)("UPDATE auth_user SET last_login = now() WHERE id = %s", people["ada"].pk)
        await sync_to_async(change_password)(document, SignedIn(people["ada"], None))  # type: ignore[arg-type]
        await socket.until(lambda: socket.closed == 4401)


async def test_sessions_that_only_a_cache_knows_are_looked_up_by_the_watch_and_on_signing_out(
    dead_layer: None, no_watch: None, hub: Hub, settings: Settings
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SESSION_CHECK_SECONDS": 0.0}
    document, ada, bob = await two_people()
    async with ada.socket(document) as by_ada, bob.socket(document) as by_bob:
        await asyncio.gather(by_ada.until_synced(), by_bob.until_synced())
        await hub.rechecks.check_accounts()
        await sync_to_async(bob.sign_out)()
        await hub.rechecks.check_accounts()
        await by_bob.until(lambda: by_bob.closed == 4401)
        settings.PALIMPSEST = {**settings.PALIMPSEST, "SESSION_CHECK_SECONDS": 600.0}
        await sync_to_async(ada.sign_out)()
        hub.rechecks.look_at_accounts_soon(str(ada.user.pk))
        await by_ada.until(lambda: by_ada.closed == 4401)


async def test_a_session_that_only_a_cache_knows_is_looked_up_within_a_minute(
    dead_layer: None, no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    document, ada, _ = await two_people()
    async with ada.socket(document) as socket:
        await socket.until_synced()
        began = now = hub.now()
        monkeypatch.setattr(hub, "now", lambda: now)
        await hub.rechecks.check_accounts()
        await sync_to_async(ada.sign_out)()  # of which nobody is told
        for looks in range(1, 100):
            now = began + looks * Conf().head_check_seconds
            await hub.rechecks.check_accounts()
            if hub.rechecks._looking_up:
                break
        assert now - began < 60
        await socket.until(lambda: socket.closed == 4401)


async def test_many_messages_are_one_look(no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    document, ada, bob = await two_people()
    async with ada.socket(document) as by_ada, bob.socket(document) as by_bob:
        await asyncio.gather(by_ada.until_synced(), by_bob.until_synced())
        looks: list[str] = []
        load = hub.load

        async def counted(read: Callable[..., object], *args: object) -> object:
            looks.append(read.__name__)
            return await load(read, *args)

        monkeypatch.setattr(hub, "load", counted)
        room = hub.rooms[document.pk]
        for number in range(1000):
            hub.bus._hear(signed({"type": "rights", "document": document.pk}))
            hub.bus._hear(signed({"type": "accounts", "user": str(number)}))
        await eventually(lambda: not hub.rechecks._rooms_busy and not hub.rechecks._accounts_busy)
        assert looks.count("_admit_again") <= 2
        assert looks.count("read_standing") <= 3
        assert room.members


async def test_a_transaction_over_many_accounts_sends_few_messages(
    no_watch: None, hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 10.0}  # on a busy machine the same
    heard: list[str] = []
    look = hub.rechecks.look_at_accounts_soon
    monkeypatch.setattr(hub.rechecks, "look_at_accounts_soon", heard.append)
    document, people = await shared_document(ada=Role.OWNER)
    last = await sign_in(people["ada"])
    await hub.bus.ready()
    monkeypatch.setattr("realtime.bus._accounts_told", _AccountsTold())  # as if nothing had been told for a while
    unhurried = {**settings.PALIMPSEST, "RECHECK_PAUSE_SECONDS": 600.0}

    @sync_to_async
    def deactivate_many() -> None:
        users = [make_user() for _ in range(200)]
        with transaction.atomic():
            for user in (*users, last.user):
                user.is_active = False
                user.save()

    async with last.socket(document) as socket:
        await socket.until_synced()
        with override_settings(PALIMPSEST=unhurried):
            await deactivate_many()
        await eventually(lambda: EVERYONE in heard)
        told = [key for key in heard if key != str(last.user.pk)]  # of her signing in was told as well
        assert len(told) == ACCOUNTS_TOLD_MAX + 1
        for key in told:
            look(key)
        await socket.until(lambda: socket.closed == 4401)


async def test_a_rule_that_fails_keeps_readers_reading_and_lets_nothing_be_written(
    dead_layer: None, no_watch: None, hub: Hub, settings: Settings
) -> None:
    document, ada, bob = await two_people()
    async with ada.socket(document) as by_ada, bob.socket(document) as by_bob:
        await asyncio.gather(by_ada.until_synced(), by_bob.until_synced())
        rule = f"{__name__}.{rule_that_fails_for_bob.__name__}"
        settings.PALIMPSEST = {**settings.PALIMPSEST, "ROLE_FOR": rule}
        await sync_to_async(access_changed)(document)
        by_bob.type("bob")
        await by_bob.until(lambda: by_bob.denied > 0)
        by_ada.type("ada")
        await by_bob.until(lambda: "ada" in by_bob.text)
        assert (by_ada.closed, by_bob.closed) == (None, None)
    assert [author for _, author, _ in await rows_of(document)] == [ada.user.pk]


def rule_that_fails_for_bob(user: object, document: Document) -> Role | None:
    if getattr(user, "username", "") == "bob":
        raise RuntimeError("a fault of the host's")
    return Role.EDITOR


async def test_hints_that_wait_for_a_slow_layer_are_bounded_by_their_bytes(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HINTS_WAITING_BYTES_MAX": 10_000}
    document, _ = await shared_document()
    await hub.open(document.pk, empty)
    for number in range(100):
        hub.bus._publish("nobody", {"type": "doc_update", "number": number, "update": bytes(1000)})
    assert hub.bus._outgoing_bytes <= 10_000
    assert [message["number"] for _, message, _ in hub.bus._outgoing] == list(range(94, 100))
