"""The main job inside somebody else's Django project (`tests/host_project`): its users, its rule, its addresses, its
servers. What is told at once comes by the channel layer: the watch looks only every ten minutes."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from pycrdt import Doc, Text
from websockets.asyncio.client import connect

from history.models import Kind, Via
from tests.clients.driver import Client, NodeClients
from tests.integration.running_host import FASTER, Browser, Host, running_host

IDA, JON, EVE, KIT, CHIEF = (f"{name}@paper.example" for name in ("ida", "jon", "eve", "kit", "chief"))
ARTICLES = [f"news/article {number} é" for number in range(20)]
NOTES = {"notes": "plain-notes", "old_notes": "older-notes"}
"""By the module of a consumer that was written for another server, a room name that can be a group's as it is."""
PRESS = 4711
"""The advisory lock that the host's `correct` takes before its transaction ends."""

_fresh = iter(ARTICLES)
_numbers = count()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with running_host(tmp_path_factory.mktemp("newsroom"), *ARTICLES, *NOTES.values()) as running:
        yield running


@pytest.fixture
def article() -> str:
    """The room name of an article that no other test writes."""
    return next(_fresh)


@pytest.fixture
async def node() -> AsyncIterator[NodeClients]:
    async with NodeClients() as running:
        yield running


async def at_desk(
    node: NodeClients, host: Host, email: str, article: str, *, place: int = 0, door: str = "paper/ws"
) -> Client:
    """A stock editor on web process `place`, let in by the host's own middleware."""
    client = await node.open(
        f"{email} {next(_numbers)}",
        url=host.socket_url(place, door),
        room=article,
        headers={"X-Press-Card": f"card-of-{email}"},
        max_backoff_ms=200,
    )
    await client.wait_synced()
    return client


def edit(text: str) -> dict[str, str]:
    """The form field `update`: what a fresh document with `text` emits, in hex."""
    doc: Doc[Any] = Doc()
    doc.get("t", type=Text).insert(0, text)
    return {"update": doc.get_update().hex()}


TWO_EDITS = [edit("of nobody")["update"], edit("of somebody")["update"]]


def desk(article: str, act: str) -> str:
    return f"/desk/{quote(article)}/{act}/"


def authors(host: Host, article: str) -> list[tuple[Any, ...]]:
    """Author, `via` and kind of each row of the log, in the order of seqs."""
    return host.rows(
        """
        SELECT coalesce(person.email, ''), session.via, update.kind
        FROM history_update update
        JOIN documents_document document ON document.id = update.document_id AND document.name = %s
        JOIN history_session session ON session.document_id = document.id AND session.id = update.session_id
        LEFT JOIN newsroom_person person ON person.number = session.user_id
        ORDER BY update.seq
        """,
        article,
    )


def heard(host: Host, article: str) -> list[tuple[Any, ...]]:
    """What `document_changed` told the host: seqs and actors."""
    return host.rows("SELECT seq, actor FROM newsroom_heard WHERE document_name = %s ORDER BY seq", article)


async def test_two_people_type_together_through_two_web_processes_and_each_row_has_its_author(
    host: Host, node: NodeClients, article: str
) -> None:
    ida = await at_desk(node, host, IDA, article, place=0)
    jon = await at_desk(node, host, JON, article, place=1)

    await asyncio.gather(ida.type("from the scene, ", interval_ms=2), jon.type("at the desk, ", interval_ms=2))
    await node.converged(ida, jon)

    rows = authors(host, article)
    assert {(email, via) for email, via, _ in rows} == {(IDA, 1), (JON, 1)}
    host.wait_for(
        "the host has heard of the last edit", lambda: [seq for seq, _ in heard(host, article)][-1:] == [len(rows)]
    )
    assert all(rows[seq - 1][0] == actor for seq, actor in heard(host, article))


