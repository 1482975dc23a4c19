"""The same editing kept by others that keep everything: a Yjs document that collects nothing, and pycrdt-store.

Each opens moments of the past as its own documentation says; nothing of it goes through this server."""

import asyncio
import json
import random
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycrdt import Doc, Text

from tests.clients.driver import install_packages, node_binary

YJS = Path(__file__).resolve().parent.parent / "tests/clients/keeping_everything.mjs"
NODE_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes on disk, and milliseconds for each moment that was opened."""

    bytes: int
    opened_ms: list[float]
    note: str


def in_yjs(updates: Sequence[bytes], moments: Sequence[int]) -> Kept:
    """One document with `gc: false`, stored as one update. A moment that was not marked with a snapshot while it was
    the present cannot be opened at all: these are marked, and their bytes counted."""
    install_packages()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "updates")
        log.write_bytes(b"".join(len(update).to_bytes(4, "little") + update for update in updates))
        asked = json.dumps({"log": str(log), "moments": sorted(moments)})
        done = subprocess.run(
            [str(node_binary()), str(YJS)],
            input=asked,
            capture_output=True,
            text=True,
            check=True,
            timeout=NODE_SECONDS,
        )
    said: dict[str, Any] = json.loads(done.stdout)
    note = f"each of the {len(moments)} marks takes {said['snapshot_bytes'] // len(moments):,} bytes more"
    return Kept(bytes=said["state_bytes"], opened_ms=said["opened_ms"], note=note)


def in_pycrdt_store(updates: Sequence[bytes], moments: Sequence[int]) -> Kept | None:
    """Its SQLite store, which keeps each update with a time; None where it is not installed.

    The rows are put in by one statement, not by its `write`, which would take a commit and sometimes a checkpoint for
    each; they are read by its `read`."""
    try:
        from pycrdt.store import SQLiteYStore
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.db")
        store = type("Store", (SQLiteYStore,), {"db_path": str(path)})
        opened = asyncio.run(_opened_in_store(store, path, updates, moments))
        return Kept(
            bytes=path.stat().st_size, opened_ms=opened, note="without checkpoints, which serve the present only"
        )


async def _opened_in_store(
    store_type: Any, path: Path, updates: Sequence[bytes], moments: Sequence[int]
) -> list[float]:
    async with store_type("document") as store:
        await store.write(updates[0])
        with sqlite3.connect(path) as database:
            started = time.time()
            rows = ((update, b"", started + place) for place, update in enumerate(updates[1:], 1))
            database.executemany("INSERT INTO yupdates VALUES ('document', ?, ?, ?)", rows)
        database.close()
        return [await _open_in_store(store, moment) for moment in moments]


async def _open_in_store(store: Any, moment: int) -> float:
    started = time.perf_counter()
    doc: Doc[Any] = Doc()
    place = 0
    async for update, _, _ in store.read():  # to its end: it has fetched all rows, and holds a lock until then
        place += 1
        if place <= moment:
            doc.apply_update(update)
    str(doc.get("content", type=Text))
    return (time.perf_counter() - started) * 1e3


def some(moments: Sequence[int], count: int) -> list[int]:
    """A few of the moments: others take seconds for each."""
    return sorted(random.Random(1).sample(list(moments), min(count, len(moments))))
