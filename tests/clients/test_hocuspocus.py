"""The stock providers of Hocuspocus, three majors of them, at `/collaboration` in two processes."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone
from pycrdt import Text

from documents.models import Document, Membership, Role
from documents.opening import delete_document
from documents.tickets import issue_ticket
from history.models import Refusal
from tests.clients.driver import Client, NodeClients
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room, assert_log_holds, until
from tests.clients.test_commit_first import an_append_waits, commit_stuck

MAJORS = (2, 3, 4)
majors = pytest.mark.parametrize("major", MAJORS)


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    return await members_stack.database.run(a_cast, a_room("members only"))


async def stored_text(stack: Stack, room: str) -> str:
    """What the log folds to, of the root `t`."""
    return str((await stack.database.folded(room)).get("t", type=Text))


async def append(client: Client, text: str) -> None:
    """In one update: nobody else's letters come in between."""
    await client.edit({"root": "t", "do": "append", "text": text})


async def kinds(client: Client) -> list[str]:
    return [event["kind"] for event in await client.events()]


async def test_three_majors_and_y_websocket_write_one_document_side_by_side(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("Grüße/side by side")
    clients = [
        await open_stack.join_hocuspocus(node, major, f"provider {major} on {on}", room, on=on)
        for on in open_stack.all
        for major in MAJORS
    ]
    clients.append(await open_stack.join(node, "y-websocket", room, on=0))
    for client in clients:
        await client.set_awareness({"user": {"name": client.name}})
    for turn in range(3):
        for client in clients:
            await client.edit({"root": "t", "do": "insert", "index": 0, "text": f"{client.name}, {turn}. "})
            await client.random(seed=turn, count=5)
    await assert_log_holds(open_stack, node, room, *clients)
    for client in clients:
        for other in clients:
            await client.wait_awareness(other.client_id, state={"user": {"name": other.name}})
        await client.wait_event("echo")
    for client in clients[:-1]:
        await client.wait_unsynced(0)


# What is saved


@majors
async def test_changes_are_unsynced_until_their_commit_is_through(
    open_stack: Stack, node: NodeClients, major: int
) -> None:
    room = a_room("held")
    ann = await open_stack.join_hocuspocus(node, major, "ann", room)
    await ann.wait_unsynced(0)  # the handshake's own
    await ann.type("before ")
    await ann.wait_unsynced(0)

    with commit_stuck(open_stack.database, room):
        await ann.type("not yet")
        await until("the append waits", lambda: an_append_waits(open_stack.database))
        await still_unsynced(ann, len("not yet"))

    await ann.wait_unsynced(0)
    assert "before not yet" in await stored_text(open_stack, room)
    await settled_at_nothing(ann)


@majors
async def test_what_was_written_offline_is_unsynced_until_its_commit_is_through(
    open_stack: Stack, node: NodeClients, major: int
) -> None:
    """A provider begins to count anew at its SyncStep1, and sends uncounted what it could not offline."""
    room = a_room("offline")
    ann = await open_stack.join_hocuspocus(node, major, "ann", room, on=0)
    bob = await open_stack.join_hocuspocus(node, major, "bob", room, on=1)
    await ann.type("here from the start")
    await ann.wait_unsynced(0)
    await bob.watch("from the start")

    await ann.disconnect()
    await ann.wait_event("status", status="disconnected")
    for delete in range(3):
        await ann.edit(
            {"root": "t", "do": "delete", "index": delete, "length": 1}
        )  # which a state vector says nothing of
    await ann.type(" offline")
    before = len(await ann.events())
    with commit_stuck(open_stack.database, room):
        await ann.connect()
        await ann.wait_event("authenticated", after=before)
        await until("the append waits", lambda: an_append_waits(open_stack.database))
        await still_unsynced(ann, 1)
        await ann.type("!")
        await still_unsynced(ann, 2)

    await ann.wait_unsynced(0)
    await bob.watch(" offline!")
    await settled_at_nothing(ann)
    await assert_log_holds(open_stack, node, room, ann, bob)


@majors
async def test_a_forced_sync_begins_to_count_anew_and_nothing_is_saved_before_its_commit(
    open_stack: Stack, node: NodeClients, major: int
) -> None:
    room = a_room("forced")
    ann = await open_stack.join_hocuspocus(node, major, "ann", room)
    await ann.wait_unsynced(0)
    with commit_stuck(open_stack.database, room):
        await ann.type("abc")
        await until("the append waits", lambda: an_append_waits(open_stack.database))
        await ann.force_sync()
        await still_unsynced(ann, 1)
        await ann.type("d")
        await still_unsynced(ann, 2)
    await ann.wait_unsynced(0)
    await settled_at_nothing(ann)
    for _ in range(3):
        await ann.force_sync()
        await ann.wait_unsynced(0)
    await settled_at_nothing(ann)


@majors
async def test_an_update_that_was_asked_for_again_is_saved_with_the_answer(
    open_stack: Stack, node: NodeClients, major: int
) -> None:
    """Of two updates the second alone arrives: its commit is that of the SyncStep2 which brings both."""
    room = a_room("repair")
    ann = await open_stack.join_hocuspocus(node, major, "ann", room)
    await ann.type("seen ")
    await ann.wait_unsynced(0)
    await ann.lose_frames(1)  # the next frame that it sends never arrives
    await ann.type("ab")
    await ann.watch("ab")
    await until("both are in the log", lambda: open_stack.database.clocks(room).get(ann.client_id) == len("seen ab"))
    await ann.wait_unsynced(1)  # of the lost one nothing was ever heard
    await ann.force_sync()
    await ann.wait_unsynced(0)


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_unsynced_means_that_everything_is_in_the_log_whatever_the_network_does(
    open_stack: Stack, node: NodeClients, seed: int
) -> None:
    room, chance = a_room("whatever happens"), random.Random(seed)
    clients = [await open_stack.join_hocuspocus(node, major, f"{major}", room, on=major % 2) for major in MAJORS]
    offline: set[Client] = set()
    for _ in range(100):
        client = chance.choice(clients)
        match chance.randrange(8):
            case 0 | 1 | 2:
                await append(client, "abc ")
            case 3:
                await client.random(seed=chance.randrange(1000), count=3)
            case 4 if client not in offline:
                await client.drop()
            case 5 if client not in offline:
                await client.disconnect()
                offline.add(client)
            case 6 if client in offline:
                await client.connect()
                offline.discard(client)
            case 7 if await client.unsynced() == 0 and client not in offline:
                await client.force_sync()  # with no receipt on its way that could cross it
        for each in clients:
            unsynced, written = await each.unsynced_and_written()
            assert unsynced >= 0, f"provider {each.name} was told of more than it counted"
            if unsynced == 0:
                assert open_stack.database.clocks(room).get(each.client_id, 0) >= written
    for client in offline:
        await client.connect()
    for client in clients:
        await client.wait_unsynced(0)
    await assert_log_holds(open_stack, node, room, *clients)


async def still_unsynced(client: Client, number: int) -> None:
    """What was sent before has been read by the server, and no more was saved."""
    before = len(await client.events())
    await client.set_awareness({"at": before})
    await client.wait_event("echo", after=before)
    assert await client.unsynced() == number


async def settled_at_nothing(client: Client) -> None:
    """Nothing is counted down twice: one edit more is one, and then none."""
    await still_unsynced(client, 0)
    told = [event["number"] for event in await client.events() if event["kind"] == "unsynced"]
    assert min(told) == 0
    await append(client, ".")
    await client.wait_unsynced(0)


# Roles


@majors
async def test_a_reader_reads_and_what_it_writes_stays_unsynced(
    members_stack: Stack, node: NodeClients, cast: Cast, major: int
) -> None:
    ed = await members_stack.join_hocuspocus(node, major, "ed", cast.room, on=0, headers=cast.cookies["ed"])
    await ed.type("words")
    vic = await members_stack.join_hocuspocus(node, major, "vic", cast.room, on=1, headers=cast.cookies["vic"])
    await vic.wait_event("authenticated", scope="readonly")
    await ed.wait_event("authenticated", scope="read-write")
    await vic.watch("words")
    await vic.wait_unsynced(0)

    await vic.type("!")
    await vic.wait_event("status of sync", applied=False)
    await still_unsynced(vic, 1)
    await ed.type(" more")
    await vic.watch(" more")
    assert not {"denied", "left", "close"} & {*await kinds(vic)}
    assert vic.client_id not in members_stack.database.clocks(cast.room)


async def test_a_role_that_is_lowered_and_raised_changes_the_document_in_place(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    everybody = [
        await members_stack.join_hocuspocus(node, major, f"ed at {major}", cast.room, headers=cast.cookies["ed"])
        for major in MAJORS
    ]
    for ed in everybody:
        await append(ed, "before. ")
        await ed.wait_unsynced(0)

    before = [len(await ed.events()) for ed in everybody]
    await members_stack.database.run(set_role, cast, "ed", Role.VIEWER)
    for ed, after in zip(everybody, before, strict=True):
        await ed.wait_event("authenticated", after=after, scope="readonly")
        await append(ed, "as a reader. ")
        await ed.wait_event("status of sync", after=after, applied=False)

    before = [len(await ed.events()) for ed in everybody]
    await members_stack.database.run(set_role, cast, "ed", Role.EDITOR)
    olga = await members_stack.join_hocuspocus(node, 4, "olga", cast.room, headers=cast.cookies["olga"])
    for ed, after in zip(everybody, before, strict=True):
        await ed.wait_event("authenticated", after=after, scope="read-write")
        await append(ed, "again. ")  # which builds on what was refused: that is asked for, and taken now
    await node.converged(olga, *everybody)
    assert (await olga.seen()).count("as a reader. ") == len(MAJORS)
    for ed in everybody:
        assert not {"denied", "left", "close"} & {*await kinds(ed)}


async def two_documents_each(stack: Stack, node: NodeClients, cast: Cast) -> dict[int, tuple[Client, Client]]:
    """By major, Ed's two documents on one socket: that of the cast, and another."""
    other = await stack.database.run(a_second_document, cast)
    return {
        major: (
            await stack.join_hocuspocus(node, major, f"first {major}", cast.room, **on_one_socket(cast)),
            await stack.join_hocuspocus(node, major, f"second {major}", other.name, **on_one_socket(cast)),
        )
        for major in MAJORS
    }


def on_one_socket(cast: Cast) -> Any:
    return {"headers": cast.cookies["ed"], "socket": "of ed"}


async def goes_on(client: Client) -> None:
    await append(client, "goes on")
    await client.wait_unsynced(0)
    assert not {"denied", "left", "close"} & {*await kinds(client)}


async def test_a_right_that_is_revoked_closes_that_document_alone(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    documents = await two_documents_each(members_stack, node, cast)
    await documents[2][0].type("stored")
    await documents[2][0].wait_unsynced(0)

    await members_stack.database.run(set_role, cast, "ed", None)
    for major, (first, second) in documents.items():
        await first.wait_event("denied", reason="you may no longer see this document")
        await goes_on(second)
        if major > 2:  # 2.15 has left the document at the denial, and sends nothing any more
            await first.wait_event("left")
            await append(first, " too late")
    await until("both are kept", lambda: refused_updates(members_stack, cast) == 2)
    assert await stored_text(members_stack, cast.room) == "stored"


async def test_a_document_that_is_deleted_is_closed_and_the_socket_stays(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    documents = await two_documents_each(members_stack, node, cast)
    await members_stack.database.run(delete_document, cast.document)
    for first, second in documents.values():
        await first.wait_event("denied")
        await goes_on(second)


async def test_who_signs_out_is_closed_with_4401_and_with_all_documents(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    documents = await two_documents_each(members_stack, node, cast)
    await members_stack.database.run(sign_out, cast.cookies["ed"])
    for first, second in documents.values():
        await first.wait_event("close", code=4401)
        await second.wait_event("close", code=4401)


# Tokens


@majors
async def test_a_ticket_in_the_token_opens_its_document_and_no_other(
    members_stack: Stack, node: NodeClients, cast: Cast, major: int
) -> None:
    other = await members_stack.database.run(a_second_document, cast)
    ticket = await members_stack.database.run(ticket_of, cast, "ed", cast.document)
    how: Any = {"tokens": [ticket], "socket": "of ed"}
    first = await members_stack.join_hocuspocus(node, major, "first", cast.room, **how)
    second = await members_stack.join_hocuspocus(node, major, "second", other.name, synced=False, **how)
    await second.wait_event("denied", reason="the ticket is not valid for this document")
    before = len(await first.events())
    await first.drop()
    await first.wait_event("sync", after=before, synced=True)
    await first.type("by ticket")
    await first.wait_unsynced(0)
    assert {row.user_id for row in members_stack.database.rows(cast.room)} == {cast.user_ids["ed"]}
    assert "synced" not in await kinds(second)


@majors
async def test_any_other_token_leaves_it_to_the_session_and_without_one_the_provider_is_denied(
    members_stack: Stack, node: NodeClients, cast: Cast, major: int
) -> None:
    for name, tokens in (("without", [None]), ("empty", [""]), ("another's", ["eyJhbGciOi…"])):
        let_in = await members_stack.join_hocuspocus(
            node, major, name, cast.room, headers=cast.cookies["ed"], tokens=tokens
        )
        await let_in.type(f"{name}. ")
        await let_in.wait_unsynced(0)
        nobody = await members_stack.join_hocuspocus(
            node, major, f"nobody, {name}", cast.room, synced=False, tokens=tokens
        )
        await nobody.wait_event("denied", reason="sign in to open this document")
        assert "close" not in await kinds(nobody)
    assert {row.user_id for row in members_stack.database.rows(cast.room)} == {cast.user_ids["ed"]}


@pytest.mark.parametrize("major", [3, 4])
async def test_an_expired_ticket_is_asked_for_again_and_the_socket_stays(
    members_stack: Stack, node: NodeClients, cast: Cast, major: int
) -> None:
    expired, fresh = await members_stack.database.run(tickets_of, cast, "ed")
    client = await members_stack.join_hocuspocus(node, major, "ed", cast.room, tokens=[expired, fresh])
    await client.type("let in")
    await client.wait_unsynced(0)
    assert not {"denied", "close"} & {*await kinds(client)}

    for_ever = await members_stack.join_hocuspocus(
        node, major, "with the same", cast.room, synced=False, tokens=[expired]
    )
    await for_ever.wait_event("denied", reason="the ticket has expired; come with a fresh one")
    assert "close" not in await kinds(for_ever)


# Many documents, sessions, and what comes and goes


@majors
async def test_one_socket_has_many_documents_which_come_and_go_and_come_back(
    open_stack: Stack, node: NodeClients, major: int
) -> None:
    rooms = [a_room(f"document {number}") for number in range(20)]
    mine = [
        await open_stack.join_hocuspocus(node, major, f"mine of {room}", room, socket="mine", synced=False)
        for room in rooms
    ]
    theirs = [
        await open_stack.join_hocuspocus(node, major, f"theirs of {room}", room, socket="theirs", synced=False)
        for room in rooms
    ]
    await asyncio.gather(*(client.type(client.name) for client in (*mine, *theirs)))
    for room, *clients in zip(rooms, mine, theirs, strict=True):
        await node.converged(*clients)
        assert sorted(await stored_text(open_stack, room)) == sorted(await clients[0].seen())
    for client in (*mine, *theirs):
        await client.wait_unsynced(0)

    leaver, stayer = mine[0], theirs[0]
    await leaver.set_awareness({"user": {"name": "leaver"}})
    await stayer.wait_awareness(leaver.client_id)
    await leaver.destroy()
    await stayer.wait_awareness(leaver.client_id, present=False)
    back = await open_stack.join_hocuspocus(node, major, "back", rooms[0], socket="mine")
    await back.type("again")
    await node.converged(back, stayer)
    await mine[1].drop()
    await mine[2].type("after the drop")
    await node.converged(mine[2], theirs[2])
    await mine[2].wait_unsynced(0)


async def test_two_providers_of_one_document_on_one_socket_have_their_own_addresses(
    members_stack: Stack, node: NodeClients, cast: Cast
) -> None:
    how: Any = {"headers": cast.cookies["ed"], "socket": "of ed"}
    plain = await members_stack.join_hocuspocus(node, 4, "plain", cast.room, **how)
    sessions = [
        await members_stack.join_hocuspocus(node, 4, name, cast.room, session=True, **how) for name in ("one", "two")
    ]
    for client in (plain, *sessions):
        await client.type(f"{client.name} ")
        await client.wait_unsynced(0)
    await assert_log_holds(members_stack, node, cast.room, plain, *sessions)
    await sessions[0].set_awareness({"user": {"name": "one"}})
    for client in (plain, sessions[1]):
        await client.wait_awareness(sessions[0].client_id)
    await sessions[0].destroy()
    await sessions[1].wait_awareness(sessions[0].client_id, present=False)
    await sessions[1].type("goes on")
    await plain.watch("goes on")


@pytest.mark.parametrize("major", [3, 4])
async def test_a_provider_that_detaches_keeps_the_socket_and_syncs_when_it_is_attached_again(
    open_stack: Stack, node: NodeClients, major: int
) -> None:
    room = a_room("detached")
    ann = await open_stack.join_hocuspocus(node, major, "ann", room)
    bob = await open_stack.join_hocuspocus(node, major, "bob", room)
    await ann.set_awareness({"user": {"name": "ann"}})
    await bob.wait_awareness(ann.client_id)
    await ann.detach()
    await bob.wait_awareness(ann.client_id, present=False)
    await ann.type("while away ")
    await bob.type("meanwhile ")
    await bob.wait_unsynced(0)
    await ann.attach()
    await node.converged(ann, bob)
    await ann.wait_unsynced(0)
    assert "close" not in await kinds(ann)


async def test_killed_workers_take_nothing_along_that_was_saved(mortal_stack: Stack, node: NodeClients) -> None:
    room = a_room("killed")
    everybody = [
        await mortal_stack.join_hocuspocus(node, major, f"at {major}", room, on=on)
        for on, major in zip((0, 1, 0), MAJORS, strict=True)
    ]
    for client in everybody:
        await append(client, f"{client.name}, saved. ")
        await client.wait_unsynced(0)
    mortal_stack.kill_workers()
    saved = await stored_text(mortal_stack, room)
    assert all(f"{client.name}, saved. " in saved for client in everybody)
    for client in everybody:
        await append(client, f"{client.name}, offline. ")
    mortal_stack.revive_workers()
    await assert_log_holds(mortal_stack, node, room, *everybody)
    for client in everybody:
        await client.watch(", offline. ")
        await client.wait_unsynced(0)
        await settled_at_nothing(client)


# Stateless messages


async def test_a_stateless_message_of_the_server_reaches_every_provider_in_both_processes(
    open_stack: Stack, node: NodeClients
) -> None:
    room = a_room("stateless")
    everybody = [
        await open_stack.join_hocuspocus(node, major, f"{major} on {on}", room, on=on)
        for on in open_stack.all
        for major in MAJORS
    ]
    say = f"async_to_sync(broadcast_stateless)({room!r}, 'saved at noon')"
    imports = "from asgiref.sync import async_to_sync; from realtime.hocuspocus.stateless import broadcast_stateless"
    open_stack.manage("shell", "--command", f"{imports}; {say}")
    for client in everybody:
        await client.wait_event("stateless", payload="saved at noon")
        await client.send_stateless("thanks")  # of which nobody here wants to be told
        await still_unsynced(client, 0)


# What happens on the server's side


def set_role(cast: Cast, name: str, role: Role | None) -> None:
    membership = Membership.objects.filter(document=cast.document, user=cast.user_ids[name])
    if role is None:
        membership.get().delete()
    else:
        Membership.objects.update_or_create(
            document=cast.document, user_id=cast.user_ids[name], defaults={"role": role}
        )


def sign_out(cookie: dict[str, str]) -> None:
    Session.objects.get(session_key=cookie["Cookie"].partition("=")[2]).delete()


def a_second_document(cast: Cast) -> Document:
    document = Document.objects.create(name=a_room("second"), title="Second")
    Membership.objects.create(document=document, user_id=cast.user_ids["ed"], role=Role.EDITOR)
    return document


def ticket_of(cast: Cast, name: str, document: Document) -> str:
    return issue_ticket(User.objects.get(pk=cast.user_ids[name]), document).text


def tickets_of(cast: Cast, name: str) -> tuple[str, str]:
    """One that expired a day ago, and a good one."""
    user = User.objects.get(pk=cast.user_ids[name])
    long_ago = timezone.now() - timedelta(days=1)
    return issue_ticket(user, cast.document, now=long_ago).text, issue_ticket(user, cast.document).text


def refused_updates(stack: Stack, cast: Cast) -> int:
    with stack.database.connect() as connection:
        found = connection.execute(
            f"SELECT sum(updates) FROM {Refusal._meta.db_table} WHERE document_id = %s", [cast.document.pk]
        ).fetchone()
    return int(found[0] or 0) if found else 0
