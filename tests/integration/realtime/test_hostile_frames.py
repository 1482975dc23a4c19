"""Every class of input that is known to hurt ends in one closed socket: same document, same log, living process."""

import pytest

from documents.models import Document, Role
from history.crdt.updates import decode_update
from realtime.hub import Hub
from realtime.protocols.frames import encode_update
from tests.fuzz.hostile import HOSTILE_FRAMES, HOSTILE_UPDATES_AFTER, sync
from tests.integration.realtime.rooms import rows_of, shared_document, stored
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]

REFUSING_CODES = {1003, 1008, 1009}


async def closes_one_socket_alone(hub: Hub, document: Document, ada: Socket, eve: Socket, hostile: bytes) -> None:
    before = await rows_of(document), hub.rooms[document.pk].doc.get_update()
    eve.send(hostile)
    await eve.until(lambda: eve.closed is not None)
    assert eve.closed in REFUSING_CODES
    assert (await rows_of(document), hub.rooms[document.pk].doc.get_update()) == before
    ada.type("still here ")
    await stored(hub, document, len(before[0]) + 1)
    assert ada.closed is None


@pytest.mark.parametrize("hostile", HOSTILE_FRAMES.values(), ids=HOSTILE_FRAMES.keys())
async def test_a_hostile_frame_closes_its_socket_and_changes_nothing(no_watch: None, hub: Hub, hostile: bytes) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await ada.until_synced()
        await eve.until_synced()
        ada.type("honest")
        await eve.until(lambda: eve.text == "honest")
        await closes_one_socket_alone(hub, document, ada, eve, hostile)


@pytest.mark.parametrize(("honest", "hostile"), HOSTILE_UPDATES_AFTER.values(), ids=HOSTILE_UPDATES_AFTER.keys())
async def test_a_hostile_update_that_builds_on_content_closes_its_socket_and_changes_nothing(
    no_watch: None, hub: Hub, honest: bytes, hostile: bytes
) -> None:
    document, people = await shared_document(ada=Role.OWNER, eve=Role.EDITOR)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await ada.until_synced()
        await eve.until_synced()
        assert decode_update(honest).structs[0].client == 1
        ada.send(encode_update(honest))
        await eve.until(lambda: 1 in (struct.client for struct in decode_update(eve.doc.get_update()).structs))
        await closes_one_socket_alone(hub, document, ada, eve, sync(hostile))
