"""The Hocuspocus door, frame by frame: each message of each role at the right and at the wrong moment; its bounds."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.dispatch import receiver
from django.utils import timezone
from pycrdt import Doc, Text
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.opening import NoSuchDocument, delete_document
from documents.tickets import issue_ticket
from history.crdt.lib0 import var_bytes, var_string
from realtime import entrance
from realtime.hocuspocus import addresses, connections
from realtime.hocuspocus.consumers import HocuspocusConsumer
from realtime.hocuspocus.stateless import STATELESS_BYTES_MAX, broadcast_stateless, stateless_received
from realtime.hub import Hub, drain
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.hocuspocus import HocuspocusWire
from realtime.protocols.messages import (
    Admitted,
    Awareness,
    PermissionDenied,
    Saved,
    Stateless,
    SyncStep1,
    SyncStep2,
    Update,
)
from tests.builders import make_document, make_user
from tests.integration.realtime.providers import (
    EMPTY,
    NOTHING,
    Closed,
    Provider,
    TokenWanted,
    deletion_of,
    joined,
    state_vector_of,
    typed,
)
from tests.integration.realtime.rooms import (
    HeldAppend,
    eventually,
    folded_text,
    refused_of,
    rows_of,
    shared_document,
    stored,
)

pytestmark = [pytest.mark.django_db(transaction=True)]

WRITER, READER = Admitted(may_write=True), Admitted(may_write=False)
YES, NO = Saved(applied=True), Saved(applied=False)
NO_SUCH_DOCUMENT = PermissionDenied("there is no such document, or you may not see it")
SIGN_IN = PermissionDenied("sign in to open this document")
SESSION = "\0k3j2h1"


async def minutes() -> tuple[str, Document, dict[str, Any]]:
    document, people = await shared_document(ada=Role.OWNER, ed=Role.EDITOR, vic=Role.VIEWER)
    people["stranger"], people["nobody"] = await sync_to_async(make_user)(), None
    return document.name, document, people


# Each message of each role, at the right and the wrong moment


@pytest.mark.parametrize("session", ["", SESSION])
@pytest.mark.parametrize(("role", "admitted", "saved"), [("ed", WRITER, YES), ("vic", READER, NO)])
async def test_what_a_member_says_at_once_waits_for_the_admission_and_is_done_in_order(
    hub: Hub, role: str, admitted: Admitted, saved: Saved, session: str
) -> None:
    name, document, people = await minutes()
    address = name + session
    async with Provider(user=people[role]) as provider:
        provider.show(address, 7)
        provider.token(address)
        provider.say(address, SyncStep1(EMPTY))
        provider.show(address, 7, clock=2)
        provider.query_awareness(address)
        provider.say(address, SyncStep2(NOTHING))
        provider.say(address, Update(typed("a")[0]))
        shown = [Awareness((stamped(7, clock, people[role]),)) for clock in (1, 2)]
        await provider.hears(address, admitted, shown[0], SyncStep1(EMPTY), SyncStep2(NOTHING), shown[1], shown[1])
        if role == "vic":
            await provider.hears(address, YES, NO)
        else:
            await provider.hears(address, YES, YES)
        assert provider.closed is None
    assert len(await rows_of(document)) == (role == "ed")


async def test_who_comes_is_told_who_is_here_right_behind_what_they_may_do(hub: Hub) -> None:
    name, _, people = await minutes()
    async with Provider(user=people["ada"]) as ada, Provider(user=people["vic"]) as vic:
        await ada.opened(name)
        ada.show(name, 7)
        here = Awareness((stamped(7, 1, people["ada"]),))
        await ada.hears(name, here)
        for address in (name, name + SESSION):
            vic.begin(address)
            await vic.hears(address, READER, here, SyncStep1(EMPTY), SyncStep2(NOTHING))


def stamped(client_id: int, clock: int, user: Any) -> AwarenessEntry:
    """What everybody is shown of `Provider.show`."""
    name = user.get_username()
    return AwarenessEntry(client_id, clock, f'{{"at":1,"user":{{"id":"{user.pk}","verified":true,"name":"{name}"}}}}')


@pytest.mark.parametrize(("role", "denied"), [("stranger", NO_SUCH_DOCUMENT), ("nobody", SIGN_IN)])
async def test_who_has_no_role_is_denied_and_nothing_else_of_it_is_heard_and_the_socket_stays(
    hub: Hub, role: str, denied: PermissionDenied
) -> None:
    name, document, people = await minutes()
    async with Provider(user=people[role]) as provider:
        say_everything(provider, name)
        await provider.hears(name, denied)
        say_everything(provider, name, but_the_token=True)
        provider.close(name)
        provider.token(name)
        await provider.hears(name, denied)
        provider.send(b"\x09")
        await provider.until(lambda: provider.frames[-1] == b"\x0a")
        assert provider.said[name] == []
        assert provider.closed is None
    assert await rows_of(document) == []
    assert await refused_of(document) == []


def say_everything(provider: Provider, address: str, *, but_the_token: bool = False) -> None:
    if not but_the_token:
        provider.token(address)
    provider.say(address, SyncStep1(EMPTY))
    provider.say(address, SyncStep2(typed("step2", client_id=5)[0]))
    provider.say(address, Update(typed("update", client_id=6)[0]))
    provider.show(address, 7)
    provider.query_awareness(address)
    provider.say(address, Stateless("{}"))


async def test_a_name_that_no_room_can_have_is_denied_where_anyone_opens_any_room(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    async with Provider() as provider:
        for address in ("", " ", SESSION, f" {SESSION}", "a room/"):
            provider.begin(address)
            await provider.hears(address, NO_SUCH_DOCUMENT)
            assert [each.name async for each in Document.objects.all()] == []
        await provider.opened("a room")
        assert provider.closed is None


async def test_without_a_token_everything_waits_but_a_sync_step1_begins_by_itself(hub: Hub) -> None:
    name, document, people = await minutes()
    async with Provider(user=people["ed"]) as provider:
        provider.say(name, Update(typed("a")[0]))
        provider.query_awareness(name)
        provider.send(b"\x09")
        await provider.until(lambda: provider.frames == [b"\x0a"])
        provider.say(name, SyncStep1(EMPTY))  # as of 2.15, which has no token
        await provider.until(lambda: len(provider.said.get(name, ())) >= 3)
        assert provider.said[name][0] == WRITER
        await stored(hub, document, 1)
    assert await folded_text(document) == "a"


async def test_a_document_that_the_provider_has_left_is_as_before_its_token(hub: Hub) -> None:
    name, document, people = await minutes()
    async with Provider(user=people["ed"]) as provider, Provider(user=people["ada"]) as ada:
        await ada.opened(name)
        await provider.opened(name)
        provider.show(name, 7)
        await ada.hears(name, Awareness((stamped(7, 1, people["ed"]),)))
        provider.close(name)
        await ada.hears(name, Awareness((AwarenessEntry(7, 2, None),)))
        provider.said.clear()
        provider.show(name, 7, clock=5)  # as 2.15 does behind its Close
        provider.say(name, Update(typed("late")[0]))
        provider.say(name, SyncStep1(EMPTY))
        await provider.opened(name)
        provider.say(name, Update(typed("again", client_id=8)[0]))
        await provider.hears(name, YES)
    assert await folded_text(document) == "again"
    assert ada.said[name][-1] == Awareness((AwarenessEntry(7, 2, None),)) or len(ada.said[name]) == 1


@pytest.mark.parametrize("age", [0, 100_000], ids=["good", "expired"])
async def test_who_leaves_while_being_let_in_and_comes_back_is_in(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, age: int
) -> None:
    name, document, people = await minutes()
    first, second = await ticket(people["ed"], document, age=age), await ticket(people["ed"], document)
    admission = HeldAdmission(monkeypatch, name)
    async with Provider() as provider:
        provider.begin(name, first)
        provider.say(name, Update(typed("first", client_id=6)[0]))
        provider.close(name)
        provider.begin(name, second)
        provider.say(name, Update(typed("second", client_id=7)[0]))
        await eventually(lambda: provider._incoming.empty())
        admission.may_go_on.set()
        await provider.until(lambda: YES in provider.said.get(name, []))
        if age:
            assert provider.said[name] == [TokenWanted(), WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING), YES]
        provider.said[name].clear()
        provider.say(name, Update(typed(" third", client_id=8)[0]))
        await provider.hears(name, YES)
    assert ("first" in await folded_text(document)) == (not age)
    assert len(hub.sockets) == 0


async def test_what_was_closed_before_any_token_came_never_was(hub: Hub) -> None:
    name, document, people = await minutes()
    async with Provider(user=people["ed"]) as provider:
        provider.say(name, Update(typed("before", client_id=5)[0]))
        provider.close(name)
        provider.say(name, Update(typed("between", client_id=6)[0]))
        await provider.opened(name)
        provider.say(name, Update(typed("in", client_id=7)[0]))
        await provider.hears(name, YES)
    assert await folded_text(document) == "in"


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", 1008),
        (b"\x0b", 1008),
        (var_string("{name}") + b"\x04\x00\x00\x01\x00", 1008),
        (var_string("{name}") + b"\x06" + var_string("to all"), 1008),
        (var_string("{name}") + b"\x08\x01", 1008),
        (var_string("{name}") + b"\x00\x02\x05\x01", 1008),
        (var_string("{name}") + b"\x00\x02\x05\xff\xff\xff\xff\x0f", 1008),
        (var_string("{name}") + b"\x01\x02\x01\x01", 1008),
        (var_string("{name}") + b"\x02\x02" + var_string("read-write"), 1008),
        (var_string("{name}") + b"\x07" + var_string("reason"), 1008),
        ("text", 1003),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_no_provider_says_closes_the_socket_and_changes_nothing(
    hub: Hub, frame: bytes | str, code: int, waits: bool
) -> None:
    name, document, people = await minutes()
    async with Provider(user=people["ed"]) as provider, Provider(user=people["ada"]) as ada:
        await ada.opened(name)
        if not waits:
            await provider.opened(name)
        if isinstance(frame, str):
            provider.send_text(frame)
        else:
            named = var_string("{name}")
            provider.send(var_string(name) + frame[len(named) :] if frame.startswith(named) else frame)
        if waits:
            provider.begin(name)
        await provider.until(lambda: provider.closed is not None)
        assert provider.closed == code
        ada.say(name, Update(typed("goes on")[0]))
        await ada.hears(name, YES)
    assert len(await rows_of(document)) == 1


async def test_a_frame_is_as_large_as_at_the_other_door(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "FRAME_BYTES_MAX": 100, "SYNC_FRAME_BYTES_MAX": 2000}
    name, _, people = await minutes()
    for role in ("ed", "vic"):
        async with Provider(user=people[role]) as provider:
            await provider.opened(name)
            provider.say(name, Update(typed("x" * 1000)[0]))
            await provider.hears(name, YES)  # the reader's says nothing new
            provider.say(name, Stateless("x" * 1000))
            await provider.until(lambda: provider.closed == 1009)
        async with Provider(user=people[role]) as provider:
            await provider.opened(name)
            provider.send(bytes(2001))
            await provider.until(lambda: provider.closed == 1009)


# What is saved


async def nothing_more(hub: Hub, provider: Provider, address: str) -> None:
    """All that was sent has met its fate, and nothing is said that nobody waited for."""
    pongs = provider.frames.count(b"\x0a")
    provider.send(b"\x09")
    await provider.until(lambda: provider.frames.count(b"\x0a") > pongs)
    await hub.commits.flushed()
    assert provider.said[address] == []


async def test_a_provider_gets_as_many_receipts_as_it_has_counted_and_each_after_its_commit(hub: Hub) -> None:
    name, document, people = await minutes()
    first, second, third, fourth = typed("a", "b", "c", "d")
    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name)
        held = HeldAppend(hub)
        provider.say(name, Update(first))
        await held.under_way.wait()
        provider.say(name, Update(second))
        provider.say(name, SyncStep1(EMPTY))  # it counts anew: what came before is told of no more
        provider.say(name, Update(third))
        provider.say(name, SyncStep2(NOTHING))
        await provider.hears(name, SyncStep1(EMPTY), SyncStep2(NOTHING))
        held.may_go_on.set()
        await provider.hears(name, YES, YES)  # the third, and the handshake
        provider.say(name, SyncStep2(NOTHING))  # an answer to nothing is told nothing
        provider.say(name, Update(fourth))
        await provider.hears(name, YES)
        await nothing_more(hub, provider, name)
    assert await folded_text(document) == "abcd"


async def test_a_handshake_that_says_nothing_new_is_saved_with_what_stands_in_line(hub: Hub) -> None:
    name, _, people = await minutes()
    async with Provider(user=people["ed"]) as provider, Provider(user=people["ada"]) as ada:
        await provider.opened(name)
        held = HeldAppend(hub)
        provider.say(name, Update(typed("a")[0]))
        await held.under_way.wait()
        ada.begin(name)
        await ada.hears(name, WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING))
        ada.say(name, SyncStep2(typed("a")[0]))
        ada.show(name, 9)
        await ada.hears(name, Awareness((stamped(9, 1, people["ada"]),)))
        held.may_go_on.set()
        await ada.until(lambda: YES in ada.said[name])
        await provider.until(lambda: YES in provider.said[name])


@pytest.mark.parametrize("is_large", [False, True])
async def test_what_was_sent_behind_the_step1_but_written_before_it_is_not_counted(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """A provider sends what it could not send offline once the server says its first word. What it says that it has is
    read off the event loop where that is much."""
    read_here: list[bool] = []
    handshake, loop_thread = connections._Handshake, threading.get_ident()

    def noting(state_vector: bytes) -> Any:
        read_here.append(threading.get_ident() == loop_thread)
        return handshake(state_vector)

    monkeypatch.setattr(connections, "_Handshake", noting)
    if is_large:
        settings.PALIMPSEST = {**settings.PALIMPSEST, "OFF_LOOP_BYTES": 2}
    name, document, people = await minutes()
    offline = typed("off", "line")
    deleting = deletion_of(offline)
    async with Provider(user=people["ed"]) as provider:
        provider.begin(name, state_vector=state_vector_of(offline))
        await provider.hears(name, WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING))
        for update in (*offline, deleting):
            provider.say(name, Update(update))
        provider.say(name, Update(typed("counted", client_id=8)[0]))
        provider.say(name, SyncStep2(offline[0]))
        await provider.hears(name, YES, YES)
        provider.say(name, Update(typed("later", client_id=9)[0]))
        await provider.hears(name, YES)
        await nothing_more(hub, provider, name)
    async with Provider(user=people["ed"]) as provider:  # of the second document nothing waits for a first word
        await provider.opened(name + SESSION)
        provider.begin(name, state_vector=state_vector_of(offline))
        await provider.until(lambda: len(provider.said.get(name, ())) == 3)
        provider.said[name].clear()
        provider.say(name, Update(deleting))
        await provider.hears(name, YES)
    assert "off" not in await folded_text(document)
    assert read_here[0] is not is_large


async def test_what_builds_on_something_missing_is_saved_with_the_answer_that_brings_it(hub: Hub) -> None:
    name, document, people = await minutes()
    first, second, third = typed("a", "b", "c")
    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name)
        provider.say(name, Update(second))
        await provider.hears(name, SyncStep1(EMPTY))
        provider.say(name, Update(third))
        provider.say(name, SyncStep2(whole := joined(first, second, third)))
        await provider.hears(name, YES, YES)  # of the two updates, none for the answer
        provider.say(name, SyncStep2(whole))
        provider.say(name, Update(typed("d", client_id=8)[0]))
        await provider.hears(name, YES)
        await nothing_more(hub, provider, name)
        provider.say(name, Update(typed("x", "y", client_id=9)[1]))
        await provider.until(lambda: len(provider.said[name]) == 1)
        provider.said[name].clear()
        provider.say(name, SyncStep2(typed("x", "y", client_id=9)[1]))  # which brings no more
        await provider.hears(name, NO)
    assert sorted(await folded_text(document)) == sorted("abcd")


async def test_of_two_providers_each_gets_its_own_receipts(hub: Hub) -> None:
    name, _, people = await minutes()
    async with Provider(user=people["ed"]) as provider:
        for session in ("\0one", "\0two", ""):
            await provider.opened(name + session)
        provider.say(name + "\0one", Update(update := typed("a")[0]))
        await provider.hears(name + "\0one", YES)
        for session in ("\0two", ""):
            await provider.hears(name + session, Update(update))


async def test_a_room_begins_with_what_make_ydoc_makes(hub: Hub) -> None:
    class Letters(HocuspocusConsumer):
        async def make_ydoc(self, room_name: str) -> "Doc[Any]":
            return Doc({"text": Text(f"This is {room_name}")})

    name, document, people = await minutes()
    async with Provider(user=people["ed"], consumer=Letters) as provider:
        await provider.opened(name)
    assert await folded_text(document) == f"This is {name}"


# Roles that change


async def test_a_role_that_changes_is_told_in_place_and_a_right_that_ends_closes_that_document(hub: Hub) -> None:
    name, document, people = await minutes()
    other = await sync_to_async(make_document)(ed=(people["ed"], Role.EDITOR))
    await hub.bus.ready()
    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name)
        await provider.opened(other.name)
        await set_role(document, people["ed"], Role.VIEWER)
        await provider.hears(name, READER)
        provider.say(name, Update(typed("refused")[0]))
        await provider.hears(name, NO)
        await set_role(document, people["ed"], Role.EDITOR)
        await provider.hears(name, WRITER)
        provider.say(name, Update(typed("stored", client_id=8)[0]))
        await provider.hears(name, YES)

        await set_role(document, people["ed"], None)
        reason = "you may no longer see this document"
        await provider.hears(name, PermissionDenied(reason), Closed(reason))
        provider.say(name, Update(typed("under way", client_id=9)[0]))
        provider.say(other.name, Update(typed("goes on")[0]))
        await provider.hears(other.name, YES)
        assert provider.said[name] == []
        assert provider.closed is None
        await hub.refusals.flushed()
    assert await folded_text(document) == "stored"
    assert [reason for _, reason, _ in await refused_of(document)] == ["not_allowed"]
    [(_, _, updates)] = await refused_of(document)
    assert len(updates) == 2


@sync_to_async
def set_role(document: Document, user: Any, role: Role | None) -> None:
    if role is None:
        Membership.objects.get(document=document, user=user).delete()
    else:
        Membership.objects.update_or_create(document=document, user=user, defaults={"role": role})


async def test_a_document_that_is_deleted_is_closed_alone(hub: Hub) -> None:
    name, document, people = await minutes()
    other = await sync_to_async(make_document)(ed=(people["ed"], Role.EDITOR))
    await hub.bus.ready()
    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name)
        await provider.opened(other.name)
        await sync_to_async(delete_document)(document)
        await provider.until(lambda: len(provider.said[name]) == 2)
        assert isinstance(provider.said[name][0], PermissionDenied) and isinstance(provider.said[name][1], Closed)
        provider.say(other.name, Update(typed("goes on")[0]))
        await provider.hears(other.name, YES)
        assert provider.closed is None


async def test_credentials_that_end_close_the_socket_unless_another_account_has_a_document_on_it(hub: Hub) -> None:
    name, document, people = await minutes()
    await hub.bus.ready()
    of_ed, of_ada = await ticket(people["ed"], document), await ticket(people["ada"], document)
    async with Provider() as provider:
        for address in (first := f"{name}\0first", second := f"{name}\0second"):
            await provider.opened(address, of_ada)
        await provider.opened(name, of_ed)
        await sign_out(people["ed"])
        reason = "you are no longer signed in"
        await provider.hears(name, PermissionDenied(reason), Closed(reason))
        provider.say(first, Update(typed("a")[0]))
        await provider.hears(first, YES)
        await sign_out(people["ada"])
        await provider.until(lambda: provider.closed == 4401)
        assert provider.heard_late is not None
        for client_id, address in enumerate((first, second), start=8):
            late = Update(typed("under way", client_id=client_id)[0])
            provider.heard_late(HocuspocusWire(address).encode(late) or b"")
        async with asyncio.timeout(10):
            while len(await refused_of(document)) < 2:
                await asyncio.sleep(0.01)
    assert await folded_text(document) == "a"


@sync_to_async
def sign_out(user: Any) -> None:
    user.set_unusable_password()
    user.save()


@sync_to_async
def ticket(user: Any, document: Document, *, age: float = 0.0) -> str:
    return issue_ticket(user, document, now=timezone.now() - timedelta(seconds=age)).text


async def test_what_takes_a_reload_closes_the_socket_for_its_provider_to_come_again(hub: Hub) -> None:
    name, document, people = await minutes()
    other = await sync_to_async(make_document)(ed=(people["ed"], Role.EDITOR))
    async with Provider(user=people["ed"]) as reloading, Provider(user=people["ed"]) as staying:
        for address in (name, other.name):
            await reloading.opened(address)
        await staying.opened(other.name)
        hub.rooms[document.pk].drop("the document has to be loaded again")
        await reloading.until(lambda: reloading.closed == 1013)
        assert len(hub.rooms[other.pk].members) == 1  # of a closed socket no document is shown anything
        await drain()
        await staying.until(lambda: staying.closed == 1012)
    assert len(hub.sockets) == 0


# Tokens


async def test_a_ticket_decides_and_any_other_token_leaves_it_to_the_session(hub: Hub) -> None:
    name, document, people = await minutes()
    of_ed = await ticket(people["ed"], document)
    other = await sync_to_async(make_document)(ed=(people["ed"], Role.EDITOR))
    invalid = PermissionDenied("the ticket is not valid for this document")
    async with Provider(user=people["vic"]) as provider:
        provider.token(name, of_ed)
        await provider.hears(name, WRITER)
        provider.token(other.name, of_ed)
        await provider.hears(other.name, invalid)
        provider.token(f"{name}\0of the session", "a token of somebody else's")
        await provider.hears(f"{name}\0of the session", READER)
        provider.say(f"{name}\0without", SyncStep1(EMPTY))
        await provider.hears(f"{name}\0without", READER, SyncStep1(EMPTY), SyncStep2(NOTHING))
        assert provider.closed is None


async def test_an_expired_ticket_is_asked_for_again_and_again_and_then_denied(hub: Hub) -> None:
    name, document, people = await minutes()
    expired, fresh = await ticket(people["ed"], document, age=100_000), await ticket(people["ed"], document)
    async with Provider() as provider:
        provider.begin(name, expired)
        await provider.hears(name, TokenWanted())
        provider.token(name, expired)
        await provider.hears(name, TokenWanted())
        provider.token(name, fresh)
        await provider.hears(name, WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING))

        provider.begin(f"{name}\0stubborn", expired)
        for _ in range(addresses.TOKENS_ASKED_MAX):
            await provider.hears(f"{name}\0stubborn", TokenWanted())
            provider.token(f"{name}\0stubborn", expired)
        await provider.hears(f"{name}\0stubborn", PermissionDenied("the ticket has expired; come with a fresh one"))
        assert provider.closed is None


async def test_a_ticket_that_expires_is_asked_for_and_who_is_in_stays_in_whatever_comes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, document, people = await minutes()
    clock = SimpleNamespace(ahead_seconds=0.0)
    clock.time = lambda: time.time() + clock.ahead_seconds
    monkeypatch.setattr(addresses, "time", clock)
    async with Provider() as provider:
        clock.ahead_seconds = 900.0
        provider.begin(name, await ticket(people["ed"], document))
        await provider.hears(name, WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING), TokenWanted())
        clock.ahead_seconds = 0.0
        provider.token(name, await ticket(people["ed"], document, age=100_000))  # as those do that have a text alone
        provider.say(name, Update(typed("still in")[0]))
        await provider.hears(name, YES)
        provider.token(name, await ticket(people["ed"], document))
        await provider.hears(name, WRITER)
        provider.say(name, Update(typed("and on", client_id=8)[0]))
        await provider.until(lambda: YES in provider.said[name])
        assert provider.closed is None
    assert {user for _, user, _ in await rows_of(document)} == {people["ed"].pk}


async def test_another_token_at_an_open_document_lets_in_whoever_it_is_of_or_ends_it(hub: Hub) -> None:
    name, document, people = await minutes()
    other = await sync_to_async(make_document)()
    async with Provider() as provider:
        await provider.opened(name, await ticket(people["ed"], document))
        provider.token(name, await ticket(people["ada"], document))
        await provider.hears(name, WRITER)
        provider.say(name, Update(typed("by ada")[0]))
        await provider.hears(name, YES)
        provider.token(name, await ticket(people["vic"], document))
        await provider.hears(name, READER)
        provider.say(name, Update(typed("a", client_id=8)[0]))
        await provider.hears(name, NO)
        provider.token(name, await ticket(people["ada"], other))
        await provider.hears(name, PermissionDenied("the ticket is not valid for this document"))
        provider.say(name, Update(typed("b")[0]))
        provider.token(name, await ticket(people["ada"], document))
        await provider.hears(name, WRITER)
    assert [user for _, user, _ in await rows_of(document)] == [people["ada"].pk]
    assert len(hub.sockets) == 0


async def test_a_page_of_another_origin_may_not_use_the_session(hub: Hub) -> None:
    name, _, people = await minutes()
    async with Provider(user=people["ed"], headers=[(b"origin", b"https://elsewhere.example")]) as provider:
        provider.begin(name)
        await provider.hears(name, PermissionDenied("this page's origin may not use your session"))


# Bounds


async def test_a_socket_has_so_many_documents_and_no_more(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENTS_PER_SOCKET_MAX": 3}
    name, _, people = await minutes()
    async with Provider(user=people["ed"]) as provider:
        for session in ("\0one", "\0two", "\0three"):
            await provider.opened(name + session)
        provider.begin(name + "\0four")
        await provider.hears(name + "\0four", PermissionDenied("too many documents on one socket"))
        provider.close(name + "\0two")
        await provider.opened(name + "\0four")
        provider.say(name + "\0one", Update(typed("a")[0]))
        await provider.hears(name + "\0one", YES)


class SlowToTake(Provider):
    """Takes nothing until `takes`."""

    takes: asyncio.Event
    is_sent: bool = False

    async def _send(self, message: dict[str, Any]) -> None:
        self.is_sent = message["type"] == "websocket.send"
        await self.takes.wait()
        await super()._send(message)


async def test_a_document_that_still_has_something_to_do_gives_up_its_place_to_no_other(
    hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "DOCUMENTS_PER_SOCKET_MAX": 1}
    name, document, people = await minutes()
    ticket_of_another = await sync_to_async(issue_ticket)(people["ed"], await sync_to_async(make_document)())
    provider = SlowToTake(user=people["ed"])
    provider.takes = asyncio.Event()
    async with provider:
        provider.takes.set()
        await eventually(provider._incoming.empty)
        provider.takes.clear()
        provider.token(name, ticket_of_another.text)
        provider.token(name)
        await eventually(lambda: provider.is_sent)  # that it is denied
        provider.token("another")
        await eventually(provider._incoming.empty)
        provider.takes.set()
        await provider.hears("another", PermissionDenied("too many documents on one socket"))
        await provider.until(lambda: WRITER in provider.said.get(name, []))
    await eventually(lambda: not hub.rooms[document.pk].members)


@pytest.mark.parametrize(
    ("limits", "count"),
    [({"UNADMITTED_FRAMES_MAX": 10}, 10), ({"UNADMITTED_BYTES_MAX": 10_000}, 9)],
    ids=["frames", "bytes"],
)
async def test_so_much_waits_for_tokens_and_one_more_closes_the_socket(
    hub: Hub, settings: Settings, limits: dict[str, int], count: int
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, **limits}
    name, _, people = await minutes()
    async with Provider(user=people["ed"]) as provider:
        for place in range(count):
            provider.say(f"{name}\0{place % 2}", Stateless("x" * 1000))
        provider.send(b"\x09")
        await provider.until(lambda: provider.frames == [b"\x0a"])
        provider.say(f"{name}\0third", Stateless("x" * 1000))
        await provider.until(lambda: provider.closed == 1013)


async def test_whoever_is_being_let_in_is_read_no_further_than_may_wait_and_loses_nothing(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a provider comes home with more offline edits than may wait."""
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNADMITTED_FRAMES_MAX": 5}
    name, document, people = await minutes()
    other = await sync_to_async(make_document)(ed=(people["ed"], Role.EDITOR))
    admission = HeldAdmission(monkeypatch, name)
    async with Provider(user=people["ed"]) as provider:
        provider.begin(name)
        provider.begin(other.name)
        await provider.hears(other.name, WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING))  # which waits for nobody
        updates = typed(*"abcdefghijklmnopqrst")
        for update in updates:
            provider.say(name, Update(update))
        await eventually(lambda: provider._incoming.qsize() == len(updates) - 5)
        admission.may_go_on.set()
        await provider.hears(name, WRITER, SyncStep1(EMPTY), SyncStep2(NOTHING))
        await stored(hub, document, 1)
        await provider.hears(name, *[YES] * len(updates))
    assert await folded_text(document) == "abcdefghijklmnopqrst"


