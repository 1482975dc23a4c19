"""The JSON room: who has no CRDT edits the same document, under their name, and sees what everyone does."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import AnonymousUser
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.tickets import issue_ticket
from history.crdt import values
from history.fates import Reason
from history.folds import document_at
from history.models import Client as LogClient
from history.models import Kind, Session, Update, Via
from history.squash import squash_document
from history.writes import append_update, restore, write_session
from realtime.collab import members, participants, pens, views
from realtime.collab.consumers import RealtimeCollaborationConsumer
from realtime.collab.gatherings import gathering_of
from realtime.groups import collab_group
from realtime.hub import Hub, current_hub
from realtime.message_errors import MessageRefused
from realtime.protocols import collab as protocol
from realtime.protocols.frames import encode_update
from realtime.routing import websocket_urlpatterns
from tests.builders import NEVER_WARM, make_document, make_user
from tests.integration.realtime.collab_sockets import Client
from tests.integration.realtime.rooms import HeldAppend, eventually, shared_document, take_role_by_sql
from tests.integration.realtime.sockets import Socket
from tests.integration.realtime.test_splits import BETWEEN, EMOJI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("hub")]


async def two(**roles: Role) -> tuple[Document, dict[str, Any]]:
    return await shared_document(**(roles or {"ada": Role.OWNER, "bob": Role.EDITOR}))


def insert(text: str, at: int = 0) -> list[dict[str, Any]]:
    return [*([{"retain": at}] if at else []), {"insert": text}]


@sync_to_async
def log(document: Document) -> list[tuple[int, str, str, str]]:
    """(seq, kind, door, author) of every row."""
    sessions = {each.id: each for each in Session.objects.filter(document=document).select_related("user")}
    rows = Update.objects.filter(document=document).order_by("seq")
    told = []
    for row in rows:
        session = sessions[row.session_id]
        told.append((row.seq, Kind(row.kind).label, Via(session.via).label, str(session.user or "")))
    return told


async def test_who_comes_is_told_who_is_here_and_what_the_field_says() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        first, whole = ada.said[:2]
        assert first["type"] == "connection_established"
        assert first["user_count"] == 1
        me = {"user_id": str(people["ada"].pk), "username": "ada", "color": "#3B82F6"}
        assert first["participants"] == [me]
        assert whole == {"type": "document_update", "content": "", "editor": None, "seq": 0, "delta": None}
        async with Client(document.name, people["bob"]) as bob:
            assert [each["username"] for each in bob.said[0]["participants"]].count("bob") == 1
            await ada.until(lambda: ada.count == 2)
            await bob.until(lambda: bob.count == 2)
        await ada.until(lambda: ada.count == 1)


async def test_an_edit_is_a_row_of_the_log_under_its_author_and_all_are_told() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        assert await ada.edit("e1", base=0, delta=insert("hello")) == {"type": "edit_ack", "id": "e1", "seq": 1}
        await bob.until(lambda: bob.seq == 1)
        assert bob.of_type("document_update")[-1] == {
            "type": "document_update",
            "content": "hello",
            "editor": {"user_id": str(people["ada"].pk), "username": "ada"},
            "seq": 1,
            "delta": [{"insert": "hello"}],
        }
        await bob.edit("e1", base=1, delta=insert(" you", 5))
        await ada.until(lambda: ada.content == "hello you")
    assert await log(document) == [(1, "edit", "json", "ada"), (2, "edit", "json", "bob")]


async def test_an_edit_is_acknowledged_after_its_commit(hub: Hub) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        held = HeldAppend(hub)
        ada.say(type="document_edit", id="held", base=0, delta=insert("x"))
        await asyncio.wait_for(held.under_way.wait(), 10)
        ada.say(type="nonsense")
        assert ada.acks == {}
        assert ada.content == ""
        held.may_go_on.set()
        await ada.until(lambda: ada.acks == {"held": 1})
        shown = [each["type"] for each in ada.said]
        assert shown.index("edit_ack") > shown.index("document_update", 2)


async def test_a_json_client_and_a_yjs_editor_type_in_one_paragraph_and_both_keep_it() -> None:
    document, people = await two()
    async with (
        Socket(document.name, user=people["bob"]) as editor,
        Client(document.name, people["ada"], query="field=text") as ada,
    ):
        await editor.until_synced()
        await ada.edit(base=0, delta=insert("The quick fox"))
        await editor.until(lambda: editor.text == "The quick fox")
        editor.type("brown ", at=10)
        await ada.until(lambda: ada.content == "The quick brown fox")
        # Made on what was there before the editor typed: the offsets are those of then.
        await ada.edit(base=1, delta=[{"retain": 4}, {"insert": "very "}, {"retain": 9}, {"insert": " 😀!"}])
        await editor.until(lambda: editor.text == "The very quick brown fox 😀!")
        await ada.until(lambda: ada.text == editor.text)
    assert [row[1:] for row in await log(document)] == [
        ("edit", "json", "ada"),
        ("sync", "websocket", "bob"),
        ("edit", "json", "ada"),
    ]


async def test_whole_content_is_compared_with_its_base_and_never_with_head() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        await ada.edit(base=0, content="one two three")
        await bob.until(lambda: bob.seq == 1)
        await bob.edit(base=1, delta=insert("zero ", 0))
        await ada.until(lambda: ada.seq == 2)
        await ada.edit(base=1, content="one two four")
        await bob.until(lambda: bob.content == "zero one two four")
        # Without a base it is what was last sent to this socket.
        await ada.until(lambda: ada.content == "zero one two four")
        await ada.edit(content="zero one two four five")
        await bob.until(lambda: bob.content == "zero one two four five")


async def test_a_reader_who_takes_nothing_has_its_content_compared_with_what_was_sent_to_it() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        await ada.edit(base=0, content="first")
        await bob.until(lambda: bob.content == "first")
        bob.reads.clear()
        await ada.edit(base=1, content="first second")
        bob.say(type="document_edit", id="b", content="FIRST")
        await ada.until(lambda: "FIRST" in ada.content)
        assert ada.content == "FIRST second"


async def test_an_edit_that_comes_again_is_made_once_in_any_process(hub: Hub) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        first = await ada.edit("same", base=0, delta=insert("x"))
        assert await ada.edit("same", base=0, delta=insert("x")) == first
        assert (await bob.edit("same", base=1, delta=insert("y")))["seq"] == 2
    # What a process remembers is gone; the log tells.
    async with Client(document.name, people["ada"]) as ada:
        gathering_of(hub.rooms[document.pk], document.name).edits.clear()
        assert await ada.edit("same", base=0, delta=insert("x")) == first
        assert await ada.edit("other", base=2, delta=insert("z")) == {"type": "edit_ack", "id": "other", "seq": 3}
        await ada.until(lambda: sorted(ada.content) == ["x", "y", "z"])
        seventh = await ada.edit(7, base=3, delta=insert("!"))
        assert seventh == {"type": "edit_ack", "id": 7, "seq": 4}  # as it came, so that a client finds it
        assert await ada.edit(7, base=3, delta=insert("!")) == seventh
        refused = await ada.edit("same", base=4, delta=insert("another"))  # a client that counts from the start again
        assert (refused["type"], refused.get("code")) == ("error", "used_id")
    assert len(await log(document)) == 4


async def test_whole_content_that_comes_again_has_the_seq_that_it_had() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        first = await ada.edit("same", content="one")
        await ada.edit("more", content="one two")
        await ada.edit("less", content="one")
    async with Client(document.name, people["ada"]) as ada:
        gathering_of(current_hub().rooms[document.pk], document.name).edits.clear()
        assert await ada.edit("same", content="one") == first
    assert len(await log(document)) == 3


async def test_without_an_account_the_client_names_itself_and_else_each_socket_is_another(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    for query, seqs in (("client=abcdefgh", [1, 1]), ("", [2, 3])):
        answered = []
        for _ in range(2):
            async with Client("open", query=query) as nobody:
                answered.append((await nobody.edit("1", base=nobody.seq, delta=insert("x")))["seq"])
        assert answered == seqs


async def test_a_client_id_is_used_again_once_its_last_row_is_within_the_base() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        for number in range(5):
            await ada.edit(base=ada.seq, delta=insert(str(number), number))
        assert ada.content == "01234"
        assert await LogClient.objects.filter(document=document).acount() == 1
        # Two on one base cannot be under one id: the second does not know of the first.
        await ada.edit(base=5, delta=insert("a", 5))
        await ada.edit(base=5, delta=insert("b", 0))
        assert await LogClient.objects.filter(document=document).acount() == 2
        assert ada.content == "b01234a"
        await ada.edit(base=7, delta=insert("c", 7))
        assert await LogClient.objects.filter(document=document).acount() == 2
        assert {each.actor async for each in LogClient.objects.filter(document=document)} == {str(people["ada"].pk)}


async def test_many_edits_on_one_base_all_keep_what_they_insert(hub: Hub) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        for number in range(2 * pens.PENS_MAX):
            await ada.edit(base=0, delta=insert(f"<{number}>"))
        assert all(f"<{number}>" in ada.content for number in range(2 * pens.PENS_MAX))
        assert len(pens.forks_of(hub)._sizes) <= pens.PENS_MAX


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        ({"base": 99, "delta": insert("x")}, "unknown_base"),
        ({"base": 10**30, "delta": insert("x")}, "unknown_base"),
        ({"base": 1, "delta": insert("x", 4)}, "outside_text"),
        ({"base": 1, "delta": insert("x", 2)}, "inside_character"),
        ({"base": 1, "content": {"a": 1}}, "not_editable"),
        ({"base": 1, "delta": []}, None),
        ({"base": 1}, "malformed"),
        ({"delta": insert("x")}, "malformed"),
    ],
)
async def test_an_edit_that_cannot_be_made_says_why_and_changes_nothing(edit: Any, code: str | None) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        await ada.edit(base=0, delta=insert("a😀"))
        answer = await ada.edit("bad", **edit)
        assert (answer.get("code"), answer["id"]) == (code, "bad")
        assert await ada.edit("good", base=1, delta=insert("!", 3)) == {"type": "edit_ack", "id": "good", "seq": 2}
        assert ada.content == "a😀!"
        assert await LogClient.objects.filter(document=document).acount() == 1


async def test_a_reader_is_shown_everything_and_may_edit_nothing(hub: Hub) -> None:
    document, people = await two(ada=Role.OWNER, vic=Role.VIEWER)
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["vic"]) as vic:
        held = HeldAppend(hub)  # which is not come to
        assert (await vic.edit("mine", base=0, delta=insert("x")))["code"] == "not_allowed"
        assert vic.errors == [("not_allowed", "mine")]
        held.may_go_on.set()
        await ada.edit(base=0, delta=insert("shown"))
        await vic.until(lambda: vic.content == "shown")
        vic.say(type="cursor_update", position=1)
        await ada.until(lambda: bool(ada.of_type("cursor_broadcast")))
    assert await log(document) == [(1, "edit", "json", "ada")]


async def test_who_loses_the_right_to_write_is_told_and_who_loses_all_is_closed() -> None:
    document, people = await two()
    async with Client(document.name, people["bob"]) as bob:
        membership = await Membership.objects.aget(document=document, user=people["bob"])
        membership.role = Role.VIEWER
        await sync_to_async(membership.save)()
        await bob.until(lambda: bool(bob.errors))
        assert bob.errors == [("not_allowed", None)]
        assert (await bob.edit("e", base=0, delta=insert("x")))["code"] == "not_allowed"
        await sync_to_async(membership.delete)()
        await bob.until(lambda: bob.closed == 4403)
    assert await log(document) == []


async def test_a_right_that_ended_without_a_word_refuses_the_edit_in_the_append(no_watch: None) -> None:
    document, people = await two()
    async with Client(document.name, people["bob"]) as bob:
        await take_role_by_sql(document, people["bob"])
        assert (await bob.edit("late", base=0, delta=insert("x")))["code"] == "not_allowed"
        assert bob.errors == [("not_allowed", "late")]
        await bob.until(lambda: bob.closed == 4403)
    assert await log(document) == []


async def test_what_the_log_does_not_take_is_in_nothing_that_comes_after(hub: Hub) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        await ada.edit(base=0, delta=insert("one"))
        HeldAppend(hub, Reason.FULL).may_go_on.set()
        assert (await ada.edit("full", base=1, delta=insert("lost ")))["code"] == "full"
        assert await ada.edit("full", base=1, delta=insert("two ")) == {"type": "edit_ack", "id": "full", "seq": 2}
        assert ada.content == "two one"


@pytest.mark.parametrize(("who", "code"), [("stranger", 4404), (None, 4401)])
async def test_who_may_not_come_is_told_by_the_code(who: str | None, code: int) -> None:
    document, _ = await two()
    user = AnonymousUser() if who is None else await sync_to_async(make_user)(who)
    async with Client(document.name, user) as somebody:
        assert somebody.closed == code
        assert somebody.said == []


async def test_a_page_of_another_origin_may_not_use_the_session() -> None:
    document, people = await two()
    headers = [(b"origin", b"https://elsewhere.example"), (b"host", b"here.example")]
    async with Client(document.name, people["ada"], headers=headers) as ada:
        assert ada.closed == 4403


async def test_a_ticket_opens_the_door_of_its_document_alone() -> None:
    document, people = await two()
    ticket = await sync_to_async(lambda: issue_ticket(people["bob"], document).text)()
    async with Client(document.name, query=f"ticket={ticket}") as bob:
        assert (await bob.edit(base=0, delta=insert("x")))["type"] == "edit_ack"
    another = await sync_to_async(make_document)()
    async with Client(another.name, query=f"ticket={ticket}") as bob:
        assert bob.closed == 4401
    assert await log(document) == [(1, "edit", "json", "bob")]


async def test_what_is_not_understood_is_answered_and_the_socket_stays() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        ada.send(text="{")
        ada.say(type="unheard_of")
        ada.say(type="cursor_update", position=1, color=3)
        await ada.until(lambda: len(ada.errors) == 3)
        assert ada.errors == [("malformed", None), ("unknown_type", None), ("malformed", None)]
        assert (await ada.edit(base=0, delta=insert("x")))["type"] == "edit_ack"
        ada.send(bytes=b"\x00")
        await ada.until(lambda: ada.closed == 1003)


async def test_a_client_whose_name_no_log_can_hold_is_not_let_in_and_disturbs_nobody() -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        async with Client(document.name, people["bob"], query="client=%00") as bob:
            if bob.closed is None:
                bob.say(type="document_edit", id="1", base=0, content="x")
            await bob.until(lambda: bob.closed is not None)
            assert bob.closed == 1008
        assert "seq" in await ada.edit(content="x")


async def test_a_frame_that_is_too_large_closes_the_socket(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "FRAME_BYTES_MAX": 1000}
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        ada.say(type="document_edit", base=0, content="x" * 1000)
        await ada.until(lambda: ada.closed == 1009)


async def test_cursors_are_shown_to_the_others_with_a_color(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "CURSOR_PAUSE_SECONDS": 1.0}
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        ada.say(type="cursor_update", position={"line": 2})
        await bob.until(lambda: bool(bob.of_type("cursor_broadcast")))
        assert bob.of_type("cursor_broadcast")[0]["cursor"] == {
            "user_id": str(people["ada"].pk),
            "username": "ada",
            "position": {"line": 2},
            "color": "#3B82F6",
        }
        for place in range(20):
            ada.say(type="cursor_update", position=place, color="#ff0000")
            await ada.edit(content="")
        await bob.until(lambda: bob.of_type("cursor_broadcast")[-1]["cursor"]["position"] == 19)
        assert len(bob.of_type("cursor_broadcast")) <= 5  # not each of 21
        assert not ada.of_type("cursor_broadcast")
        bob.say(type="cursor_update", position=1)
        await ada.until(lambda: bool(ada.of_type("cursor_broadcast")))
        ada.say(type="presence_heartbeat")
        await ada.edit(content="")
        async with Client(document.name, people["bob"]) as tab:
            colors = {each["username"]: each["color"] for each in tab.said[0]["participants"]}
            assert colors["ada"] == "#ff0000"


async def test_nobody_edits_under_the_name_of_others_by_a_message_to_their_group(hub: Hub) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        group = collab_group(document.name)
        forged = {"type": "handle_document_edit", "id": "forged", "base": 0, "delta": insert("x")}
        await get_channel_layer().group_send(group, forged)
        cursor = {"user_id": None, "username": "", "position": 1, "color": "red"}
        no_json = {**cursor, "position": float("nan")}
        await get_channel_layer().group_send(group, {"type": "cursor_broadcast", "cursor": no_json})
        await get_channel_layer().group_send(group, {"type": "cursor_broadcast", "cursor": cursor})
        await ada.until(lambda: bool(ada.of_type("cursor_broadcast")))
        assert [each["cursor"] for each in ada.of_type("cursor_broadcast")] == [cursor]
        await hub.commits.flushed()
        assert not ada.acks
    assert await log(document) == []


async def test_who_says_nothing_is_counted_no_more_until_its_heartbeat(
    settings: Settings,
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "PRESENCE_LEASE_SECONDS": 1}
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        assert ada.count == 1
        await ada.until(lambda: ada.count == 0)
        ada.say(type="presence_heartbeat")
        await ada.until(lambda: ada.count == 1)


async def test_valkey_is_asked_for_few_of_many_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.collab.consumers.RENEWAL_PAUSE_SECONDS", 60)
    renewals: list[str] = []
    renew = participants.Participants.renew

    async def counted(self: participants.Participants, participant: participants.Participant) -> bool:
        renewals.append(participant.socket_id)
        return await renew(self, participant)

    monkeypatch.setattr(participants.Participants, "renew", counted)
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        for _ in range(5):
            ada.say(type="presence_heartbeat")
        await ada.edit(content="")
        assert len(renewals) == 1


async def test_two_tabs_count_once_unless_asked() -> None:
    document, people = await two()
    async with (
        Client(document.name, people["ada"], query="count=tabs") as ada,
        Client(document.name, people["ada"]) as tab,
        Client(document.name, people["bob"]) as bob,
    ):
        await ada.until(lambda: ada.count == 3)
        await tab.until(lambda: tab.count == 2)
        await bob.until(lambda: bob.count == 2)
        assert len(bob.said[0]["participants"]) == 2


async def test_an_edit_by_any_door_is_told_with_its_author(hub: Hub, another_process: Callable[[], Hub]) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        await ada.edit(base=0, delta=insert("one"))

        def by_the_api() -> None:
            doc: Doc[Any] = Doc(client_id=77)
            doc.get("content", type=Text).insert(0, "two ")
            append_update(write_session(document, actor=people["bob"], via=Via.API), doc.get_update())

        await sync_to_async(by_the_api)()
        await ada.until(lambda: ada.seq == 2)
        assert ada.of_type("document_update")[-1]["editor"]["username"] == "bob"
        await sync_to_async(lambda: restore(write_session(document, actor=people["bob"], via=Via.API), 1))()
        await ada.until(lambda: ada.content == "one")
        assert ada.of_type("document_update")[-1]["editor"]["username"] == "bob"
        async with Socket(document.name, user=people["bob"]) as editor:
            await editor.until_synced()
            root = editor.doc.get("content", type=Text)
            updates: list[bytes] = []
            subscription = editor.doc.observe(lambda event: updates.append(event.update))
            root.insert(0, "B", {"bold": True})
            editor.doc.unobserve(subscription)
            editor.send(encode_update(updates[0]))
            await ada.until(lambda: ada.content == "Bone")
            last = ada.of_type("document_update")[-1]
            assert last["delta"] == [{"insert": "B", "attributes": {"bold": True}}]
            assert last["editor"]["username"] == "bob"


@pytest.mark.parametrize("told", ["by hints", "by the log"])
async def test_what_another_process_commits_is_told_with_its_authors(
    told: str, hub: Hub, another_process: Callable[[], Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await two()
    there = another_process()
    if told == "by the log":
        monkeypatch.setattr(hub.bus, "_hear", lambda message: None)
    async with Client(document.name, people["ada"]) as ada:

        async def fresh() -> "Doc[Any]":
            return Doc()

        room = await there.open(document.pk, fresh)
        doc: Doc[Any] = Doc(client_id=78)
        doc.get("content", type=Text).insert(0, "from there")
        session = await sync_to_async(write_session)(document, actor=people["bob"], via=Via.API)
        await room.write_and_wait(session, doc.get_update(), kind=Kind.EDIT)
        await ada.until(lambda: ada.content == "from there")
        assert ada.of_type("document_update")[-1]["editor"]["username"] == "bob"


async def test_an_edit_on_a_seq_that_only_another_process_has_waits_for_it(
    hub: Hub, another_process: Callable[[], Hub], monkeypatch: pytest.MonkeyPatch, no_watch: None
) -> None:
    document, people = await two()
    monkeypatch.setattr(hub.bus, "_hear", lambda message: None)
    async with Client(document.name, people["ada"]) as ada:

        def elsewhere() -> None:
            doc: Doc[Any] = Doc(client_id=79)
            doc.get("content", type=Text).insert(0, "there ")
            append_update(write_session(document, actor=people["ada"], via=Via.API), doc.get_update())

        await sync_to_async(elsewhere)()
        assert (await ada.edit("e", base=1, delta=insert("here", 6)))["seq"] == 2
        assert ada.content == "there here"


async def test_who_asked_for_deltas_alone_gets_no_content_and_nobody_does_of_long_documents(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "COLLAB_CONTENT_BYTES_MAX": 20}
    document, people = await two()
    async with (
        Client(document.name, people["ada"]) as ada,
        Client(document.name, people["bob"], query="deltas=only") as bob,
    ):
        await ada.edit(base=0, delta=insert("short"))
        await bob.until(lambda: bob.text == "short")
        assert "content" not in bob.of_type("document_update")[-1]
        assert ada.of_type("document_update")[-1]["content"] == "short"
        await ada.edit(base=1, delta=insert(" and long enough by now", 5))
        assert "content" not in ada.of_type("document_update")[-1]
        assert ada.text == "short and long enough by now"
        async with Client(document.name, people["bob"]) as late:
            assert late.content == ada.text  # what a client begins with is whole


async def test_a_slow_reader_gets_the_whole_content_once_it_reads_again(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 2000}
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        bob.reads.clear()
        for number in range(30):
            await ada.edit(base=ada.seq, delta=insert(f"{number:02} ", 3 * number))
        bob.reads.set()
        await bob.until(lambda: bob.text == ada.text)
        assert len(bob.of_type("document_update")) < 20
        assert any(each["delta"] is None for each in bob.of_type("document_update")[1:])


async def test_of_a_large_field_many_changes_are_told_in_one_and_ones_own_before_its_acknowledgement(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OUTBOX_BYTES_MAX": 2000}
    monkeypatch.setattr(views, "COMPARED_AT_ONCE_SECONDS", 0)
    monkeypatch.setattr(views, "LATER_TIMES", 1000)
    document, people = await two()
    async with (
        Socket(document.name, user=people["bob"]) as editor,
        Client(document.name, people["ada"], query="field=text") as ada,
        Client(document.name, people["ada"], query="field=text") as slow,
    ):
        await editor.until_synced()
        slow.reads.clear()
        for letter in "abcdefghijklmnopqrst":
            editor.type(letter, at=len(editor.text))
        await editor.until(lambda: len(editor.text) == 20)
        await ada.until(lambda: ada.content == "abcdefghijklmnopqrst")
        told = ada.of_type("document_update")
        assert len(told) < 12
        assert told[-1]["editor"]["username"] == "bob"
        for number in range(15):
            answer = await ada.edit(base=ada.seq, delta=insert(f"{number:02}", 20))
            assert ada.seq >= answer["seq"]
        slow.reads.set()
        await slow.until(lambda: slow.content == ada.content)


async def test_an_event_of_the_group_is_no_news_of_the_document(hub: Hub) -> None:
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        await ada.edit(base=0, content="first")
        await bob.until(lambda: bob.content == "first")
        (room,) = hub.rooms.values()
        gathering = gathering_of(room, document.name)
        await ada.edit(base=1, content="second first")
        await bob.until(lambda: bob.content == "second first")
        gathering.view("content")._due_at = float("inf")  # nothing more is told of it

        def elsewhere() -> None:
            doc: Doc[Any] = Doc(client_id=83)
            doc.get("content", type=Text).insert(0, "unseen ")
            append_update(write_session(document, actor=people["bob"], via=Via.API), doc.get_update())

        await sync_to_async(elsewhere)()
        async with asyncio.timeout(10):
            while room.seq < 3:
                await asyncio.sleep(0.01)
        ada.say(type="cursor_update", position=1)
        await bob.until(lambda: bool(bob.of_type("cursor_broadcast")))
        await bob.edit(content="second")
        await ada.until(lambda: "first" not in ada.content)
        assert "unseen" in ada.content


@pytest.mark.parametrize("is_plain", [False, True])
async def test_a_large_document_is_read_off_the_event_loop_and_nothing_of_it_is_missed_or_told_twice(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, hub: Hub, is_plain: bool
) -> None:
    """What takes time of it, that is: a plain text is read at once, and compared on the thread."""
    if not is_plain:
        monkeypatch.setattr(views, "PLAIN_RUNS_MAX", 0)
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OFF_LOOP_BYTES": 2000}
    done_here: list[bool] = []
    encoded: list[bytes] = []
    compare, read, loop_thread = views._reading_of_tree, views._reading_of_state, threading.get_ident()

    def noting(*args: Any) -> Any:
        done_here.append(threading.get_ident() == loop_thread)
        return compare(*args)

    def noting_state(state: bytes, *args: Any) -> Any:
        encoded.append(state)
        return read(state, *args)

    document, people = await two()
    how: Any = {"query": "field=text"}
    async with Client(document.name, people["ada"], **how) as ada:
        await ada.edit(base=0, delta=insert("a" * 3000))
        monkeypatch.setattr(views, "_reading_of_tree", noting)
        monkeypatch.setattr(views, "_reading_of_state", noting_state)
        async with (
            Client(document.name, people["bob"], **how) as bob,
            Socket(document.name, user=people["bob"]) as editor,
        ):
            await editor.until_synced()
            for number in range(10):
                editor.type("x")
                async with Client(document.name, people["bob"], **how) as late:
                    answer = await ada.edit(base=ada.seq, delta=insert(f"<{number}>"))
                    assert ada.seq >= answer["seq"]
                    await late.until(lambda late=late: late.seq >= ada.seq)  # type: ignore[misc]
            await eventually(lambda: hub.rooms[document.pk].seq == 21)
            await editor.until(lambda: len(editor.text) == 3040)
            for each in (ada, bob):
                await each.until(lambda each=each: each.seq == 21)  # type: ignore[misc]
                assert each.text == editor.text
    assert done_here and not any(done_here)
    assert bool(encoded) is not is_plain


async def test_edits_that_take_long_are_made_off_the_event_loop_and_cost_their_time_whatever_comes_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_here: list[bool] = []
    cost: list[float] = []
    make, loop_thread = members._edit, threading.get_ident()

    def noting(*args: Any) -> Any:
        made_here.append(threading.get_ident() == loop_thread)
        return make(*args)

    monkeypatch.setattr(members, "_edit", noting)
    monkeypatch.setattr(members.CollabMember, "charge_time", lambda self, seconds: cost.append(seconds))
    document, people = await two()
    many = [{"insert": "a", "attributes": {"i": place}} for place in range(1000)]
    async with Client(document.name, people["ada"]) as ada:
        assert "seq" in await ada.edit(base=0, delta=insert("a"))
        assert "seq" in await ada.edit(base=1, delta=many)
        assert "seq" in await ada.edit(base=2, content="b")
        assert "code" in await ada.edit(base=3, delta=[{"retain": 100_000}])
    assert made_here == [True, False, False, True]
    assert len(cost) >= 4 and all(seconds > 0 for seconds in cost)


async def test_large_messages_are_read_off_the_event_loop_whatever_comes_of_them(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OFF_LOOP_BYTES": 4000}
    read_here: list[bool] = []
    check, loop_thread = values.checked, threading.get_ident()

    def noting(value: Any) -> Any:
        read_here.append(threading.get_ident() == loop_thread)
        return check(value)

    monkeypatch.setattr(protocol, "checked", noting)
    document, people = await two(ada=Role.OWNER, vic=Role.VIEWER)
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["vic"]) as vic:
        many: list[Any] = [[]] * 2000
        vic.say(type="cursor_update", position=many)
        await vic.until(lambda: vic.errors == [("malformed", None)])
        assert "seq" in await ada.edit(base=0, content=many)
        assert read_here and not any(read_here)
        assert "seq" in await ada.edit(base=1, content=[])
        assert read_here[-1]


async def test_a_map_and_an_array_are_edited_as_whole_json() -> None:
    document, people = await two()
    async with (
        Client(document.name, people["ada"], query="field=settings") as ada,
        Client(document.name, people["bob"], query="field=settings") as bob,
        Client(document.name, people["bob"], query="field=list") as lists,
    ):
        await ada.edit(base=0, content={"title": "x", "tags": ["a"]})
        await bob.until(lambda: bob.content == {"title": "x", "tags": ["a"]})
        await bob.edit(base=1, content={"title": "y", "tags": ["a"]})
        await ada.edit(base=1, content={"title": "x", "tags": ["a"], "new": 1})
        await ada.until(lambda: ada.content == {"title": "y", "tags": ["a"], "new": 1})
        delta = ada.of_type("document_update")[-1]["delta"]
        assert delta == [{"path": [], "type": "map", "keys": {"new": {"new": 1}}}]
        assert (await ada.edit(base=3, delta=insert("x")))["code"] == "not_editable"
        await lists.edit(base=3, content=[1, 2, 3])
        assert (await lists.edit(content=[1, 3, 4]))["type"] == "edit_ack"
        await lists.until(lambda: lists.content == [1, 3, 4])
        assert (await lists.edit(content=list(range(2005))))["code"] == "not_editable"


async def test_xml_is_shown_and_says_that_it_is_edited_elsewhere() -> None:
    document, people = await two()

    def write() -> None:
        doc: Doc[Any] = Doc(client_id=80)
        doc["content"] = XmlFragment([XmlElement("p", {}, [XmlText("hello")])])
        append_update(write_session(document, actor=people["ada"], via=Via.API), doc.get_update())

    await sync_to_async(write)()
    async with Client(document.name, people["ada"]) as ada:
        assert ada.content["children"][0]["tag"] == "p"
        assert (await ada.edit("x", base=1, content="hello"))["code"] == "not_editable"


async def test_an_edit_on_an_old_base_is_made_on_the_log(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "SEGMENT_ROWS_MIN": 2}
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada:
        for number in range(6):
            await ada.edit(base=ada.seq, delta=insert(str(number), number))
    assert await sync_to_async(lambda: squash_document(document.pk, older_than=NEVER_WARM))() == 6
    async with Client(document.name, people["bob"]) as bob:
        await bob.edit(base=3, delta=insert("|", 1))
        await bob.until(lambda: bob.content == "0|12345")
        await bob.edit(base=0, delta=insert("^"))
        await bob.until(lambda: bob.content.count("^") == 1)


async def test_forks_are_bounded_and_made_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "FORKS_BYTES_MAX": 2 * pens.FORK_BYTES_MIN}
    document, people = await two()
    sockets = [Client(document.name, people["ada"]) for _ in range(5)]
    for socket in sockets:
        await socket.__aenter__()
    for turn in range(3):
        for number, socket in enumerate(sockets):
            await socket.until(lambda socket=socket, seq=5 * turn + number: socket.seq >= seq)  # type: ignore[misc]
            await socket.edit(base=socket.seq, delta=insert("x"))
            assert len(pens.forks_of(hub)._sizes) <= 2
    assert sockets[-1].content == "x" * 15
    for socket in sockets:
        await socket.__aexit__(None, None, None)
    assert not pens.forks_of(hub)._sizes


async def test_an_edit_after_an_emoji_was_split_is_made_on_what_the_document_says_then() -> None:
    document, people = await two()

    @sync_to_async
    def append(update: bytes) -> None:
        append_update(write_session(document, actor=people["bob"], via=Via.API), update)

    await append(EMOJI)
    async with Client(document.name, people["ada"], query="field=text") as ada:
        await ada.edit(base=1, delta=insert("!", 4))
        await append(BETWEEN)
        await ada.until(lambda: ada.content == "a\ufffdx\ufffdb!")
        await ada.edit(base=ada.seq, delta=insert("?", 3))
        assert ada.content == "a\ufffdx?\ufffdb!"


async def test_a_document_chooses_its_field() -> None:
    class Notes(RealtimeCollaborationConsumer):
        default_field = "notes"

    class ByName(RealtimeCollaborationConsumer):
        def get_field(self) -> str:
            return f"of {self.room_name}"

    document, people = await two()
    for consumer in (Notes, ByName):
        async with Client(document.name, people["ada"], consumer=consumer) as ada:
            await ada.edit(content="x")

    @sync_to_async
    def said() -> list[str]:
        doc = document_at(document.pk).doc
        return [str(doc.get(root, type=Text)) for root in ("notes", f"of {document.name}", "content")]

    assert await said() == ["x", "x", ""]


async def test_a_subclass_adds_messages_and_replaces_methods() -> None:
    class Shouting(RealtimeCollaborationConsumer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.handlers = {**self.handlers, "shout": self.handle_shout}

        async def handle_shout(self, data: dict[str, Any]) -> None:
            if not data["words"]:
                raise MessageRefused("too_quiet", "say something")
            await self._gathering.send({"type": "shouted", "words": data["words"]})

        async def shouted(self, event: dict[str, Any]) -> None:
            self.tell(event, {"type": "shouted", "words": event["words"].upper()})

        async def get_participants(self) -> list[dict[str, Any]]:
            return [{"user_id": "0", "username": "everybody", "color": "red"}]

    document, people = await two()
    async with (
        Client(document.name, people["ada"], consumer=Shouting) as ada,
        Client(document.name, people["bob"], consumer=Shouting) as bob,
    ):
        assert bob.said[0]["participants"] == [{"user_id": "0", "username": "everybody", "color": "red"}]
        ada.say(type="shout", words="hey")
        await bob.until(lambda: bool(bob.of_type("shouted")))
        assert bob.of_type("shouted")[0]["words"] == "HEY"
        ada.say(type="shout", words="")
        await ada.until(lambda: ada.errors == [("too_quiet", None)])
        assert ada.closed is None


async def test_a_room_begins_with_what_make_ydoc_makes() -> None:
    class Letters(RealtimeCollaborationConsumer):
        async def make_ydoc(self) -> "Doc[Any]":
            return Doc({"content": Text("Dear ")})

    document, people = await two()
    async with Client(document.name, people["ada"], consumer=Letters) as ada:
        assert (ada.content, ada.seq) == ("Dear ", 1)


async def test_every_method_that_may_be_overridden_is_the_one_that_is_called() -> None:
    called: set[str] = set()

    def noting(name: str) -> Callable[..., Any]:
        async def method(self: RealtimeCollaborationConsumer, *args: Any, **options: Any) -> Any:
            called.add(name)
            return await getattr(RealtimeCollaborationConsumer, name)(self, *args, **options)

        return method

    names = {
        "handle_cursor_update",
        "handle_document_edit",
        "handle_heartbeat",
        "get_participants",
        "update_participants_cache",
        "broadcast_user_count",
    }
    noted: Any = type("Noted", (RealtimeCollaborationConsumer,), {name: noting(name) for name in names})
    document, people = await two()
    async with Client(document.name, people["ada"], consumer=noted) as ada:
        assert called == {"get_participants", "update_participants_cache", "broadcast_user_count"}
        ada.say(type="cursor_update", position=1)
        ada.say(type="presence_heartbeat")
        await ada.edit(base=0, delta=insert("x"))
        assert called == names
        await ada.until(lambda: bool(ada.of_type("user_count")))


async def test_valkey_away_stops_no_editing(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(participants, "_connection", away)
    monkeypatch.setattr("channels_redis.core.RedisChannelLayer.group_send", away)
    document, people = await two()
    async with Client(document.name, people["ada"]) as ada, Client(document.name, people["bob"]) as bob:
        await ada.edit(base=0, delta=insert("still here"))
        await bob.until(lambda: bob.content == "still here")
        await ada.until(lambda: ada.count == 2)
        ada.say(type="cursor_update", position=3)
        await bob.until(lambda: bool(bob.of_type("cursor_broadcast")))


async def test_values_in_maps_made_by_editors_are_edited_in_place() -> None:
    document, people = await two()

    def write() -> None:
        doc: Doc[Any] = Doc(client_id=82)
        doc["content"] = Map({"todo": Array(["a"])})
        append_update(write_session(document, actor=people["bob"], via=Via.API), doc.get_update())

    await sync_to_async(write)()
    async with Client(document.name, people["ada"]) as ada:
        await ada.edit(base=1, content={"todo": ["a", "b"]})
        await ada.until(lambda: ada.content == {"todo": ["a", "b"]})
        await ada.edit(base=1, content={"todo": ["c", "a"]})
        await ada.until(lambda: ada.content == {"todo": ["c", "a", "b"]})


def test_the_door_has_an_address() -> None:
    (door,) = (each for each in websocket_urlpatterns if "room_id" in str(each.pattern))
    for path in ("ws/rooms/a/b/", "ws/rooms/a/b"):  # no name ends with a slash
        found = door.resolve(path)
        assert found is not None
        assert found.kwargs == {"room_id": "a/b"}
    assert door.resolve("ws/rooms/") is None
