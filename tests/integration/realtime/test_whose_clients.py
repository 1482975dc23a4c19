"""Client ids: each belongs to the person who first wrote under it, in every process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Doc, Text
from pytest_django import Settings

from documents.models import Document, Role
from history.models import Client, Refusal
from realtime.hub import Hub
from realtime.protocols.frames import encode_awareness, encode_sync_step2, encode_update
from tests.integration.realtime.rooms import (
    eventually,
    folded_text,
    refused_of,
    rows_of,
    shared_document,
    stored,
    take_role_by_sql,
)
from tests.integration.realtime.sockets import Socket, ada_and_bob
from tests.integration.realtime.test_rooms_and_bytes import deletion

pytestmark = [pytest.mark.django_db(transaction=True)]


def forged(socket: Socket, *, client_id: int, text: str) -> bytes:
    """What somebody who has the document that `socket` shows would write under another's client id."""
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.apply_update(socket.doc.get_update())
    known = doc.get_state()
    doc.get("text", type=Text).insert(0, text)
    return doc.get_update(known)


async def owners_of(document: Document) -> dict[int, str]:
    return {row.client_id: row.actor async for row in Client.objects.filter(document=document)}


async def test_nobody_writes_under_the_client_id_of_somebody_else(hub: Hub) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("ada")
        await bob.until(lambda: bob.text == "ada")
        forgery = forged(bob, client_id=ada.doc.client_id, text="not ada: ")
        bob.send(encode_update(forgery))
        await bob.until(lambda: bob.denied == 1)
        ada.type(" writes", at=3)
        bob.type("bob and ")
        await ada.until(lambda: ada.text == "bob and ada writes")
        await hub.refusals.flushed()
        assert (ada.closed, bob.closed) == (None, None)
    assert await owners_of(document) == {
        ada.doc.client_id: str(ada.user.pk),
        bob.doc.client_id: str(bob.user.pk),
    }
    assert await refused_of(document) == [(bob.user.pk, "not_yours", [forgery])]
    assert await folded_text(document) == "bob and ada writes"