class HeldAdmission:
    """The database keeps whoever comes to one document waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.may_go_on = threading.Event()
        read_admission = entrance.read_admission

        def held(scope: Any, room_name: str, *how: Any) -> Any:
            assert room_name != name or self.may_go_on.wait(10)
            return read_admission(scope, room_name, *how)

        monkeypatch.setattr(entrance, "read_admission", held)


async def test_what_was_sent_before_the_socket_went_is_stored_though_nobody_was_let_in_yet(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, document, people = await minutes()
    admission = HeldAdmission(monkeypatch, name)
    async with Provider(user=people["ed"]) as provider:
        provider.begin(name)
        provider.say(name, Update(typed("just in time")[0]))
        provider.close(name)
        await eventually(lambda: provider._incoming.empty())
    admission.may_go_on.set()
    await eventually(lambda: document.pk in hub.rooms)
    await stored(hub, document, 1)
    await eventually(lambda: not hub.rooms[document.pk].members)
    assert await folded_text(document) == "just in time"
    assert len(hub.sockets) == 0


async def test_a_token_that_does_not_come_is_not_waited_for_for_ever(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "TOKEN_SECONDS": 0.2}
    name, _, people = await minutes()
    async with Provider(user=people["ed"]) as idle, Provider(user=people["ed"]) as provider:
        await provider.opened(name + SESSION)
        provider.query_awareness(name)
        await provider.hears(name, PermissionDenied("no token came"))
        await idle.until(lambda: idle.closed == 1013)
        provider.say(name + SESSION, Update(typed("a")[0]))
        await provider.hears(name + SESSION, YES)
        assert provider.closed is None


@pytest.mark.parametrize("limit", ["SOCKETS_PER_DOCUMENT_MAX", "SOCKETS_PER_USER_MAX"])
async def test_each_document_counts_as_a_socket_and_one_that_is_too_many_is_denied(
    hub: Hub, settings: Settings, limit: str
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, limit: 2}
    name, _, people = await minutes()
    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name + "\0one")
        await provider.opened(name + "\0two")
        provider.begin(name)
        await provider.hears(name, PermissionDenied(f"too many sockets: {limit}"))
        provider.close(name + "\0one")
        await provider.opened(name)
    assert len(hub.sockets) == 0


async def test_one_wire_is_encoded_once_for_everybody_at_it_and_once_for_each_session(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, people = await minutes()
    encoded: list[str] = []
    encode = HocuspocusWire.encode

    def counted(wire: HocuspocusWire, message: Any) -> bytes | None:
        if isinstance(message, Update):
            encoded.append(wire.address)
        return encode(wire, message)

    readers = [Provider(user=people["vic"]) for _ in range(3)]
    async with Provider(user=people["ed"]) as ed, readers[0], readers[1], readers[2]:
        await ed.opened(name)
        for reader in readers:
            await reader.opened(name)
        await readers[0].opened(name + SESSION)
        monkeypatch.setattr(HocuspocusWire, "encode", counted)
        ed.send(var_string(name) + b"\x00\x02" + var_bytes(update := typed("a")[0]))
        for reader in readers:
            await reader.hears(name, Update(update))
        await readers[0].hears(name + SESSION, Update(update))
    assert sorted(encoded) == [name, name + SESSION]


# Stateless messages


async def test_a_stateless_message_is_told_by_a_signal_and_may_be_answered(hub: Hub) -> None:
    name, document, people = await minutes()
    told: list[Any] = []

    @receiver(stateless_received)
    def answer(*, payload: str, reply: Callable[[str], None], **of: Any) -> None:
        told.append((payload, of["document"], of["actor"], of["role"]))
        if payload == "fail":
            raise RuntimeError("as a receiver may")
        reply(payload.upper())

    async with Provider(user=people["vic"]) as provider, Provider(user=people["ed"]) as other:
        await provider.opened(name)
        await other.opened(name)
        for payload in ("fail", "grüße"):
            provider.say(name, Stateless(payload))
        await provider.hears(name, Stateless("GRÜSSE"))
        assert other.said[name] == []
    assert told == [(payload, document, people["vic"], Role.VIEWER) for payload in ("fail", "grüße")]


async def test_a_receiver_that_takes_long_keeps_no_edit_waiting(hub: Hub) -> None:
    name, _, people = await minutes()
    may_go_on = threading.Event()

    @receiver(stateless_received)
    def slow(**_: Any) -> None:
        assert may_go_on.wait(10)

    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name)
        for _ in range(20):
            provider.say(name, Stateless("slow"))
        provider.say(name, Update(typed("a")[0]))
        await provider.hears(name, YES)
        may_go_on.set()


async def test_a_broadcast_reaches_everyone_at_the_document_and_nobody_else(hub: Hub) -> None:
    name, _, people = await minutes()
    other = await sync_to_async(make_document)(ed=(people["ed"], Role.EDITOR))
    await hub.bus.ready()
    async with Provider(user=people["ed"]) as provider:
        await provider.opened(name)
        await provider.opened(name + SESSION)
        await provider.opened(other.name)
        await broadcast_stateless(name, "to all")
        await provider.hears(name, Stateless("to all"))
        await provider.hears(name + SESSION, Stateless("to all"))
        await sync_to_async(async_to_sync(broadcast_stateless))(name, "from a view")
        await provider.hears(name, Stateless("from a view"))
        assert provider.said[other.name] == []
    with pytest.raises(NoSuchDocument):
        await broadcast_stateless("nowhere", "to nobody")
    with pytest.raises(ValueError, match=str(STATELESS_BYTES_MAX)):
        await broadcast_stateless(name, "x" * (STATELESS_BYTES_MAX + 1))
