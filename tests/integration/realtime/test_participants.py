"""Who is in a JSON room is known to all processes, by leases that end by themselves."""

import asyncio
from collections.abc import Iterator
from secrets import token_hex

import pytest
from channels.layers import channel_layers, get_channel_layer
from pytest_django import Settings

from documents.conf import conf
from realtime.collab import participants
from realtime.collab.participants import Participant, Participants
from realtime.protocols.identities import NOBODY, Identity
from tests.integration.realtime.rooms import eventually

ADA, BOB = Identity("1", "ada"), Identity("2", "bob")


@pytest.fixture
def room() -> Iterator[str]:
    channel_layers.backends.clear()
    yield f"collab_{token_hex(8)}"


async def test_all_processes_see_the_same_people(room: str) -> None:
    here, there = Participants(room), Participants(room)
    assert await here.renew(Participant("a", ADA))
    assert await there.renew(Participant("b", BOB, "#ff0000"))
    assert await here.look()
    assert (await here.present()).told() == (await there.present()).told()
    assert (await here.present()).told() == [
        {"user_id": "1", "username": "ada", "color": "#3B82F6"},
        {"user_id": "2", "username": "bob", "color": "#ff0000"},
    ]
    assert await here.leave("a")
    assert await there.look()
    assert (await there.present()).count() == 1


async def test_nothing_has_changed_where_everybody_stays(room: str) -> None:
    here = Participants(room)
    await here.renew(Participant("a", ADA))
    assert not await here.renew(Participant("a", ADA))
    assert not await here.look()
    assert not await here.leave("somebody who was never here")
    assert await here.renew(Participant("a", ADA, "red"))


async def test_two_tabs_of_one_account_count_once_unless_asked_and_nobodys_count_each(room: str) -> None:
    here = Participants(room)
    for name, identity in (("a", ADA), ("b", ADA), ("c", NOBODY), ("d", NOBODY)):
        await here.renew(Participant(name, identity))
    present = await here.present()
    assert present.count() == 3
    assert len(present.told()) == 3
    assert present.count(by_tabs=True) == 4
    await here.leave("a")
    assert (await here.present()).count() == 3


async def test_who_is_not_renewed_is_gone_and_who_is_stays(room: str, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "PRESENCE_LEASE_SECONDS": 1}
    killed, lives = Participants(room), Participants(room)
    for name in range(100):
        await killed.renew(Participant(f"ghost {name}", NOBODY))
    await lives.renew(Participant("a", ADA))
    assert (await lives.present()).count() == 101
    async with asyncio.timeout(10):
        while (await lives.present()).count() > 1:
            await lives.renew(Participant("a", ADA))
            await asyncio.sleep(0.05)
    assert [each.identity for each in (await lives.present()).sockets] == [ADA]


async def test_while_valkey_is_away_a_process_knows_its_own(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Participants(room)
    await here.renew(Participant("a", ADA))
    await Participants(room).renew(Participant("b", BOB))

    def away(group: str) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(participants, "_connection", away)
        assert await here.look()
        assert [each.identity for each in (await here.present()).sockets] == [ADA]
        assert await here.renew(Participant("a", ADA))
    await eventually(lambda: here._away_until < asyncio.get_running_loop().time())
    assert await here.look()
    assert (await here.present()).count() == 2


async def test_without_valkey_a_process_knows_its_own(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participants, "get_channel_layer", lambda: None)
    here = Participants(room)
    await here.renew(Participant("a", ADA))
    assert (await here.present()).count() == 1
    await here.leave("a")
    assert (await here.present()).count() == 0


async def test_what_a_room_leaves_in_valkey_ends_by_itself(room: str) -> None:
    here = Participants(room)
    await here.renew(Participant("a", ADA))
    layer = get_channel_layer()
    for key in here._keys():
        assert 0 < await layer.connection(0).pttl(key) <= 4 * conf().presence_lease_seconds * 1000
