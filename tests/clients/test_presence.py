"""Who is here is seen in every process under their own name, and nobody stays who has gone, in whatever way."""

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

import pytest
from pycrdt import Doc, Text

from realtime.protocols.awareness import SHOWN_JSON_BYTES_MAX, AwarenessEntry, decode_awareness_update
from realtime.protocols.frames import encode_awareness, encode_update
from tests.clients.driver import Client, NodeClients
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room

ANN = {"user": {"name": "Ann"}, "cursor": {"anchor": 3}}


async def test_presence_is_seen_in_every_process_and_echoed_to_its_sender(open_stack: Stack, node: NodeClients) -> None:
    room = a_room("presence")
    ann = await open_stack.join(node, "ann", room, on=0)
    near = await open_stack.join(node, "near", room, on=0)
    far = await open_stack.join(node, "far", room, on=1)
    before = len(await ann.events())

    await ann.set_awareness(ANN)

    await near.wait_awareness(ann.client_id, state=ANN)
    await far.wait_awareness(ann.client_id, state=ANN)
    await ann.wait_event("echo", after=before)


async def test_who_comes_later_sees_those_who_are_here_on_either_process(open_stack: Stack, node: NodeClients) -> None:
    room = a_room("latecomer")
    ann = await open_stack.join(node, "ann", room, on=0)
    await ann.set_awareness(ANN)

    for name, on in (("near", 0), ("far", 1), ("later", 1)):
        late = await open_stack.join(node, name, room, on=on)
        await late.wait_awareness(ann.client_id, state=ANN)


async def test_presence_goes_with_a_clean_leave(open_stack: Stack, node: NodeClients) -> None:
    room = a_room("leave")
    ann, near, far = [
        await open_stack.join(node, name, room, on=on) for name, on in (("ann", 0), ("near", 0), ("far", 1))
    ]
    await ann.set_awareness(ANN)  # a client's first state has clock 0, which Yjs takes for nothing new
    for other in (near, far):
        await other.wait_awareness(ann.client_id)

    await ann.destroy()

    for other in (near, far):
        await other.wait_awareness(ann.client_id, present=False)