async def test_another_process_knows_whose_a_client_id_is(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    """The room's own process has not heard who wrote: the append, under the lock, has the last word."""
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        bob.type("b")  # builds the gate
        await stored(hub, document, 1)
        gate = hub.rooms[document.pk].judge._gate
        assert gate is not None
        await Client.objects.acreate(document=document, client_id=7, actor=str(people["ada"].pk))
        bob.send(encode_update(forged(bob, client_id=7, text="not ada: ")))
        bob.type("ob", at=1)
        await bob.until(lambda: bob.denied == 1)
        await stored(hub, document, 2)
        assert bob.closed is None
    assert await folded_text(document) == "bob"


async def test_of_an_update_that_brings_anothers_edits_too_the_senders_own_are_taken(hub: Hub) -> None:
    """As when two people have worked offline in one browser."""
    async with ada_and_bob() as (document, ada, bob):
        ada.type("0")
        await bob.until(lambda: bob.text == "0")
        offline: Doc[Any] = Doc(client_id=bob.doc.client_id)
        offline.apply_update(bob.doc.get_update())
        known = offline.get_state()
        offline.get("text", type=Text).insert(1, " bob")
        offline.apply_update(forged(ada, client_id=ada.doc.client_id, text="ada offline "))
        offline.get("text", type=Text).insert(0, "on it: ")  # builds on what is refused
        both = offline.get_update(known)
        bob.send(encode_sync_step2(both))
        await ada.until(lambda: ada.text == "0 bob")
        await bob.until(lambda: bob.denied == 1)
        await hub.refusals.flushed()
        assert bob.closed is None
    assert await refused_of(document) == [(bob.user.pk, "not_yours", [both])]


async def test_relays_are_let_in_by_a_setting_and_logged_under_who_brought_them(
    no_watch: None, settings: Settings, hub: Hub
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "RELAYS": True}
    async with ada_and_bob() as (document, ada, bob):
        ada.type("ada")
        await bob.until(lambda: bob.text == "ada")
        bob.send(encode_update(forged(bob, client_id=ada.doc.client_id, text="relayed: ")))
        await ada.until(lambda: ada.text == "relayed: ada")
    assert [user for _, user, _ in await rows_of(document)] == [ada.user.pk, bob.user.pk]
    assert await owners_of(document) == {}  # an id says nothing there


async def test_relays_are_let_in_from_the_moment_the_setting_says_so(
    no_watch: None, settings: Settings, hub: Hub
) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("ada")
        await bob.until(lambda: bob.text == "ada")
        assert await owners_of(document) == {ada.doc.client_id: str(ada.user.pk)}
        settings.PALIMPSEST = {**settings.PALIMPSEST, "RELAYS": True}
        bob.send(encode_update(forged(bob, client_id=ada.doc.client_id, text="relayed: ")))
        await ada.until(lambda: ada.text == "relayed: ada" or bob.denied > 0)
        assert bob.denied == 0
    assert [user for _, user, _ in await rows_of(document)] == [ada.user.pk, bob.user.pk]


async def test_one_persons_tabs_share_their_client_ids(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as one, Socket(document.name, user=people["ada"]) as two:
        await asyncio.gather(one.until_synced(), two.until_synced())
        one.type("a")
        await two.until(lambda: two.text == "a")
        two.send(encode_update(forged(two, client_id=one.doc.client_id, text="tab ")))
        await one.until(lambda: one.text == "tab a")
        assert two.denied == 0


async def test_a_readers_edit_is_kept_for_them(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until_synced()
        first, second = eve.type("offline"), eve.type(" work", at=7)
        await eve.until(lambda: eve.denied == 2)
        await hub.refusals.flushed()
        assert eve.closed is None
        assert not any(payload[:2] == b"\x00\x00" for payload in eve.received[1:])  # never asked for more
    assert await rows_of(document) == []
    assert await refused_of(document) == [(people["eve"].pk, "not_allowed", [first, second])]


async def test_edits_that_were_in_line_when_the_right_was_taken_are_kept_too(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["bob"]) as bob:
        await bob.until_synced()
        bob.type("0")
        await stored(hub, document, 1)
        await take_role_by_sql(document, people["bob"])
        late = bob.type("late ")
        await bob.until(lambda: bob.closed == 4403)
        await hub.refusals.flushed()
    assert await refused_of(document) == [(people["bob"].pk, "not_allowed", [late])]


async def test_refused_updates_that_cannot_be_kept_close_the_socket_so_that_its_client_brings_them_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(eve=Role.VIEWER)
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until_synced()
        monkeypatch.setattr("history.refusals.KEEP", "SELECT nothing")
        eve.type("offline")
        await eve.until(lambda: eve.closed == 1013)


async def test_who_has_written_is_known_in_a_process_where_nobody_has(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.VIEWER, eve=Role.VIEWER)
    await Client.objects.acreate(document=document, client_id=7, actor=str(people["ada"].pk))
    async with Socket(document.name, user=people["eve"]) as eve, Socket(document.name, user=people["ada"]) as ada:
        await asyncio.gather(eve.until_synced(), ada.until_synced())
        room = hub.rooms[document.pk]
        assert not room.judge.has_gate
        await eventually(lambda: room.judge.owner_of(7) == str(people["ada"].pk))
        eve.show(7, 1, '{"user": {"name": "ada"}}')
        eve.show(8, 1, '{"user": {"name": "eve"}}')
        await ada.until(lambda: 8 in ada.shown)
        assert 7 not in ada.shown


async def test_nobody_is_quicker_than_who_is_here_with_a_client_id(hub: Hub) -> None:
    """Else whoever reads an id off a cursor could take it before its owner has typed anything."""
    async with ada_and_bob() as (document, ada, bob):
        ada.show(ada.doc.client_id, 1, '{"user": {}}')
        await bob.until(lambda: ada.doc.client_id in bob.shown)
        bob.send(encode_update(forged(bob, client_id=ada.doc.client_id, text="first!")))
        await bob.until(lambda: bob.denied == 1)
        ada.type("mine")
        await bob.until(lambda: bob.text == "mine")
    assert await owners_of(document) == {ada.doc.client_id: str(ada.user.pk)}


async def test_nobody_is_quicker_than_who_was_here_with_a_client_id_and_works_offline(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    async with Socket(document.name, user=people["bob"]) as bob:
        async with Socket(document.name, user=people["ada"]) as ada:
            await asyncio.gather(ada.until_synced(), bob.until_synced())
            ada.show(ada.doc.client_id, 1, '{"user": {}}')
            await bob.until(lambda: ada.doc.client_id in bob.shown)
        await bob.until(lambda: bob.shown[ada.doc.client_id] is None)
        bob.send(encode_update(forged(bob, client_id=ada.doc.client_id, text="first!")))
        await bob.until(lambda: bob.denied == 1)
        ada.root.insert(0, "offline")
        async with Socket(document.name, user=people["ada"]) as again:
            await again.until_synced()
            again.send(encode_sync_step2(ada.doc.get_update()))
            await bob.until(lambda: bob.text == "offline")
            assert again.denied == 0
    assert await owners_of(document) == {ada.doc.client_id: str(people["ada"].pk)}


async def test_whose_client_id_was_taken_is_answered_though_not_shown(no_watch: None, hub: Hub) -> None:
    """A stock client that hears nothing for half a minute connects anew, again and again."""
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    await Client.objects.acreate(document=document, client_id=7, actor=str(people["bob"].pk))
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        await eventually(lambda: hub.rooms[document.pk].judge.owner_of(7) is not None)
        nothing_new = encode_awareness(())
        ada.show(7, 0, "{}")
        ada.show(7, 1, "{}")
        await ada.until(lambda: ada.received.count(nothing_new) == 2)
        assert (ada.shown, ada.closed) == ({}, None)


async def test_a_refusal_names_the_client_ids_that_it_was_for(hub: Hub) -> None:
    async with ada_and_bob() as (document, ada, bob):
        ada.type("ada")
        await bob.until(lambda: bob.text == "ada")
        bob.send(encode_update(forged(bob, client_id=ada.doc.client_id, text="not ada: ")))
        await bob.until(lambda: bob.denied == 1)
        await hub.refusals.flushed()
    assert (await Refusal.objects.aget(document=document)).clients == [ada.doc.client_id]


async def test_what_a_reader_deletes_is_refused_and_kept(hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        ada.type("x" * 600)
        await eve.until(lambda: len(eve.text) == 600)
        deleted = deletion(eve.doc, eve.root)
        eve.send(encode_update(deleted))
        await eve.until(lambda: eve.denied == 1)
        await hub.refusals.flushed()
    assert await refused_of(document) == [(people["eve"].pk, "not_allowed", [deleted])]
