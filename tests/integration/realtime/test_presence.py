"""Who is here: asked for, and answered."""

import asyncio

import pytest

from documents.models import Role
from realtime.hub import Hub
from tests.integration.realtime.rooms import shared_document
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]

QUERY_AWARENESS = b"\x03"


async def test_a_client_that_asks_who_is_here_is_told_of_everyone(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.VIEWER)
    async with (
        Socket(document.name, user=people["ada"]) as ada,
        Socket(document.name, user=people["bob"]) as bob,
        Socket(document.name, user=people["eve"]) as eve,
    ):
        await asyncio.gather(ada.until_synced(), bob.until_synced(), eve.until_synced())
        ada.show(1, 0, '{"name":"ada"}')
        bob.show(2, 0, '{"name":"bob"}')
        everyone = {1: '{"name":"ada"}', 2: '{"name":"bob"}'}
        await eve.until(lambda: eve.shown == everyone)
        eve.shown.clear()
        eve.send(QUERY_AWARENESS)
        await eve.until(lambda: eve.shown == everyone)
