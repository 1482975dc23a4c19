"""Edits from the server's own code: in the log once, at every open editor once, whichever process it has open."""

import base64

from pycrdt import Doc, Text

from history.models import Via
from tests.clients.driver import Client, NodeClients
from tests.clients.stack import Stack, a_room, assert_log_holds

PUSH = """
from asgiref.sync import async_to_sync
from realtime.push import send_doc_update
stored = async_to_sync(send_doc_update)({room!r}, {update!r}, request_key={key!r})
print("stored at", stored.seq, "repeated" if stored.repeated else "new")
"""
TASK = """
from realtime.tasks import push_document_update
task = push_document_update.apply(args=[{room!r}, {update!r}], kwargs={{"request_key": {key!r}}})
print("task stored at", task.get())
"""


def update_with(words: str) -> bytes:
    doc: Doc[Text] = Doc()
    doc.get("t", type=Text).insert(0, words)
    return doc.get_update()


async def both_sides(stack: Stack, node: NodeClients, room: str) -> list[Client]:
    return [await stack.join(node, name, room, on=on) for name, on in (("ann", 0), ("ben", 1), ("cem", 1))]


async def messages_after_one_more_edit(clients: list[Client], writer: Client) -> list[int]:
    """Update messages that each has received; the writer's last edit comes after all that was sent before it."""
    await writer.edit({"root": "t", "do": "append", "text": "."})
    for client in clients:
        await client.watch(".")
    return [await client.update_messages() for client in clients]


async def test_an_update_sent_from_a_django_process_reaches_every_open_editor_exactly_once(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("pushed/from outside")
    clients = await both_sides(open_stack, node, room)
    writer = await open_stack.join(node, "writer", room, on=0)

    code = PUSH.format(room=room, update=update_with("from the server"), key=None)
    assert "stored at 1 new" in open_stack.manage("shell", "-c", code)

    for client in clients:
        await client.watch("from the server")
    assert await messages_after_one_more_edit(clients, writer) == [2, 2, 2]
    assert [row.via for row in open_stack.database.rows(room)] == [Via.API, Via.WEBSOCKET]
    await assert_log_holds(open_stack, node, room, *clients, writer)


async def test_the_same_request_sent_twice_is_stored_and_shown_once(open_stack: Stack, node: NodeClients) -> None:
    room = a_room("pushed twice")
    clients = await both_sides(open_stack, node, room)
    writer = await open_stack.join(node, "writer", room, on=0)
    first, second = (base64.b64encode(update_with(words)).decode() for words in ("once only", "made anew"))

    # Run again by Celery, and sent again by somebody who made the update anew.
    tasks = [TASK.format(room=room, update=update, key="order 66") for update in (first, first, second)]
    wrote = open_stack.manage("shell", "-c", "".join(tasks))

    assert wrote.count("task stored at 1") == 3, wrote
    for client in clients:
        await client.watch("once only")
    assert await messages_after_one_more_edit(clients, writer) == [2, 2, 2]
    assert [row.via for row in open_stack.database.rows(room)] == [Via.TASK, Via.WEBSOCKET]
    assert await clients[0].seen() == "once only."
    await assert_log_holds(open_stack, node, room, *clients, writer)
