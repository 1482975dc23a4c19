"""Who is here: asked for, and answered; and what a message on the channel layer cannot make of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pytest_django import Settings

from documents.models import Document, Role
from realtime.bus import _parts, signed, silence_seconds
from realtime.groups import document_group
from realtime.hub import Hub
from realtime.protocols.awareness import (
    AWARENESS_CLOCK_MAX,
    SHOWN_JSON_BYTES_MAX,
    AwarenessEntry,
    Claim,
    encode_claims,
)
from realtime.protocols.frames import encode_awareness
from realtime.rooms import Room
from tests.integration.realtime.rooms import empty, eventually, shared_document
from tests.integration.realtime.sockets import Socket, ada_and_bob

pytestmark = [pytest.mark.django_db(transaction=True)]

QUERY_AWARENESS = b"\x03"
NOTHING_NEW = encode_awareness(())
HERS, HIS = 1, 2


@asynccontextmanager
async def ada_shown_to_bob() -> AsyncIterator[tuple[Document, Socket, Socket]]:
    """Ada is shown with a cursor at clock 5; Bob sees her."""
    async with ada_and_bob() as (document, ada, bob):
        ada.show(HERS, 5, '{"cursor":1}')
        await bob.until(lambda: cursor_of(bob, HERS) == 1)
        yield document, ada, bob


def cursor_of(socket: Socket, client_id: int) -> object:
    return (socket.state_of(client_id) or {}).get("cursor")


def users_in(room: Room) -> dict[int, str]:
    return {claim.entry.client_id: claim.user for claim in room.awareness.claims(of=lambda owner: True)}


def name_of(socket: Socket, client_id: int) -> object:
    return (socket.state_of(client_id) or {}).get("user", {}).get("name")


async def test_a_client_that_asks_who_is_here_is_told_of_everyone(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.VIEWER)
    everyone = {client_id: people[name].username for client_id, name in ((1, "ada"), (2, "bob"))}

    def sees_everyone() -> bool:
        return {client_id: name_of(eve, client_id) for client_id in eve.shown} == everyone

    async with (
        Socket(document.name, user=people["ada"]) as ada,
        Socket(document.name, user=people["bob"]) as bob,
        Socket(document.name, user=people["eve"]) as eve,
    ):
        await asyncio.gather(ada.until_synced(), bob.until_synced(), eve.until_synced())
        ada.show(1, 0, "{}")
        bob.show(2, 0, "{}")
        await eve.until(sees_everyone)
        eve.shown.clear()
        eve.send(QUERY_AWARENESS)
        await eve.until(sees_everyone)


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(AwarenessEntry(HERS, 6, '{"cursor":66}'), id="moved"),
        pytest.param(AwarenessEntry(HERS, AWARENESS_CLOCK_MAX, '{"cursor":66}'), id="silenced"),
        pytest.param(AwarenessEntry(HERS, 6, None), id="removed"),
        pytest.param(AwarenessEntry(HERS, 5, None), id="removed as by a client that wakes"),
    ],
)
async def test_bob_cannot_speak_for_ada_and_is_not_closed_for_trying(
    no_watch: None, hub: Hub, forged: AwarenessEntry
) -> None:
    async with ada_shown_to_bob() as (_, ada, bob):
        bob.send(encode_awareness([forged, AwarenessEntry(HIS, 1, "{}")]))
        await ada.until(lambda: HIS in ada.shown)
        assert (cursor_of(ada, HERS), cursor_of(bob, HERS)) == (1, 1)
        ada.show(HERS, 6, '{"cursor":2}')
        await bob.until(lambda: cursor_of(bob, HERS) == 2)
        assert (ada.closed, bob.closed) == (None, None)


async def test_a_state_that_is_too_large_to_be_shown_closes_nobody(no_watch: None, hub: Hub) -> None:
    async with ada_shown_to_bob() as (_, ada, bob):
        bob.show(HIS, 1, f'{{"a":"{"x" * SHOWN_JSON_BYTES_MAX}"}}')
        bob.show(HIS, 2, '{"cursor":7}')
        await ada.until(lambda: cursor_of(ada, HIS) == 7)
        assert bob.closed is None


async def test_a_clock_too_far_ahead_is_passed_over(no_watch: None, hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "AWARENESS_CLOCK_AHEAD_MAX": 100_000}
    async with ada_shown_to_bob() as (_, ada, bob):
        bob.show(HIS, 1_000_000, '{"cursor":1000000}')
        bob.show(HIS, 100_000, '{"cursor":100000}')
        await ada.until(lambda: HIS in ada.shown)
        assert cursor_of(ada, HIS) == 100_000


async def test_a_clock_beyond_31_bits_closes_nobody_and_is_answered(no_watch: None, hub: Hub) -> None:
    """A client that takes a forged clock over goes on from it, and takes a silent line for dead."""
    async with ada_shown_to_bob() as (_, ada, bob):
        bob.show(HIS, AWARENESS_CLOCK_MAX + 1, '{"cursor":66}')
        await bob.until(lambda: NOTHING_NEW in bob.received)
        bob.show(HIS, 1, '{"cursor":1}')
        await ada.until(lambda: cursor_of(ada, HIS) == 1)
        assert (bob.closed, bob.received.count(NOTHING_NEW), ada.received.count(NOTHING_NEW)) == (None, 1, 0)


async def test_nobody_moves_silences_or_closes_somebody_without_an_account_who_is_here(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub], settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    async with Socket("open") as ann, Socket("open") as eve:
        await asyncio.gather(ann.until_synced(), eve.until_synced())
        document = await Document.objects.aget(name="open")
        elsewhere = await another_process().open(document.pk, empty)
        ann.show(HERS, 1, '{"cursor":1}')
        await eve.until(lambda: cursor_of(eve, HERS) == 1)
        await eventually(lambda: len(elsewhere.awareness) == 1)
        forged = AwarenessEntry(HERS, 99_999_999, '{"cursor":66}')
        eve.send(encode_awareness([forged]))
        await eve.until(lambda: NOTHING_NEW in eve.received)
        elsewhere.hear_from("eve's process", [Claim("", forged)])
        for room in (elsewhere, hub.rooms[document.pk]):
            assert [entry.clock for entry in room.awareness.entries()] == [1]
        ann.show(HERS, 2, '{"cursor":2}')
        await eve.until(lambda: cursor_of(eve, HERS) == 2)
        await ann.__aexit__(None, None, None)
        await eve.until(lambda: cursor_of(eve, HERS) is None)
        async with Socket("open") as again:
            await again.until_synced()
            again.show(HERS, 4, '{"cursor":4}')
            await eve.until(lambda: cursor_of(eve, HERS) == 4)
        assert (ann.closed, eve.closed) == (None, None)


async def test_a_person_who_came_to_another_process_is_shown_though_the_old_socket_hangs_here(
    no_watch: None, hub: Hub
) -> None:
    async with ada_shown_to_bob() as (document, ada, bob):
        moved = [Claim(str(ada.user.pk), AwarenessEntry(HERS, 6, '{"cursor":2}'))]
        hub.rooms[document.pk].hear_from("another process", moved)
        await bob.until(lambda: cursor_of(bob, HERS) == 2)
        await ada.__aexit__(None, None, None)
        bob.show(HIS, 1, "{}")
        await bob.until(lambda: HIS in bob.shown)
        assert cursor_of(bob, HERS) == 2


async def test_an_answer_too_large_for_one_message_arrives_in_parts(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub], settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "HINT_BYTES_MAX": 1}
    async with ada_shown_to_bob() as (document, ada, bob):
        bob.show(HIS, 1, "{}")
        await bob.until(lambda: HIS in bob.shown)
        room = await another_process().open(document.pk, empty)
        await eventually(lambda: len(room.awareness) == 2)
        assert users_in(room) == {HERS: str(ada.user.pk), HIS: str(bob.user.pk)}


async def test_other_processes_are_told_whose_each_client_is(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    room = await another_process().open(document.pk, empty)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.show(HERS, 1, "{}")
        await eventually(lambda: users_in(room) == {HERS: str(people["ada"].pk)})
    await eventually(lambda: users_in(room) == {})


@pytest.mark.parametrize(("bytes_max", "lengths"), [(0, [1, 1, 1]), (40, [2, 1]), (1000, [3])])
def test_what_processes_tell_each_other_is_cut_into_messages_of_a_bounded_size(
    settings: Settings, bytes_max: int, lengths: list[int]
) -> None:
    settings.PALIMPSEST = {"HINT_BYTES_MAX": bytes_max}
    claims = [Claim("7", AwarenessEntry(client_id, 1, '{"a":"0123"}')) for client_id in (1, 2, 3)]
    parts = list(_parts(claims))
    assert [claim for part in parts for claim in part] == claims
    assert [len(part) for part in parts] == lengths
    assert list(_parts([])) == []


async def test_who_is_here_is_taken_from_our_own_processes_alone(
    no_watch: None, hub: Hub, another_process: Callable[[], Hub]
) -> None:
    async with ada_shown_to_bob() as (document, ada, bob):
        await another_process().open(document.pk, empty)

        def says(cursor: int, clock: int) -> dict[str, Any]:
            entry = AwarenessEntry(HERS, clock, f'{{"cursor":{cursor}}}')
            claims = encode_claims([Claim(str(ada.user.pk), entry)])
            return {"type": "awareness", "document": document.pk, "process": "forged", "claims": claims}

        layer: Any = hub.bus._layer
        genuine = signed(says(2, 7))
        for forged in (
            says(66, 6),
            {**says(66, 6), "signature": b"0" * 32},
            {**says(66, 6), "signature": genuine["signature"]},
            {**genuine, "process": "another", "claims": says(66, 6)["claims"]},
            genuine,
        ):
            await layer.group_send(document_group(document.pk), forged)
        await bob.until(lambda: cursor_of(bob, HERS) != 1)
        assert cursor_of(bob, HERS) == 2


@pytest.mark.parametrize("kind", ["alive", "awareness", "presence_query", "rights"])
async def test_a_message_that_is_not_signed_is_none_of_ours(no_watch: None, hub: Hub, kind: str) -> None:
    message = {"type": kind, "document": 1, "process": "other", "claims": encode_claims([])}
    hub.bus._hear(signed(message))
    for forged in (message, signed(message) | {"process": "another"}):
        with pytest.raises(ValueError, match="not signed"):
            hub.bus._hear(forged)


@pytest.mark.parametrize("limit", ["AWARENESS_STATES_MAX", "AWARENESS_STATES_PER_SOCKET_MAX"])
async def test_no_more_is_shown_than_the_setting(no_watch: None, hub: Hub, settings: Settings, limit: str) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, limit: 1}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.show(HERS, 1, "{}")
        ada.show(HIS, 1, "{}")
        ada.show(HERS, 2, '{"cursor":2}')
        await ada.until(lambda: cursor_of(ada, HERS) == 2)
        assert HIS not in ada.shown


async def test_a_state_that_is_not_renewed_goes_after_the_settings_seconds(hub: Hub, settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "AWARENESS_TIMEOUT_SECONDS": 0, "HEAD_CHECK_SECONDS": 0.1}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.show(HERS, 1, "{}")
        await ada.until(lambda: HERS in ada.shown and ada.shown[HERS] is None)


async def test_who_was_in_a_process_that_is_heard_no_more_is_gone(no_watch: None, hub: Hub) -> None:
    async with ada_shown_to_bob() as (document, _, bob):
        hub.bus._is_joined = True
        hub.bus._heard = {"dead": hub.now() - 2 * silence_seconds(), hub.bus._process: hub.now()}
        hub.rooms[document.pk].hear_from("dead", [Claim("7", AwarenessEntry(7, 1, "{}"))])
        await bob.until(lambda: bob.state_of(7) is not None)
        await hub.bus.check()
        await bob.until(lambda: bob.shown[7] is None)
        assert cursor_of(bob, HERS) == 1
