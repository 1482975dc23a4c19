"""Which reader a source is given to."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from history.imports.compression import decompressor
from history.imports.hocuspocus import DEFAULT_TABLE, URL_PREFIXES, HocuspocusPostgres, HocuspocusSqlite
from history.imports.pycrdt_files import PycrdtFileStore
from history.imports.pycrdt_sqlite import MAGIC, PycrdtSqliteStore
from history.imports.sources import Source, SourceError, files_in
from history.imports.yjs_files import YjsFiles

FOREIGN_FORMATS = ("pycrdt", "yjs", "hocuspocus")
OWN_FORMAT = "palimpsest"
EXPORT_SUFFIX = ".jsonl"


def open_foreign(
    format_: str,
    where: str,
    *,
    compressed: str | None = None,
    table: str = DEFAULT_TABLE,
    time_column: str | None = None,
) -> Source:
    """The source of one of FOREIGN_FORMATS. Raises: SourceError."""
    if format_ == "hocuspocus" and where.startswith(URL_PREFIXES):
        return HocuspocusPostgres(where, table=table, time_column=time_column)
    path = Path(where)
    if not path.exists():
        raise SourceError(f"there is no file or folder {where}")
    if (path / "CURRENT").is_file() and any(path.glob("MANIFEST-*")):
        raise SourceError(
            f"{where} is a LevelDB folder, as y-leveldb keeps it, which is not read here: "
            "docs/importing.md has the lines of Node that make .yjs files of it"
        )
    if format_ == "hocuspocus":
        return HocuspocusSqlite(path, table=table, time_column=time_column)
    if format_ == "yjs":
        return YjsFiles(path)
    decompress = decompressor(compressed)
    return PycrdtSqliteStore(path, decompress) if _is_sqlite(path) else PycrdtFileStore(path, decompress)


@contextmanager
def open_exports(where: str) -> Iterator[tuple[int, Iterator[tuple[int, BinaryIO]]]]:
    """How many exports there are in a file, a folder or (`-`) on standard input, and each with its size in bytes, open
    until the next one is taken. Raises: SourceError."""
    if where == "-":
        yield 1, iter([(0, sys.stdin.buffer)])
        return
    files = [path for _, path in files_in(Path(where), EXPORT_SUFFIX)]
    with ExitStack() as stack:
        yield len(files), _opened(files, stack)


def _opened(files: list[Path], stack: ExitStack) -> Iterator[tuple[int, BinaryIO]]:
    for path in files:
        stack.close()
        try:
            yield path.stat().st_size, stack.enter_context(path.open("rb"))
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
