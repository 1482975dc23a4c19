"""Which threads a socket's work needs: none for a frame that asks no database, never the one that Django shares."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from pytest_django import Settings

from documents.conf import conf
from documents.models import Role
from realtime.hub import Hub
from realtime.protocols.awareness import AwarenessEntry
from realtime.protocols.frames import encode_awareness, encode_sync_step1
from tests.integration.realtime.rooms import shared_document, stored
from tests.integration.realtime.signing_in import execute
from tests.integration.realtime.sockets import Socket

ADVISORY_LOCK = 7_201_554

pytestmark = [pytest.mark.django_db(transaction=True)]


async def test_frames_that_ask_no_database_are_taken_without_a_thread(
    no_watch: None, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, people = await shared_document(ada=Role.OWNER)
    submitted: list[object] = []
    submit = ThreadPoolExecutor.submit

    def counted(executor: ThreadPoolExecutor, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        submitted.append(work)
        return submit(executor, work, *args, **kwargs)

    async with Socket(document.name, user=people["ada"]) as ada:
        await ada.until_synced()
        ada.show(5, 0, "{}")
        await ada.until(lambda: ada.state_of(5) is not None)  # by now the channel layer is connected
        monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
        for number in range(1, 51):
            ada.send(encode_sync_step1(ada.doc.get_state()))
            ada.send(encode_awareness([AwarenessEntry(5, number, f'{{"at":{number}}}')]))
        await ada.until(lambda: (ada.state_of(5) or {}).get("at") == 50)
        monkeypatch.undo()
    assert submitted == []


async def test_rooms_open_and_edits_are_stored_while_djangos_shared_thread_is_held(no_watch: None, hub: Hub) -> None:
    document, people = await shared_document(ada=Role.OWNER, bob=Role.EDITOR)
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        may_go.wait()

    holding = asyncio.create_task(sync_to_async(hold, thread_sensitive=True)())
    try:
        while not is_held.is_set():
            await asyncio.sleep(0)
        async with Socket(document.name, user=people["ada"]) as ada, Socket(document.name, user=people["bob"]) as bob:
            await asyncio.gather(ada.until_synced(), bob.until_synced())
            ada.type("stored")
            await stored(hub, document, 1)
            await bob.until(lambda: bob.text == "stored")
            assert not holding.done()
    finally:
        may_go.set()
        await holding


async def test_all_threads_are_there_before_anyone_comes(no_watch: None, hub: Hub) -> None:
    await hub.warm_up()
    threads = set(threading.enumerate())
    together = threading.Barrier(conf().compute_threads + conf().load_threads)
    computes = [hub.compute(together.wait, 10) for _ in range(conf().compute_threads)]
    loads = [hub.load(together.wait, 10) for _ in range(conf().load_threads)]
    await asyncio.gather(*computes, *loads)
    assert set(threading.enumerate()) <= threads


async def test_reads_that_the_database_does_not_answer_are_cut_and_their_threads_read_again(
    no_watch: None, hub: Hub, settings: Settings
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "LOAD_SECONDS_MAX": 0.2}
    await sync_to_async(execute)("SELECT pg_advisory_lock(%s)", ADVISORY_LOCK)
    try:
        reads = [
            hub.load(execute, "SELECT pg_advisory_lock_shared(%s)", ADVISORY_LOCK) for _ in range(conf().load_threads)
        ]
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*reads, return_exceptions=True)
            assert [type(end) for end in ends] == [OperationalError] * len(reads)
            await asyncio.gather(*(hub.load(execute, "SELECT 1") for _ in reads))
    finally:
        await sync_to_async(execute)("SELECT pg_advisory_unlock(%s)", ADVISORY_LOCK)