async def test_presence_goes_with_a_dropped_network_and_comes_back_with_it(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("drop")
    ann, near, far = [
        await open_stack.join(node, name, room, on=on) for name, on in (("ann", 0), ("near", 0), ("far", 1))
    ]
    await ann.set_awareness(ANN)
    for other in (near, far):
        await other.wait_awareness(ann.client_id, state=ANN)

    # In this order: both are waiting before the line is cut, and Ann is gone for a tenth of a second at least.
    await asyncio.gather(
        *(other.wait_awareness(ann.client_id, present=False) for other in (near, far)),
        ann.drop(),
    )

    for other in (near, far):
        await other.wait_awareness(ann.client_id, state=ANN)


async def test_presence_goes_when_the_worker_process_that_held_it_dies(mortal_stack: Stack, node: NodeClients) -> None:
    room = a_room("dead worker")
    far = await mortal_stack.join(node, "far", room, on=1)
    async with NodeClients() as doomed:
        ann = await mortal_stack.join(doomed, "ann", room, on=0)
        await ann.set_awareness(ANN)
        await far.wait_awareness(ann.client_id, state=ANN)
        with mortal_stack.paused(0):  # so that it cannot say that Ann has gone before it dies itself
            await doomed.kill()
            mortal_stack.workers.kill(0)

    await far.wait_awareness(ann.client_id, present=False)
    mortal_stack.revive_workers()


async def test_clients_of_a_dead_worker_are_present_and_writing_again_on_the_living_one(
    mortal_stack: Stack, node: NodeClients
) -> None:
    room = a_room("moved over")
    ann = await mortal_stack.join(node, "ann", room, on=0)
    far = await mortal_stack.join(node, "far", room, on=1)
    await ann.set_awareness(ANN)
    await far.wait_awareness(ann.client_id, state=ANN)
    before = len(await ann.events())

    mortal_stack.workers.kill(0)

    await ann.wait_event("sync", after=before, synced=True)
    await ann.type("still here")
    await far.watch("still here")
    await far.wait_awareness(ann.client_id, state=ANN)
    mortal_stack.revive_workers()


# Whose a cursor is


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    return await members_stack.database.run(a_cast, a_room("presence of members"))


async def member(stack: Stack, node: NodeClients, cast: Cast, name: str, *, on: int, **options: Any) -> Client:
    return await stack.join(node, name, cast.room, on=on, headers=cast.cookies[name], **options)


async def clock_of(client: Client) -> int:
    (entry,) = decode_awareness_update(await client.awareness_update())
    return entry.clock


def account(cast: Cast, name: str) -> Mapping[str, object]:
    return {"id": str(cast.user_ids[name]), "name": f"{name} of {cast.room}", "verified": True}


async def assert_nobody_was_closed(*clients: Client) -> None:
    for client in clients:
        assert "close" not in [event["kind"] for event in await client.events()], client.name


async def test_an_account_is_shown_under_its_own_name_and_keeps_its_colour(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    ed = await member(members_stack, node, cast, "ed", on=0)
    others = [await member(members_stack, node, cast, name, on=on) for name, on in (("olga", 0), ("vic", 1))]

    olga = {"name": f"olga of {cast.room}", "id": str(cast.user_ids["olga"]), "verified": False}
    await ed.set_awareness({"user": {**olga, "color": "#30bced", "colorLight": "#30bced33"}, "cursor": {"anchor": 3}})

    shown = {"user": {**account(cast, "ed"), "color": "#30bced", "colorLight": "#30bced33"}, "cursor": {"anchor": 3}}
    for other in others:
        await other.wait_awareness(ed.client_id, state=shown)


async def test_who_has_no_account_keeps_the_name_they_gave_and_has_no_id(open_stack: Stack, node: NodeClients) -> None:
    room = a_room("anonymous")
    ann = await open_stack.join(node, "ann", room, on=0)
    near, far = [await open_stack.join(node, name, room, on=on) for name, on in (("near", 0), ("far", 1))]

    await ann.set_awareness({"user": {"name": "Ann", "id": "1", "verified": True}})

    for other in (near, far):
        await other.wait_awareness(ann.client_id, state={"user": {"name": "Ann", "id": None, "verified": False}})


@pytest.mark.parametrize("on", [0, 1])
async def test_nobody_moves_silences_or_removes_the_cursor_of_another_person(
    members_stack: Stack, node: NodeClients, cast: Cast, on: int
) -> None:
    olga, vic = [await member(members_stack, node, cast, name, on=0) for name in ("olga", "vic")]
    ed = await member(members_stack, node, cast, "ed", on=on)
    await olga.set_awareness({"cursor": 1})
    for other in (vic, ed):
        await other.wait_awareness(olga.client_id, state={"cursor": 1})

    clock = await clock_of(olga)
    for forged in (
        AwarenessEntry(olga.client_id, clock + 1, '{"cursor":66}'),
        AwarenessEntry(olga.client_id, (1 << 31) - 1, '{"cursor":66}'),
        AwarenessEntry(olga.client_id, clock + 2, None),
        AwarenessEntry(olga.client_id, clock, None),
    ):
        await ed.send_raw(encode_awareness([forged]))
    await ed.set_awareness({"cursor": "behind all of it"})
    for other in (olga, vic):
        await other.wait_awareness(ed.client_id, state={"cursor": "behind all of it"})
    for client in (olga, vic, ed):
        assert (await client.awareness())[olga.client_id]["cursor"] == 1, client.name

    await olga.set_awareness({"cursor": 2})
    for other in (vic, ed):
        await other.wait_awareness(olga.client_id, state={"cursor": 2, "user": account(cast, "olga")})
    await assert_nobody_was_closed(olga, vic, ed)


@pytest.mark.parametrize("on", [0, 1])
async def test_clocks_neither_close_nor_silence_somebody_without_an_account(
    open_stack: Stack, node: NodeClients, on: int
) -> None:
    """A Yjs client takes a higher clock over, and its next renewal is one above the highest that is shown."""
    room = a_room("clocks")
    ann, near = [await open_stack.join(node, name, room, on=0) for name in ("ann", "near")]
    eve = await open_stack.join(node, "eve", room, on=on)
    await ann.set_awareness({"cursor": 1})
    for other in (near, eve):
        await other.wait_awareness(ann.client_id, state={"cursor": 1})
    clock = await clock_of(ann)

    for step in range(1, 25):
        forged = AwarenessEntry(ann.client_id, min(step * 99_999_999, (1 << 31) - 1), '{"cursor":66}')
        await eve.send_raw(encode_awareness([forged]))
    await eve.set_awareness({"cursor": "behind all of it"})
    for other in (ann, near):
        await other.wait_awareness(eve.client_id, state={"cursor": "behind all of it"})
    assert await clock_of(ann) == clock

    await ann.send_raw(encode_awareness([AwarenessEntry(ann.client_id, 1 << 31, '{"cursor":66}')]))
    await ann.set_awareness({"cursor": 2})
    for other in (near, eve):
        await other.wait_awareness(ann.client_id, state={"cursor": 2})
    await assert_nobody_was_closed(ann, near, eve)


@pytest.mark.parametrize("on", [0, 1])
async def test_who_has_an_account_takes_no_client_id_that_somebody_without_one_is_here_with(
    open_stack: Stack, node: NodeClients, on: int
) -> None:
    room = a_room("taken")
    cast = await open_stack.database.run(a_cast, a_room("people of " + room))
    ann = await open_stack.join(node, "ann", room, on=0)
    ed = await open_stack.join(node, "ed", room, on=on, headers=cast.cookies["ed"])
    await ann.set_awareness(ANN)
    await ed.wait_awareness(ann.client_id, state=ANN)
    before = len(await ed.events())

    forged: Doc[Any] = Doc(client_id=ann.client_id)
    forged.get("t", type=Text).insert(0, "first!")
    await ed.send_raw(encode_update(forged.get_update()))
    await ed.wait_event("denied", after=before)
    await ann.type("mine")

    await ed.wait_seen("mine")
    await assert_nobody_was_closed(ann, ed)


@pytest.mark.parametrize("number", ["1e20", "100000000000000000000", "0.0000001", "0.00001", "1e21"])
async def test_relaying_whatever_somebody_was_allowed_to_show_closes_nobody(
    members_stack: Stack, node: NodeClients, cast: Cast, number: str
) -> None:
    olga, vic = [await member(members_stack, node, cast, name, on=on) for name, on in (("olga", 0), ("vic", 1))]
    ed = await member(members_stack, node, cast, "ed", on=0)
    for clock, count in enumerate((SHOWN_JSON_BYTES_MAX // (len(number) + 1), 500, 300, 100), start=1):
        state_json = '{"a":[' + ",".join([number] * count) + "]}"
        await ed.send_raw(encode_awareness([AwarenessEntry(7, clock, state_json)]))
    for other in (olga, vic):
        await other.wait_awareness(7, state={"a": [float(number)] * 100})

    await ed.set_awareness({"cursor": "afterwards"})
    for other in (olga, vic):
        await other.wait_awareness(ed.client_id, state={"cursor": "afterwards"})
        await other.set_awareness({"cursor": f"{other.name} is still here"})
        await ed.wait_awareness(other.client_id, state={"cursor": f"{other.name} is still here"})
    await assert_nobody_was_closed(olga, vic, ed)


@pytest.mark.parametrize("old", [0, 1])
async def test_who_reconnects_is_shown_at_once_though_the_old_socket_hangs_in_this_process_or_another(
    members_stack: Stack, node: NodeClients, cast: Cast, old: int
) -> None:
    near, far = [await member(members_stack, node, cast, name, on=on) for name, on in (("vic", 0), ("ed", 1))]
    async with NodeClients() as doomed:
        before = await member(members_stack, doomed, cast, "olga", on=old)
        await before.set_awareness({"cursor": "before"})
        for other in (near, far):
            await other.wait_awareness(before.client_id, state={"cursor": "before"})
        os.kill(doomed.pid, signal.SIGSTOP)

        again = await member(members_stack, node, cast, "olga", on=0, client_id=before.client_id)
        await again.set_awareness({"cursor": "again"})
        for other in (near, far):
            await other.wait_awareness(again.client_id, state={"cursor": "again"})
        await doomed.kill()

    await again.set_awareness({"cursor": "and still"})
    for other in (near, far):
        await other.wait_awareness(again.client_id, state={"cursor": "and still"})


async def test_who_comes_back_from_long_work_without_a_network_is_shown(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    olga, vic = [await member(members_stack, node, cast, name, on=on) for name, on in (("olga", 0), ("vic", 1))]
    await olga.set_awareness({"cursor": 0})
    await vic.wait_awareness(olga.client_id, state={"cursor": 0})
    await olga.disconnect()
    await vic.wait_awareness(olga.client_id, present=False)
    for place in range(1, 501):
        await olga.set_awareness({"cursor": place})

    await olga.connect()

    await vic.wait_awareness(olga.client_id, state={"cursor": 500})
