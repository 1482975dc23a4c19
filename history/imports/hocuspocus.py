"""What Hocuspocus keeps: a table of names and states, the one of @hocuspocus/extension-sqlite or, in Postgres, the one
that its extension-database's documentation describes. It keeps no times: a column may be named that has them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from history.imports.pycrdt_sqlite import UNREADABLE, open_read_only
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

DEFAULT_TABLE = "documents"
URL_PREFIXES = ("postgres://", "postgresql://")
NAMES_PER_FETCH = 1000
CONNECT_SECONDS = 10
READ_ONLY = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


class HocuspocusSqlite:
    """A file; a document is as old as it is, where no column says otherwise."""

    kind = "hocuspocus"

    def __init__(self, path: Path, *, table: str = DEFAULT_TABLE, time_column: str | None = None) -> None:
        """Raises: SourceError."""
        self._path = path
        self._connection = open_read_only(path, table)
        self._at = changed_at(path)
        self._table = _quoted(table)
        self._time = "NULL" if time_column is None else _quoted(time_column)

    def close(self) -> None:
        self._connection.close()

    def count(self) -> int:
        ((found,),) = self._execute(f"SELECT count(*) FROM {self._table}")
        return int(found)

    def documents(self) -> Iterator[SourceDocument]:
        for (name,) in self._each(f"SELECT name FROM {self._table} ORDER BY name"):
            row = self._row(name)
            yield _document(row, str(name), {"file": self._path.name, "document": str(name)}, partial(self._row, name))

    def _row(self, name: object) -> Row:
        # The newest one, as Hocuspocus itself takes it where a table of one's own lets a name come twice.
        found = self._execute(
            f"SELECT CASE WHEN length(data) <= ? THEN data END, {self._time} FROM {self._table}"
            " WHERE name = ? ORDER BY rowid DESC LIMIT 1",
            [ROW_BYTES_MAX, name],
        )
        data, at = found[0] if found else (None, None)
        return _row(str(name), data, moment_in(at) or self._at)

    def _execute(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return list(self._each(query, parameters))

    def _each(self, query: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Raises: SourceError."""
        try:
            yield from self._connection.execute(query, parameters)
        except UNREADABLE as error:
            raise SourceError(f"{self._path.name}: {error}") from error


class HocuspocusPostgres:
    """A table in another database (or this one). The password is best in PGPASSWORD or `~/.pgpass`, as for psql."""

    kind = "hocuspocus"

    def __init__(self, url: str, *, table: str = DEFAULT_TABLE, time_column: str | None = None) -> None:
        """Raises: SourceError."""
        try:
            self._connection = psycopg.connect(url, connect_timeout=CONNECT_SECONDS)
        except psycopg.Error as error:
            raise SourceError(f"the database cannot be read: {_words(error)}") from error
        self._connection.execute(READ_ONLY)
        self._name = table
        self._table = sql.Identifier(*table.split(".", 1))
        self._time = sql.SQL("NULL") if time_column is None else sql.Identifier(time_column)

    def close(self) -> None:
        self._connection.close()

    def count(self) -> int:
        (found,) = self._one(sql.SQL("SELECT count(*) FROM {}").format(self._table))
        return found if isinstance(found, int) else 0

    def documents(self) -> Iterator[SourceDocument]:
        names = sql.SQL("SELECT name FROM {} ORDER BY name").format(self._table)
        try:
            with self._connection.cursor(name="palimpsest_import") as cursor:
                cursor.itersize = NAMES_PER_FETCH
                cursor.execute(names)
                for (name,) in cursor:
                    detail = {"table": self._name, "document": str(name)}
                    yield _document(self._row(name), str(name), detail, partial(self._row, name))
        except psycopg.Error as error:
            raise SourceError(f"the table {self._name} cannot be read: {_words(error)}") from error

    def _row(self, name: object) -> Row:
        query = sql.SQL("SELECT CASE WHEN octet_length(data) <= %s THEN data END, {} FROM {} WHERE name = %s LIMIT 1")
        data, at = self._one(query.format(self._time, self._table), ROW_BYTES_MAX, name)
        return _row(str(name), data, moment_in(at))

    def _one(self, query: sql.Composed, *parameters: object) -> tuple[object, ...]:
        try:
            return self._connection.execute(query, parameters, binary=True).fetchone() or (None, None)
        except psycopg.Error as error:
            raise SourceError(f"the table {self._name} cannot be read: {_words(error)}") from error


def _document(row: Row, name: str, detail: Mapping[str, str | int], read: "partial[Row]") -> SourceDocument:
    update = row.update if isinstance(row, SourceRow) else b""
    return SourceDocument(
        name=name,
        state=hashlib.sha256(update).hexdigest(),
        bytes=len(update),
        at=None,
        detail=detail,
        rows=lambda: iter((read(),)),
    )


def _row(name: str, data: object, at: datetime | None) -> Row:
    place = f"the row of {name}"
    if not isinstance(data, bytes):
        return BadRow(place, "there are no bytes, or too many")
    return SourceRow(place, data, at)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _words(error: psycopg.Error) -> str:
    """What the server or libpq says, without the address and the account that were tried."""
    return error.diag.message_primary or type(error).__name__
