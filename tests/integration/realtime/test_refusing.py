"""What is refused holds up nobody but its sender, and costs no more than what is taken."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from pycrdt import Doc, Text, merge_updates
from pytest_django import Settings

from documents.models import Role
from history.crdt import idsets
from history.refusals import CLIENTS_NOTED_MAX, RefusedUpdate
from realtime.connections import Connection
from realtime.hub import Hub
from realtime.protocols.frames import encode_update
from tests.integration.realtime.rooms import eventually, rows_of, shared_document, stored, update_that_types
from tests.integration.realtime.sockets import Socket

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_a_reader_whose_refused_work_waits_holds_up_no_writer(
    settings: Settings, no_watch: None, hub: Hub
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "REFUSED_WAITING_BYTES_MAX": 100}
    one, viewers = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    other, people = await shared_document(cal=Role.OWNER)
    may_keep, keep = asyncio.Event(), hub.refusals._keep

    async def slowly(refused: Sequence[RefusedUpdate]) -> None:
        await may_keep.wait()
        await keep(refused)

    hub.refusals._keep = slowly
    async with Socket(one.name, user=viewers["eve"]) as eve, Socket(other.name, user=people["cal"]) as cal:
        await asyncio.gather(eve.until_synced(), cal.until_synced())
        eve.type("e" * 200)
        await eve.until(lambda: eve.denied == 1)
        eve.type("more")  # is not read before there is room
        for letter in "cab":
            cal.type(letter)
        await stored(hub, other, 1)
        await eventually(lambda: str(hub.rooms[other.pk].doc.get("text", type=Text)) == "bac")
        assert eve.denied == 1
        may_keep.set()
        await eve.until(lambda: eve.denied == 2)


async def test_an_error_that_nobody_foresaw_leaves_the_keeper_at_work(
    settings: Settings, no_watch: None, hub: Hub
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "REFUSED_WAITING_BYTES_MAX": 100}
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    keep = hub.refusals._keep

    async def fails_once(refused: Sequence[RefusedUpdate]) -> None:
        hub.refusals._keep = keep
        raise RuntimeError("unforeseen")

    hub.refusals._keep = fails_once
    async with Socket(document.name, user=people["eve"]) as eve:
        await eve.until_synced()
        eve.type("e" * 200)
        await eve.until(lambda: eve.closed == 1013)  # its client has it still
    async with asyncio.timeout(10):
        await hub.refusals.room_for_more()


async def test_who_answers_every_question_is_asked_as_often_as_need_be(
    no_watch: None, hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ASKS_MAX": 2}
    document, people = await shared_document(ada=Role.OWNER)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        for number in range(6):
            ada.root.insert(0, "x")  # not sent: the server has to ask for it
            ada.type("y")
            await eventually(lambda seq=number: ada.denied or hub.rooms[document.pk].seq > seq)  # type: ignore[misc]
        assert ada.denied == 0


async def test_what_a_reader_deletes_again_is_read_once_for_a_whole_frame(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every client sends all deletions that it knows when it comes, and a document may have very many."""
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    editor: Doc[Any] = Doc(client_id=9)
    text = editor.get("text", type=Text)
    text.insert(0, "x" * 400)
    with editor.transaction():
        for place in range(200, 0, -1):
            del text[2 * place - 1 : 2 * place]
    reads: list[int] = []
    read = idsets.delete_set_in

    def counted(encoded: bytes) -> Any:
        reads.append(len(encoded))
        return read(encoded)

    monkeypatch.setattr("realtime.rooms.delete_set_in", counted)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        ada.send(encode_update(editor.get_update()))
        await eve.until(lambda: len(eve.text) == 200)
        reads.clear()
        eve.send(encode_update(b"\0\1\x09\1\1\1") * 200)
        eve.type("heard")
        await eve.until(lambda: eve.denied == 1)
    assert len(reads) == 1
    assert len(await rows_of(document)) == 1


async def test_nothing_of_a_frame_is_done_once_its_socket_was_closed(no_watch: None, hub: Hub) -> None:
    """A state that is shown after its owner has gone would stay until it expires."""
    document, people = await shared_document(ada=Role.OWNER, eve=Role.VIEWER)
    async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["eve"]) as eve:
        await asyncio.gather(ada.until_synced(), eve.until_synced())
        room = hub.rooms[document.pk]
        (gone,) = [each for each in room.members if each.session.user == people["eve"]]
        gone.leave()
        eve.show(7, 1, '{"user": {}}')
        eve.type("late")
        ada.show(8, 1, '{"user": {}}')
        await ada.until(lambda: 8 in ada.shown)
        assert 7 not in ada.shown


async def test_what_nobody_foresaw_is_logged_without_what_it_says(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    document, people = await shared_document(ada=Role.OWNER)

    async def broken(connection: Connection, frame: bytes) -> None:
        raise KeyError("what somebody wrote")

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        monkeypatch.setattr(Connection, "receive", broken)
        with caplog.at_level(logging.ERROR):
            ada.type("a")
            await ada.until(lambda: ada.closed == 1013)
    (logged,) = [record.getMessage() for record in caplog.records if record.name == "realtime.closing"]
    assert "KeyError" in logged
    assert "in broken" in logged
    assert "what somebody wrote" not in logged.replace('raise KeyError("what somebody wrote")', "")


async def test_who_was_refused_and_why_is_logged_without_what_they_wrote(
    no_watch: None, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR, eve=Role.VIEWER)
    many = range(1000, 1000 + CLIENTS_NOTED_MAX + 1)
    async with (
        Socket(document.name, user=people["ada"]) as ada,
        Socket(document.name, user=people["bob"]) as bob,
        Socket(document.name, user=people["eve"]) as eve,
    ):
        await asyncio.gather(ada.until_synced(), bob.until_synced(), eve.until_synced())
        ada.send(encode_update(merge_updates(*(update_that_types("a", client_id=client) for client in many))))
        await stored(hub, document, 1)
        with caplog.at_level(logging.INFO, logger="realtime.connections"):
            eve.type("offline work")
            await eve.until(lambda: eve.denied == 1)
            (eves,) = caplog.messages
            bob.send(encode_update(merge_updates(*(update_that_types("forgery", client_id=id_) for id_ in many))))
            await bob.until(lambda: bob.denied == 1)
            _, bobs = caplog.messages
        sessions = {each.session.user: each.session.id for each in hub.rooms[document.pk].members}
    told = "update refused: document={} session={} reason={} clients={}"
    assert eves == told.format(document.pk, sessions[people["eve"]], "NOT_ALLOWED", [])
    assert bobs == told.format(document.pk, sessions[people["bob"]], "NOT_YOURS", list(many[:CLIENTS_NOTED_MAX]))


async def test_a_question_whose_answer_is_late_is_asked_again_and_nothing_refused(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    monkeypatch.setattr("realtime.connections.ASK_AGAIN_SECONDS", 0.0)
    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.root.insert(0, "x")  # not sent
        ada.reads.clear()  # and no question is read
        ada.type("y")
        ada.type("z")
        (connection,) = hub.rooms[document.pk].members
        await eventually(lambda: len(connection.outbox._waiting) >= 1)
        ada.reads.set()
        await eventually(lambda: str(hub.rooms[document.pk].doc.get("text", type=Text)) == "zyx")
        assert ada.denied == 0
