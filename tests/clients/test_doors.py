"""The door of `/ws/<room>` in a deployment: who gets in, what a reader may do, and what a bad frame costs."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from documents.conf import Conf
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import encode_awareness, encode_update
from tests.clients.driver import Client, NodeClients
from tests.clients.people import Cast, a_cast
from tests.clients.stack import HTTP_SECONDS, Stack, a_room, assert_log_holds

MALFORMED = {
    "no message": b"",
    "an unknown message type": b"\x09\x00",
    "an update cut short": b"\x00\x02\x05\x01",
    "an update of rubbish": encode_update(b"\xff\xff\xff\xff\x0f"),
    "awareness cut short": b"\x01\x08\x01",
    "a good message, then a bad one": encode_awareness([AwarenessEntry(1, 1, "{}")]) + b"\x00\x02\x05\x01",
}


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    return await members_stack.database.run(a_cast, a_room("members only"))


@pytest.fixture
async def ed(members_stack: Stack, node: NodeClients, cast: Cast) -> Client:
    return await members_stack.join(node, "ed", cast.room, on=0, headers=cast.cookies["ed"])


@pytest.fixture
async def olga(members_stack: Stack, node: NodeClients, cast: Cast) -> Client:
    return await members_stack.join(node, "olga", cast.room, on=1, headers=cast.cookies["olga"])


async def refused(stack: Stack, node: NodeClients, room: str, **options: Any) -> int:
    """The close code that a stock client takes as final."""
    client = await stack.join(node, f"refused at {room} {options}", room, synced=False, **options)
    return int((await client.wait_event("closed"))["code"])


async def test_a_viewers_edit_is_not_taken_and_is_denied_and_the_socket_stays(
    members_stack: Stack, node: NodeClients, cast: Cast, ed: Client
) -> None:
    await ed.type("words")
    vic = await members_stack.join(node, "vic", cast.room, on=1, headers=cast.cookies["vic"])
    await vic.watch("words")

    await vic.type("!")
    assert "may not write" in (await vic.wait_event("denied"))["reason"]

    await ed.type(" more")
    await vic.watch(" more")
    assert "close" not in [event["kind"] for event in await vic.events()]
    assert await ed.seen() == "words more"
    assert vic.client_id not in members_stack.database.clocks(cast.room)


async def test_a_viewer_is_seen_to_be_here(members_stack: Stack, node: NodeClients, cast: Cast, ed: Client) -> None:
    vic = await members_stack.join(node, "vic", cast.room, on=1, headers=cast.cookies["vic"])
    await vic.set_awareness({"user": {"name": "Vic"}})
    await ed.wait_awareness(vic.client_id)


async def test_a_stranger_and_a_room_that_does_not_exist_get_the_same_4404(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    stranger = cast.cookies["stranger"]
    assert await refused(members_stack, node, cast.room, headers=stranger) == 4404
    assert await refused(members_stack, node, a_room("nowhere"), headers=stranger) == 4404


async def test_who_is_not_signed_in_gets_4401(members_stack: Stack, node: NodeClients, cast: Cast) -> None:
    assert await refused(members_stack, node, cast.room) == 4401
    assert await refused(members_stack, node, a_room("nowhere")) == 4401
    assert await refused(members_stack, node, cast.room, params={"ticket": "made up"}) == 4401


async def test_a_page_of_another_origin_may_not_use_the_session(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    headers = {**cast.cookies["ed"], "Origin": "https://elsewhere.example"}
    assert await refused(members_stack, node, cast.room, headers=headers) == 4403


async def test_a_ticket_opens_its_own_room_and_no_other_and_serves_again_after_a_drop(
    members_stack: Stack, node: NodeClients, cast: Cast, olga: Client
) -> None:
    ticket = await members_stack.database.run(ticket_by_post, members_stack, cast)
    by_ticket = await members_stack.join(node, "by ticket", cast.room, on=0, params={"ticket": ticket})
    await by_ticket.type("let in")
    await olga.watch("let in")
    before = len(await by_ticket.events())
    await by_ticket.drop()
    await by_ticket.wait_event("sync", after=before, synced=True)

    other = await members_stack.database.run(a_cast, a_room("another"))
    assert await refused(members_stack, node, other.room, params={"ticket": ticket}) == 4401
    assert {row.user_id for row in members_stack.database.rows(cast.room)} == {cast.user_ids["ed"]}


def ticket_by_post(stack: Stack, cast: Cast) -> str:
    """Ed's ticket, as a front end gets it: by the API, under his session and its CSRF token."""
    token = "a" * 32
    headers = {
        "Content-Type": "application/json",
        "Cookie": f"{cast.cookies['ed']['Cookie']}; {settings.CSRF_COOKIE_NAME}={token}",
        "X-CSRFToken": token,
    }
    body = json.dumps({"document": str(cast.document.key)}).encode()
    request = urllib.request.Request(f"{stack.http_url}/api/v1/tickets", data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as response:
        return str(json.load(response)["ticket"])


async def test_two_messages_in_one_frame_are_both_taken(
    members_stack: Stack, node: NodeClients, cast: Cast, ed: Client, olga: Client
) -> None:
    updates = []
    for words in ("first", "second"):
        author = await node.open(words, url=members_stack.url, room=cast.room, connect=False)
        await author.type(words)
        updates.append(encode_update(await author.update()))

    await ed.send_raw(b"".join(updates))

    await ed.drop()  # the stock client does not hold what it never made: it gets it with the next handshake
    for client in (ed, olga):
        await client.watch("first")
        await client.watch("second")
    await assert_log_holds(members_stack, node, cast.room, ed, olga)


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_frame_closes_its_socket_alone_and_changes_nothing(
    members_stack: Stack, node: NodeClients, cast: Cast, ed: Client, olga: Client, frame: bytes
) -> None:
    await bad_frame_costs(1008, ed, olga, lambda: ed.send_raw(frame))
    await assert_log_holds(members_stack, node, cast.room, ed, olga)
    assert set(members_stack.database.clocks(cast.room)) == {ed.client_id}


async def test_a_text_frame_closes_its_socket_alone(
    members_stack: Stack, node: NodeClients, cast: Cast, ed: Client, olga: Client
) -> None:
    await bad_frame_costs(1003, ed, olga, lambda: ed.send_text("hello"))
    await assert_log_holds(members_stack, node, cast.room, ed, olga)


async def test_a_frame_larger_than_the_limit_closes_its_socket_alone(
    members_stack: Stack, node: NodeClients, cast: Cast, ed: Client, olga: Client
) -> None:
    await bad_frame_costs(1009, ed, olga, lambda: ed.send_raw(bytes(Conf().frame_bytes_max + 1)))
    await assert_log_holds(members_stack, node, cast.room, ed, olga)


async def bad_frame_costs(code: int, sender: Client, other: Client, send: Callable[[], Any]) -> None:
    """The sender's socket is closed with `code`; both go on writing, the sender on a new connection."""
    await sender.type("before ")
    await other.watch("before ")
    before = len(await sender.events())

    await send()

    assert (await sender.wait_event("close", after=before))["code"] == code
    await sender.wait_event("sync", after=before, synced=True)
    await sender.type("after")
    await other.watch("before after")
    assert "close" not in [event["kind"] for event in await other.events()]
