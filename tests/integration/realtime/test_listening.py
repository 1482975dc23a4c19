"""One process's ears in groups of the channel layer."""

import asyncio
from typing import Any

import pytest
from channels.layers import get_channel_layer
from pytest_django import Settings

from realtime.hub import Hub
from tests.integration.realtime.rooms import eventually

GROUP = "chat_minutes"


async def say(word: str) -> None:
    await get_channel_layer().group_send(GROUP, {"type": "chat.message", "word": word})


class Heard(list[str]):
    """The words that one socket has heard."""

    def hear(self, message: dict[str, Any]) -> None:
        self.append(message["word"])


async def test_all_sockets_of_a_group_hear_what_is_said_by_one_channel_of_the_process(hub: Hub) -> None:
    ada, bob = Heard(), Heard()
    await hub.groups.join(GROUP, ada.hear)
    await hub.groups.join(GROUP, bob.hear)
    await say("first")
    await eventually(lambda: ada == bob == ["first"])
    await hub.groups.leave(GROUP, ada.hear)
    await say("second")
    await eventually(lambda: bob == ["first", "second"])
    assert ada == ["first"]


async def test_who_has_left_a_group_hears_nothing_and_keeps_no_channel(hub: Hub) -> None:
    ada, bob = Heard(), Heard()
    await hub.groups.join(GROUP, ada.hear)
    await hub.groups.leave(GROUP, ada.hear)
    await hub.groups.leave(GROUP, ada.hear)
    assert len(hub.groups) == 0
    await say("nobody hears this")
    await hub.groups.join(GROUP, bob.hear)
    await say("this is heard")
    await eventually(lambda: bob == ["this is heard"])


async def test_a_listener_that_fails_keeps_nobody_else_from_hearing(hub: Hub) -> None:
    def fail(message: dict[str, Any]) -> None:
        raise ValueError("a fault of the host's")

    ada = Heard()
    await hub.groups.join(GROUP, fail)
    await hub.groups.join(GROUP, ada.hear)
    await say("first")
    await say("second")
    await eventually(lambda: ada == ["first", "second"])


async def test_a_layer_that_has_lost_its_groups_is_joined_again(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HEAD_CHECK_SECONDS": 0.1, "LAYER_TIMEOUT_SECONDS": 0.2}
    ada = Heard()
    await hub.groups.join(GROUP, ada.hear)
    await get_channel_layer().flush()  # as a Valkey that was started anew
    said = 0
    async with asyncio.timeout(20):
        while not ada:
            said += 1
            await say(str(said))
            await asyncio.sleep(0.1)
    assert said > 1


async def test_a_layer_that_is_away_is_joined_when_it_comes_back(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LAYER_TIMEOUT_SECONDS": 0.1}

    async def refuse(group: str, channel: str) -> None:
        raise ConnectionError("Valkey is away")

    ada = Heard()
    with monkeypatch.context() as patch:
        patch.setattr(get_channel_layer(), "group_add", refuse)
        await hub.groups.join(GROUP, ada.hear)
        await say("nobody hears this")
    await eventually(lambda: hub.groups._ears[GROUP].is_joined.is_set())
    await say("this is heard")
    await eventually(lambda: ada == ["this is heard"])
