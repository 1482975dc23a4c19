"""Opening a long document: a recorded editing session is put into the log edit by edit, then opened, cold and warm.

The trace is a gzipped JSON file with `edits`, a list of [position, deleted, inserted…] (automerge-perf's format)."""

import asyncio
import gzip
import json
import os
import statistics
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import connection
from django.utils import timezone
from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect

from config.stack.web import WebWorkers
from documents.models import Document
from history.append import append
from history.fates import PendingUpdate
from history.folds import compact
from history.models import Head, Snapshot, Via
from history.sessions import WriteSession

ROWS_PER_APPEND = 1000
OPENINGS = 20
"""Openings of a room that is warm, for each process."""
EMPTY_SYNC_STEP_1 = b"\x00\x00\x01\x00"
SYNC_STEP_2 = b"\x00\x01"


def updates_of(trace: Path) -> Iterator[bytes]:
    """The trace's edits as Yjs updates, one for each edit, of one client with the text root `content`."""
    recorded: Any = json.loads(gzip.decompress(trace.read_bytes()))
    edits = recorded["edits"] if isinstance(recorded, dict) else recorded
    doc: Doc[Any] = Doc(client_id=1)
    text = doc.get("content", type=Text)
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    for position, deleted, *inserted in edits:
        with doc.transaction():
            if deleted:
                del text[position : position + deleted]
            if inserted:
                text.insert(position, "".join(inserted))
        yield from emitted
        emitted.clear()
    doc.unobserve(subscription)


def load(trace: Path) -> Document:
    """Append every edit as an update of its own."""
    document = Document.objects.create(name=f"trace-{uuid.uuid4().hex}", title="Editing trace", open_to_all=True)
    session = WriteSession(
        document_id=document.pk, user=None, via=Via.IMPORT, opened_at=timezone.now(), requires_role=False
    )
    updates = list(updates_of(trace))
    started = time.perf_counter()
    for start in range(0, len(updates), ROWS_PER_APPEND):
        append([PendingUpdate(session=session, payload=update) for update in updates[start : start + ROWS_PER_APPEND]])
    seconds = time.perf_counter() - started
    print(f"appended {len(updates):,} updates in {seconds:.1f} s, {len(updates) / seconds:,.0f} a second")
    return document


def relation_bytes(*tables: str) -> int:
    """What these tables take on disk, with their indexes and what lies out of line."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) name", [list(tables)]
        )
        return int(cursor.fetchone()[0])


async def open_once(url: str) -> tuple[float, float, int]:
    """Seconds from the start of connecting, and from the open socket, to SyncStep2; and its bytes."""
    started = time.perf_counter()
    async with connect(url, compression=None, max_size=None) as socket:
        opened = time.perf_counter()
        await socket.send(EMPTY_SYNC_STEP_1)
        size = await _until_sync_step_2(socket)
        ended = time.perf_counter()
    return ended - started, ended - opened, size


async def _until_sync_step_2(socket: ClientConnection) -> int:
    async for message in socket:
        if isinstance(message, bytes) and message.startswith(SYNC_STEP_2):
            return len(message)
    raise ConnectionError("the socket ended without a SyncStep2")


def environment() -> dict[str, str]:
    return {**os.environ, "OPEN_ROOMS": "true", "OPEN_ROOMS_IN_PRODUCTION": "true"}


def run(trace: Path, *, processes: int = 5) -> None:
    """Load, compact and open; `processes` are started one after another for cold openings."""
    document = load(trace)
    started = time.perf_counter()
    compact(document.pk)
    print(f"first compaction (whole log): {(time.perf_counter() - started) * 1e3:.0f} ms")
    snapshots = Snapshot.objects.filter(document_id=document.pk)
    sizes = [(len(each.state), len(each.full_state)) for each in snapshots]
    print(f"snapshots: {len(sizes)}, bytes packed (gc'd, full): {sizes}")
    _report_disk(Head.objects.get(document_id=document.pk).seq)
    cold, warm = [], []
    for _ in range(processes):
        with WebWorkers(environment(), count=1) as workers:
            url = f"ws://127.0.0.1:{workers.port}/ws/{document.name}"
            cold.append(asyncio.run(open_once(url)))
            warm += [asyncio.run(open_once(url)) for _ in range(OPENINGS)]
    _report("cold process", cold)
    _report("warm room", warm)


def _report_disk(updates: int) -> None:
    """On services of their own the tables hold this document alone."""
    log, snapshots = relation_bytes("history_update"), relation_bytes("history_snapshot")
    print(
        f"bytes in Postgres, indexes included: {log + snapshots:,} = log {log:,} + snapshots {snapshots:,}; "
        f"{(log + snapshots) / updates:.1f} an update, {log / updates:.1f} of them in the log"
    )


def _report(name: str, openings: list[tuple[float, float, int]]) -> None:
    whole = statistics.median(each[0] for each in openings) * 1e3
    after = statistics.median(each[1] for each in openings) * 1e3
    print(
        f"{name}: first SyncStep2 ({openings[0][2]:,} bytes) {whole:.1f} ms after connecting began, "
        f"{after:.1f} ms after the socket was open (medians of {len(openings)})"
    )
