"""pycrdt-store's and ypy-websocket's SQLite store: one file, the updates of all documents in the table `yupdates`.

Version 2 keeps seconds since 1970, the one before it texts. Newer ones keep checkpoints too, gc'd states: of a store
whose older rows were thrown away a checkpoint is all there is of them, so that each is read in its place."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from history.imports.compression import Decompress
from history.imports.sources import (
    ROW_BYTES_MAX,
    BadRow,
    Row,
    SourceDocument,
    SourceError,
    SourceRow,
    changed_at,
    moment_in,
)

MAGIC = b"SQLite format 3\x00"
UNREADABLE = (sqlite3.Error, UnicodeError)
"""What a damaged database raises; its own words may be no text."""

VERSIONS = (0, 1, 2)
"""`user_version` of the database; before there were versions it was 0."""

# The index on (path, timestamp) gives this order: nothing is sorted. Those of one time are in the order of writing.
ROWS = """
SELECT rowid, CASE WHEN length(yupdate) <= ? THEN yupdate END, timestamp FROM yupdates
WHERE path = ? ORDER BY timestamp, rowid
"""
DOCUMENTS = """
SELECT path, count(*), coalesce(sum(length(yupdate)), 0), max(timestamp), max(rowid) FROM yupdates
GROUP BY path ORDER BY path
"""
# No view: a stranger's may go on for ever, and nothing interrupts SQLite.
CHECKPOINTS = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'ycheckpoints'"
CHECKPOINT = "SELECT CASE WHEN length(checkpoint) <= ? THEN checkpoint END, timestamp FROM ycheckpoints WHERE path = ?"


def open_read_only(path: Path, table: str) -> sqlite3.Connection:
    """A connection that writes nothing. Raises: SourceError where it is no database with this table."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
    except UNREADABLE as error:
        raise SourceError(f"{path.name} cannot be read as an SQLite database: {error}") from error
    try:
        # A name that is no text is one that no room can have, which is said of it by itself.
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table]).fetchone()
    except UNREADABLE as error:
        connection.close()
        raise SourceError(f"{path.name} cannot be read as an SQLite database: {error}") from error
    if found is None:
        connection.close()
        raise SourceError(f"{path.name} has no table {table}")
    return connection


class PycrdtSqliteStore:
    """A store in one file. Whatever writes to it is best stopped meanwhile."""

    kind = "pycrdt-store"

    def __init__(self, path: Path, decompress: Decompress) -> None:
        """Raises: SourceError."""
        self._path = path
        self._decompress = decompress
        self._connection = open_read_only(path, "yupdates")
        ((self._version,),) = self._all("PRAGMA user_version")
        if self._version not in VERSIONS:
            self.close()
            raise SourceError(f"{path.name} is of version {self._version}, which nobody has described yet")
        self._has_checkpoints = bool(self._all(CHECKPOINTS))

    def close(self) -> None:
        self._connection.close()

    def count(self) -> int:
        ((found,),) = self._all("SELECT count(DISTINCT path) FROM yupdates")
        return int(found)

    def documents(self) -> Iterator[SourceDocument]:
        for path, count, bytes_, last, rowid in self._each(DOCUMENTS):
            yield SourceDocument(
                name=str(path),
                state=f"{count} {bytes_} {last} {rowid}",
                bytes=bytes_,
                at=changed_at(self._path),
                detail={"file": self._path.name, "document": str(path), "version": self._version},
                rows=partial(self._rows, path),
            )

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        """Raises: SourceError."""
        return list(self._each(query))

    def _each(self, query: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection.execute(query)
        except UNREADABLE as error:
            raise SourceError(f"{self._path.name}: {error}") from error

    def _rows(self, path: object) -> Iterator[Row]:
        checkpoint, checked_at = self._checkpoint(path)
        with closing(self._connection.cursor()) as cursor:
            try:
                cursor.execute(ROWS, [ROW_BYTES_MAX, path])
                for rowid, update, timestamp in cursor:
                    if checkpoint is not None and _is_before(checked_at, timestamp):
                        yield checkpoint
                        checkpoint = None
                    yield self._read(f"rowid {rowid}", update, timestamp)
            except UNREADABLE as error:
                yield BadRow("the rest of its rows", f"the file is damaged: {error}")
        if checkpoint is not None:
            yield checkpoint

    def _checkpoint(self, path: object) -> tuple[Row | None, object]:
        """It has what was written before its time, but not what was at its time."""
        if not self._has_checkpoints:
            return None, None
        try:
            found = self._connection.execute(CHECKPOINT, [ROW_BYTES_MAX, path]).fetchone()
        except UNREADABLE as error:
            return BadRow("its checkpoint", f"the file is damaged: {error}"), None
        return (None, None) if found is None else (self._read("its checkpoint", *found), found[1])

    def _read(self, place: str, update: object, timestamp: object) -> Row:
        if not isinstance(update, bytes):
            return BadRow(place, "there are no bytes, or too many")
        try:
            return SourceRow(place, self._decompress(update), moment_in(timestamp))
        except ValueError as error:
            return BadRow(place, str(error))


def _is_before(checkpoint: object, timestamp: object) -> bool:
    if isinstance(checkpoint, (int, float)) and isinstance(timestamp, (int, float)):
        return checkpoint <= timestamp
    return False
