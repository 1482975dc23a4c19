"""A folder of `.yjs` files: each the state of one document (`Y.encodeStateAsUpdate(doc)`), as old as its file."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from history.imports.sources import (
    ROW_BYTES_MAX,
    BadRow,
    Row,
    SourceDocument,
    SourceRow,
    changed_at,
    digest_of,
    files_in,
)

SUFFIX = ".yjs"


class YjsFiles:
    """A folder of such files, or one of them."""

    kind = "yjs"

    def __init__(self, path: Path) -> None:
        """Raises: SourceError."""
        self._files = files_in(path, SUFFIX)

    def close(self) -> None:
        """Files are open while they are read alone."""

    def count(self) -> int:
        return len(self._files)

    def documents(self) -> Iterator[SourceDocument]:
        for name, path in self._files:
            yield SourceDocument(
                name=name,
                state=digest_of(path),
                bytes=path.stat().st_size,
                at=changed_at(path),
                detail={"file": path.name, "document": name},
                rows=partial(_rows, path),
            )


def _rows(path: Path) -> Iterator[Row]:
    try:
        status = path.stat()
        if status.st_size > ROW_BYTES_MAX:
            yield BadRow(path.name, "it is larger than may be read")
            return
        yield SourceRow(path.name, path.read_bytes(), changed_at(path))
    except OSError as error:
        yield BadRow(path.name, f"it cannot be read: {error.strerror}")
