"""Stores of other servers for tests: written by pycrdt-store itself, or with the very statements of the others."""

import json
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import anyio
from pycrdt.store import FileYStore, SQLiteYStore

from history.crdt.lib0 import var_uint

HOCUSPOCUS_SCHEMA = """CREATE TABLE IF NOT EXISTS "documents" (
  "name" varchar(255) NOT NULL,
  "data" blob NOT NULL,
  UNIQUE(name)
)"""
HOCUSPOCUS_UPSERT = """
  INSERT INTO "documents" ("name", "data") VALUES ($name, $data)
    ON CONFLICT(name) DO UPDATE SET data = $data
"""
"""Both as in @hocuspocus/extension-sqlite, src/SQLite.ts."""

BEGIN = datetime(2023, 4, 5, 6, 7, 8, 250_000, tzinfo=UTC)


def times(count: int, *, gap: float = 1.5) -> list[float]:
    return [BEGIN.timestamp() + gap * number for number in range(count)]


def write_sqlite(
    db_path: Path,
    documents: dict[str, Sequence[bytes]],
    *,
    compression: tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]] | None = None,
    gap: float = 1.5,
    **settings: object,
) -> None:
    """What SQLiteYStore writes for these updates, at the times of `times`; `settings` are attributes of the store."""
    store_class = type("Store", (SQLiteYStore,), {"db_path": str(db_path), **settings})

    async def write() -> None:
        for path, updates in documents.items():
            async with store_class(path, metadata_callback=lambda: b'{"who": "x"}') as store:
                if compression is not None:
                    store.register_compression_callbacks(*compression)
                await store.db_initialized.wait()
                for update, now in zip(updates, times(len(updates), gap=gap), strict=True):
                    with mock.patch.object(time, "time", lambda now=now: now):
                        await store.write(update)

    anyio.run(write)


def write_file(path: Path, updates: Sequence[bytes]) -> None:
    """What FileYStore writes for these updates, at the times of `times`."""

    async def write() -> None:
        async with FileYStore(str(path), metadata_callback=lambda: b'{"who": "x"}') as store:
            for update, now in zip(updates, times(len(updates)), strict=True):
                with mock.patch.object(time, "time", lambda now=now: now):
                    await store.write(update)

    anyio.run(write)


def write_sqlite_1(db_path: Path, documents: dict[str, Sequence[bytes]]) -> None:
    """As ypy-websocket wrote it before there was a version: times as texts, no index, `user_version` 0."""
    with closing(sqlite3.connect(db_path)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS yupdates (path TEXT, yupdate BLOB, metadata BLOB, timestamp TEXT)")
        for path, updates in documents.items():
            for update, at in zip(updates, times(len(updates)), strict=True):
                said = datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(" ")
                db.execute("INSERT INTO yupdates VALUES (?, ?, ?, ?)", (path, update, b"", said))


def framed(*parts: bytes) -> bytes:
    return b"".join(var_uint(len(part)) + part for part in parts)


def file_of_version_1(updates: Iterable[bytes], *, metadata: bool) -> bytes:
    """As ypy-websocket wrote files before there was a version; the first ones without metadata."""
    return b"".join(framed(update, json.dumps({"a": 1}).encode()) if metadata else framed(update) for update in updates)


def record_of_version_2(update: bytes, at: float) -> bytes:
    return framed(update, b"", struct.pack("<d", at))


def write_hocuspocus(db_path: Path, documents: dict[str, bytes]) -> None:
    with closing(sqlite3.connect(db_path)) as db, db:
        db.execute(HOCUSPOCUS_SCHEMA)
        for name, data in documents.items():
            db.execute(HOCUSPOCUS_UPSERT, {"name": name, "data": data})
