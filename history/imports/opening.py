"""Which reader a source is given to."""

from pathlib import Path

from history.imports.compression import decompressor
from history.imports.hocuspocus import DEFAULT_TABLE, URL_PREFIXES, HocuspocusPostgres, HocuspocusSqlite
from history.imports.pycrdt_files import PycrdtFileStore
from history.imports.pycrdt_sqlite import MAGIC, PycrdtSqliteStore
from history.imports.sources import Source, SourceError
from history.imports.yjs_files import YjsFiles

FORMATS = ("pycrdt", "yjs", "hocuspocus")


def open_foreign(
    format_: str,
    where: str,
    *,
    compressed: str | None = None,
    table: str = DEFAULT_TABLE,
    time_column: str | None = None,
) -> Source:
    """The source of one of FORMATS. Raises: SourceError."""
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


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
