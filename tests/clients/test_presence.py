"""Who is here is seen in every process, and nobody stays who has gone, in whatever way."""

import asyncio

from tests.clients.driver import NodeClients
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