async def test_a_kill_of_all_web_processes_loses_nothing_that_another_client_had_seen(
    host: Host, node: NodeClients, article: str
) -> None:
    ida = await at_desk(node, host, IDA, article, place=0)
    jon = await at_desk(node, host, JON, article, place=1)
    typing = asyncio.create_task(ida.type("x" * 400, interval_ms=3))
    await jon.watch("x" * 40)

    for place in (0, 1):
        assert host.end_web(place, signal.SIGKILL) == -signal.SIGKILL
    seen = await jon.seen()
    await ida.destroy()
    await jon.destroy()
    await typing
    host.start_web(0)
    host.start_web(1, FASTER)
    host.wait_until_served(0)
    host.wait_until_served(1)

    eyes = await at_desk(node, host, IDA, article, place=0)
    assert (await eyes.seen()).startswith(seen)
    other = await at_desk(node, host, JON, article, place=1)
    await other.type(" and on", interval_ms=1)
    await eyes.watch(" and on")


async def test_an_edit_of_the_hosts_view_is_seen_after_the_commit_of_its_request_and_not_before(
    host: Host, node: NodeClients, article: str
) -> None:
    jon = await at_desk(node, host, JON, article, place=1)
    browser = Browser(host, IDA)
    with ThreadPoolExecutor(1) as pool:
        host.rows("SELECT pg_advisory_lock(%s)", PRESS)
        try:
            answer = pool.submit(browser.post, desk(article, "correct"), **edit("corrected"))
            host.wait_for(
                "the view waits before its commit",
                lambda: bool(host.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")),
            )
            late = await at_desk(node, host, JON, article, place=1)
            assert [await late.seen(), await jon.seen(), heard(host, article)] == ["", "", []]
        finally:
            host.rows("SELECT pg_advisory_unlock(%s)", PRESS)
        await jon.watch("corrected")
        assert json.loads(answer.result()[2]) == {"seq": 1}
    assert authors(host, article) == [(IDA, 3, 2)]
    host.wait_for("the host has heard", lambda: heard(host, article) == [(1, IDA)])


async def test_an_edit_of_a_request_that_fails_is_nowhere(host: Host, node: NodeClients, article: str) -> None:
    jon = await at_desk(node, host, JON, article, place=1)
    browser = Browser(host, IDA)

    failed, _, _ = await asyncio.to_thread(browser.post, desk(article, "correct"), spike="yes", **edit("spiked"))
    taken, _, _ = await asyncio.to_thread(browser.post, desk(article, "correct"), **edit("printed"))
    await jon.watch("printed")

    assert (failed, taken) == (500, 200)
    assert await jon.seen() == "printed"
    assert [len(authors(host, article)), heard(host, article)] == [1, [(1, IDA)]]


async def test_a_task_of_the_hosts_celery_worker_reaches_open_editors_under_its_authors_name(
    host: Host, node: NodeClients, article: str
) -> None:
    jon = await at_desk(node, host, JON, article)

    status, _, _ = await asyncio.to_thread(Browser(host, IDA).post, desk(article, "wire"), **edit("by wire"))

    assert status == 202
    await jon.watch("by wire")
    assert authors(host, article) == [(IDA, 5, 2)]
    host.wait_for("the host has heard", lambda: heard(host, article) == [(1, IDA)])


async def test_a_restore_in_the_hosts_view_or_on_the_history_page_is_seen_live_and_appends_one_row(
    host: Host, node: NodeClients, article: str
) -> None:
    ida = await at_desk(node, host, IDA, article, place=0)
    jon = await at_desk(node, host, JON, article, place=1)
    await ida.edit({"root": "t", "do": "insert", "index": 0, "text": "the first edition"})
    await jon.watch("the first edition")
    then = len(authors(host, article))
    await jon.edit({"root": "t", "do": "delete", "index": 4, "length": 5})
    await ida.watch("the  edition")

    status, _, answer = await asyncio.to_thread(Browser(host, JON).post, desk(article, f"back-to/{then}"))

    await ida.watch("the first edition")
    await jon.watch("the first edition")
    assert (status, json.loads(answer)["seq"]) == (200, len(authors(host, article)))
    assert authors(host, article)[-1] == (JON, 3, 3)

    browser = await asyncio.to_thread(Browser, host, IDA)
    ((key,),) = host.rows("SELECT key FROM documents_document WHERE name = %s", article)
    await asyncio.to_thread(browser.post, f"/paper/d/{key}/history/restore/", seq=str(then + 1))
    await jon.watch("the  edition")
    assert len(authors(host, article)) == then + 3
    assert authors(host, article)[-1] == (IDA, 8, 3)


@pytest.mark.parametrize("module", NOTES)
async def test_a_consumer_of_another_server_runs_in_two_processes_with_its_import_changed(
    host: Host, node: NodeClients, module: str
) -> None:
    room, door = NOTES[module], module.replace("_", "-")
    people = ((IDA, 0), (JON, 0), (IDA, 1), (KIT, 1))
    editors = [await at_desk(node, host, email, room, place=place, door=door) for email, place in people]
    await editors[0].type("typed ")
    for each in editors:
        await each.watch("typed ")
    counted = [await each.update_messages() for each in editors]

    sent = f"from newsroom.{module} import send_doc_update\n" + (
        f"for _ in range(2): send_doc_update('{room}', bytes.fromhex('{edit('from the shell')['update']}'))\n"
        f"send_doc_update('{room}', bytes.fromhex('{edit('!')['update']}'))"
    )
    done = host.manage("shell", "--no-imports", "-c", sent)
    assert done.returncode == 0, done.stderr
    for each in editors:
        await each.watch("from the shell")
        await each.watch("!")
    await node.converged(*editors)
    assert [await each.update_messages() - before for each, before in zip(editors, counted, strict=True)] == [2] * 4
    assert authors(host, room)[-2:] == [("", Via.CHANNEL, Kind.EDIT)] * 2
    assert {email for email, via, _ in authors(host, room) if via != Via.CHANNEL} == {IDA}

    for each in editors:
        await each.destroy()
    reader = await at_desk(node, host, JON, room, place=1)
    assert "from the shell" in await reader.seen()
    nobody = await node.open(f"nobody {module}", url=host.socket_url(0, door), room=room)
    await nobody.wait_event("close")
    assert [event for event in await nobody.events() if event["kind"] == "sync"] == []
    await nobody.destroy()


async def test_an_open_editor_is_told_at_once_that_the_hosts_rule_lets_it_read_only(
    host: Host, node: NodeClients, article: str
) -> None:
    ida = await at_desk(node, host, IDA, article, place=1)
    await ida.type("in time")
    host.wait_for("it is stored", lambda: bool(authors(host, article)))

    await asyncio.to_thread(Browser(host, JON).post, desk(article, "print"))
    await ida.wait_event("denied")
    stored = len(authors(host, article))
    denied = len(await ida.events())
    await ida.type("too late")
    await ida.wait_event("denied", after=denied)

    assert len(authors(host, article)) == stored
    assert not [event for event in await ida.events() if event["kind"] == "closed"]


async def test_an_open_editor_is_closed_at_once_when_the_hosts_rule_shuts_it_out(
    host: Host, node: NodeClients, article: str
) -> None:
    ida = await at_desk(node, host, IDA, article, place=1)

    await asyncio.to_thread(Browser(host, JON).post, desk(article, "move"), desk="sport")

    await ida.wait_event("closed", code=4403)
    eve = await at_desk(node, host, EVE, article)
    await eve.type("goal")
    host.wait_for("it is stored", lambda: {email for email, _, _ in authors(host, article)} == {EVE})


async def test_an_open_editor_is_closed_at_once_when_what_the_rule_reads_in_the_account_has_changed(
    host: Host, node: NodeClients, article: str
) -> None:
    kit = await at_desk(node, host, KIT, article, place=1)
    jon = await at_desk(node, host, JON, article, place=1)

    await asyncio.to_thread(Browser(host, JON).post, desk(article, "transfer"), person=KIT, desk="sport")

    await kit.wait_event("closed", code=4403)
    await jon.type("still here")
    host.wait_for("it is stored", lambda: {email for email, _, _ in authors(host, article)} == {JON})


async def test_every_page_opens_below_the_hosts_prefixes_and_links_to_nothing_else(
    host: Host, node: NodeClients, article: str
) -> None:
    ida = await at_desk(node, host, IDA, article)
    await ida.type("words to read")
    host.wait_for("it is stored", lambda: bool(authors(host, article)))
    ((key,),) = host.rows("SELECT key FROM documents_document WHERE name = %s", article)
    browser = await asyncio.to_thread(Browser, host, IDA)

    status, _, page = browser.get(f"/paper/d/{key}/")
    assert status == 200
    room_url = json.loads(re.search(r'id="page-room-url"[^>]*>([^<]+)<', page)[1])  # type: ignore[index]
    assert room_url == "/live/paper/ws/" + quote(article)
    pages = ["/paper/", f"/paper/d/{key}/", f"/paper/d/{key}/history/", "/paper/documents/new/"]
    links = {link for path in pages for link in browser.links(path) if not link.startswith(("#", "?"))}
    assert f"/paper/d/{key}/" in links
    assert [link for link in links if not link.startswith(("/paper/", "/assets/", "/back-office/"))] == []
    assert [path for path in pages if browser.get(path)[0] != 200] == []
    assert browser.get(f"/paper/d/{key}/history/")[2].count(IDA) > 0
    _, door, words = Browser(host).get(f"/paper/d/{key}/")
    assert door.endswith(f"/desk/enter/?next=/paper/d/{key}/") and "The newsroom's own door" in words
    assert Browser(host, EVE).get(f"/paper/d/{key}/")[0] == 404
    assert Browser(host, EVE).get(f"/paper/d/{key}/history/")[0] == 404


def test_the_history_opens_where_an_account_and_nobody_wrote_as_much_as_each_other(host: Host, article: str) -> None:
    each = f"for actor in (Person.objects.get(email='{IDA}'), None):"
    code = (
        "from documents.models import Document; from history.models import Via; from newsroom.models import Person\n"
        "from history.writes import append_update, write_session\n"
        f"document = Document.objects.get(name='{article}'); updates = [bytes.fromhex(each) for each in {TWO_EDITS}]\n"
        f"{each}\n    append_update(write_session(document, actor=actor, via=Via.API), updates.pop())\n"
    )
    written = host.manage("shell", "--no-imports", "-c", code)
    assert written.returncode == 0, written.stderr
    ((key,),) = host.rows("SELECT key FROM documents_document WHERE name = %s", article)
    status, _, page = Browser(host, IDA).get(f"/paper/d/{key}/history/")
    assert (status, "no account" in page) == (200, True)


async def test_the_admin_opens_with_people_that_have_no_user_name(host: Host, article: str) -> None:
    ((pk,),) = host.rows("SELECT id FROM documents_document WHERE name = %s", article)
    chief = Browser(host, CHIEF)
    office = "/back-office/documents/document/"
    pages = [office, f"{office}?q=article", f"{office}{pk}/change/", f"{office}add/", f"{office}{pk}/delete/"]
    past = "/back-office/history/"
    pages += [
        "/back-office/documents/chore/",
        f"{past}documenthistory/",
        f"{past}documenthistory/{pk}/change/",
        f"{past}edit/?user={quote(IDA)}",
    ]
    assert {path: chief.get(path)[0] for path in pages} == dict.fromkeys(pages, 200), host.log("web0")


async def test_a_ticket_of_the_hosts_session_opens_the_socket_where_the_host_put_it(
    host: Host, node: NodeClients, article: str
) -> None:
    browser = await asyncio.to_thread(Browser, host, IDA)

    status, _, answer = browser.post("/paper/api/v1/tickets", json.dumps({"document": article}).encode())

    ticket = json.loads(answer)
    assert (status, ticket["expires_in_seconds"]) == (201, 77)
    assert ticket["url"] == "/live/paper/ws/" + quote(article)
    client = await node.open("with a ticket", url=host.socket_url(), room=article, params={"ticket": ticket["ticket"]})
    await client.wait_synced()
    await client.type("by ticket")
    host.wait_for("it is stored", lambda: {email for email, _, _ in authors(host, article)} == {IDA})


@pytest.mark.parametrize("installed", [{}, {"NEWSROOM_WITHOUT_ADMIN": "1"}], ids=["with admin", "without admin"])
def test_no_migration_is_due_whatever_the_hosts_default_key_type_and_apps(
    host: Host, installed: dict[str, str]
) -> None:
    migrations = host.manage("makemigrations", "--check", "--dry-run", **installed)
    assert (migrations.returncode, migrations.stdout) == (0, "No changes detected\n"), migrations.stderr


def test_the_hosts_celery_knows_every_task_of_its_schedule(host: Host) -> None:
    code = (
        "from newsroom.celery import app; app.loader.import_default_modules()\n"
        "print({entry['task'] for entry in app.conf.beat_schedule.values()} - set(app.tasks))"
    )
    tasks = host.manage("shell", "--no-imports", "-c", code)
    assert (tasks.returncode, tasks.stdout) == (0, "set()\n"), tasks.stderr


def test_a_worker_of_the_hosts_takes_from_every_queue_that_our_tasks_stand_in(host: Host) -> None:
    code = (
        "from newsroom.celery import app; app.loader.import_default_modules()\n"
        "(taken,) = app.control.inspect(timeout=5).active_queues().values()\n"
        "ours = [name for name in app.tasks if name.partition('.')[0] in ('documents', 'history', 'realtime')]\n"
        "stand = {app.amqp.router.route({}, name)['queue'].name for name in ours}\n"
        "print(len(ours) > 10, len(stand), stand - {queue['name'] for queue in taken})"
    )
    told = host.manage("shell", "--no-imports", "-c", code)
    assert (told.returncode, told.stdout) == (0, "True 7 set()\n"), told.stderr


def test_a_misspelt_setting_is_refused_by_check(host: Host) -> None:
    refused = host.manage("check", NEWSROOM_PALIMPSEST='{"TICKET_SECONDZ": 5}')
    assert refused.returncode != 0
    assert "TICKET_SECONDZ" in refused.stderr and "documents.E001" in refused.stderr


def test_a_web_process_that_is_told_to_end_ends_without_a_complaint(host: Host) -> None:
    before = len(host.log("web0"))
    assert host.end_web(0) in (0, -signal.SIGTERM)
    assert "Traceback" not in host.log("web0")[before:]
    host.start_web(0)
    host.wait_until_served(0)


TELL = """
from realtime.notifications.sending import send_message_to_group, send_notification_to_user
send_notification_to_user({number!r}, "The press is waiting.")
send_message_to_group({article!r}, "@IDA@paper.example, @eve@paper.example: the press is waiting.")
"""


async def test_people_with_uuids_for_keys_and_addresses_for_names_are_told_where_the_rule_lets_them_see(
    host: Host, article: str
) -> None:
    ((number,),) = host.rows("SELECT number::text FROM newsroom_person WHERE email = %s", IDA)
    card = {"X-Press-Card": f"card-of-{IDA}"}
    async with (
        asyncio.timeout(20),
        connect(f"{host.socket_url(1)}/notifications/", additional_headers=card, proxy=None) as ida,
    ):
        assert json.loads(await ida.recv())["type"] == "connection_established"
        told = await asyncio.to_thread(host.manage, "shell", "-c", TELL.format(number=number, article=article))
        assert told.returncode == 0, told.stderr
        first, second = [json.loads(await ida.recv())["message"] for _ in range(2)]
    assert first == "The press is waiting."
    assert (second["kind"], second["room"]) == ("mentioned", article)
    query = "SELECT count(*) FROM realtime_notification JOIN newsroom_person ON number = user_id WHERE email = %s"
    assert host.rows(query, EVE) == [(0,)], "Eve is of another desk"


async def test_people_of_the_hosts_own_kind_chat_through_two_web_processes_until_the_rule_shuts_them_out(
    host: Host, article: str
) -> None:
    def chat(email: str, *, place: int) -> connect:
        card = {"X-Press-Card": f"card-of-{email}"}
        return connect(f"{host.socket_url(place)}/chat/{quote(article)}/?after=0", additional_headers=card, proxy=None)

    async with asyncio.timeout(20), chat(IDA, place=0) as ida, chat(JON, place=1) as jon:
        await ida.send(json.dumps({"message": "is it é?"}))
        said = [json.loads(await each.recv()) for each in (ida, jon)]
        assert said[0] == said[1]
        ((number,),) = host.rows("SELECT number::text FROM newsroom_person WHERE email = %s", IDA)
        assert (said[0]["message"], said[0]["author"]) == ("is it é?", {"user_id": number, "username": IDA})
        async with chat(EVE, place=1) as eve:
            await eve.wait_closed()
            assert eve.close_code == 4404
        await asyncio.to_thread(Browser(host, JON).post, desk(article, "move"), desk="sport")
        for each in (ida, jon):
            await each.wait_closed()
            assert each.close_code == 4403
