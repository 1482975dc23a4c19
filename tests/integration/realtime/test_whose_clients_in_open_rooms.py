"""Client ids of people without an account, in rooms that are open to all: each is a connection's until that ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from pytest_django import Settings

from documents.models import Document
from history.gate import NotTaken
from history.models import Via
from history.writes import write_session
from realtime.hub import Hub
from realtime.protocols.frames import encode_sync_step2, encode_update
from tests.builders import make_user
from tests.integration.realtime.rooms import empty, eventually, folded_text, rows_of, stored, update_that_types
from tests.integration.realtime.sockets import Socket
from tests.integration.realtime.test_whose_clients import forged, owners_of

pytestmark = [pytest.mark.django_db(transaction=True)]

HERS = 77


@pytest_asyncio.fixture
async def bob(settings: Settings) -> Any:
    """Somebody with an account, where rooms are open to all."""
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True, "HEAD_CHECK_SECONDS": 600.0}
    return await sync_to_async(make_user)("bob")


async def test_who_has_an_account_takes_no_client_id_that_somebody_without_one_is_here_with(bob: Any, hub: Hub) -> None:
    async with Socket("open") as ann, Socket("open", user=bob) as taker:
        await asyncio.gather(ann.until_synced(), taker.until_synced())
        ann.show(ann.doc.client_id, 1, "{}")
        await taker.until(lambda: ann.doc.client_id in taker.shown)
        taker.send(encode_update(forged(taker, client_id=ann.doc.client_id, text="first!")))
        await taker.until(lambda: taker.denied == 1)
        ann.type("mine")
        await taker.until(lambda: taker.text == "mine")
        assert ann.denied == 0
    document = await Document.objects.aget(name="open")
    assert await owners_of(document) == {ann.doc.client_id: ""}


@pytest.mark.parametrize("has_account", [True, False])
async def test_nobody_takes_the_next_clock_of_who_has_written_and_is_here_but_shown_no_more(
    has_account: bool, bob: Any, hub: Hub
) -> None:
    """As a page in the background, whose browser renews nothing."""
    async with (
        Socket("open") as ann,
        Socket("open", user=bob if has_account else None, address="198.51.100.1") as taker,
    ):
        await asyncio.gather(ann.until_synced(), taker.until_synced())
        ann.type("a")
        await taker.until(lambda: taker.text == "a")
        taker.show(ann.doc.client_id, 9, "{}")
        taker.send(encode_update(forged(taker, client_id=ann.doc.client_id, text="not ann: ")))
        await taker.until(lambda: taker.denied == 1)
        ann.show(ann.doc.client_id, 1, "{}")
        ann.type("nn", at=1)
        await taker.until(lambda: taker.text == "ann" and ann.doc.client_id in taker.shown)
        assert ann.denied == 0
        assert hub.rooms[(await Document.objects.aget(name="open")).pk].awareness.entries()[0].clock == 1


async def test_a_client_id_that_was_nobodys_passes_to_who_writes_under_it_next_and_no_further(
    bob: Any, hub: Hub
) -> None:
    async with Socket("open") as ann:
        await ann.until_synced()
        ann.type("a")
        document = await Document.objects.aget(name="open")
        await stored(hub, document, 1)
        assert await owners_of(document) == {ann.doc.client_id: ""}
    async with Socket("open", user=bob) as signed_in:  # in the same editor
        await signed_in.until(lambda: signed_in.text == "a")
        signed_in.send(encode_update(forged(signed_in, client_id=ann.doc.client_id, text="signed in ")))
        await stored(hub, document, 2)
        assert await owners_of(document) == {ann.doc.client_id: str(bob.pk)}
        async with Socket("open") as signed_out:
            await signed_out.until(lambda: signed_out.text == "signed in a")
            signed_out.send(encode_update(forged(signed_out, client_id=ann.doc.client_id, text="signed out ")))
            await signed_out.until(lambda: signed_out.denied == 1)
    assert await folded_text(document) == "signed in a"


async def test_who_reconnects_from_the_same_address_writes_on_though_the_old_socket_hangs(bob: Any, hub: Hub) -> None:
    async with Socket("open") as old, Socket("open") as new:
        await asyncio.gather(old.until_synced(), new.until_synced())
        old.show(old.doc.client_id, 1, "{}")
        old.type("a")
        await new.until(lambda: new.text == "a")
        new.send(encode_update(forged(new, client_id=old.doc.client_id, text="b")))
        await old.until(lambda: old.text == "ba")
        new.show(old.doc.client_id, 2, '{"cursor":1}')  # and is shown at once: the client writes here now
        await old.until(lambda: old.shown.get(old.doc.client_id) == '{"cursor":1,"user":{"id":null,"verified":false}}')
        assert new.denied == 0


async def test_who_reconnects_from_elsewhere_is_asked_for_what_was_refused_once_the_old_socket_is_known_to_be_dead(
    bob: Any, hub: Hub
) -> None:
    async with Socket("open", address="198.51.100.1") as new:
        async with Socket("open") as old:
            await asyncio.gather(old.until_synced(), new.until_synced())
            old.type("a")
            await new.until(lambda: new.text == "a")
            offline = forged(new, client_id=old.doc.client_id, text="b")
            new.doc.apply_update(offline)
            new.send(encode_sync_step2(offline))
            await new.until(lambda: new.denied == 1)
        document = await Document.objects.aget(name="open")
        await stored(hub, document, 2)  # the socket answers what it is asked, as a client does
        assert new.denied == 1
    assert await folded_text(document) == "ba"


async def test_who_is_shown_in_another_process_is_safe_from_accounts_here(
    bob: Any, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    async with Socket("open") as ann:
        await ann.until_synced()
        document = await Document.objects.aget(name="open")
        elsewhere = await another_process().open(document.pk, empty)
        ann.show(HERS, 1, "{}")
        await eventually(lambda: elsewhere.awareness.owner_of(HERS) is not None)
        update = update_that_types("first!", client_id=HERS)
        his, nobodys = [
            await sync_to_async(write_session)(document, actor=actor, via=Via.WEBSOCKET) for actor in (bob, None)
        ]
        his.requires_role = nobodys.requires_role = True
        with pytest.raises(NotTaken):
            await elsewhere.judge.take(his, update)
        assert await elsewhere.judge.take(nobodys, update)  # nothing tells whether that is Ann herself
    assert await rows_of(document) == []
