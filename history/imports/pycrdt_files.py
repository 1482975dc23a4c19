"""pycrdt-store's and ypy-websocket's file store: one file for each document, often `<name>.y`.

Version 2: `VERSION:2\\n`, then over and over an update, metadata and 8 bytes of time, each with its length before it.
Before there was a version, updates with their metadata and no time, or updates alone."""

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from history.crdt.lib0 import Malformed
from history.crdt.updates import decode_update
from history.imports.compression import Decompress
from history.imports.sources import (
    ROW_BYTES_MAX,
    BadRow,
    Row,
    SourceDocument,
    SourceError,
    SourceRow,
    changed_at,
    digest_of,
    files_in,
    moment_in,
)

SUFFIX = ".y"
MAGIC = b"VERSION:"
VERSION_LINE_BYTES_MAX = 32
UPDATE, METADATA, TIME = "update", "metadata", "time"


class PycrdtFileStore:
    """A folder of such files, or one of them."""

    kind = "pycrdt-store files"

    def __init__(self, path: Path, decompress: Decompress) -> None:
        """Raises: SourceError."""
        self._files = files_in(path, SUFFIX, magic=MAGIC)
        self._decompress = decompress

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
                rows=partial(self._rows, path),
            )

    def _rows(self, path: Path) -> Iterator[Row]:
        try:
            with path.open("rb") as file:
                yield from rows_in(file, path.stat().st_size, self._decompress)
        except OSError as error:
            yield BadRow("the rest of the file", f"it cannot be read: {error.strerror}")


def rows_in(file: BinaryIO, size: int, decompress: Decompress) -> Iterator[Row]:
    """The updates of one file of `size` bytes. Behind a length that cannot be, nothing can be found again: that is the
    last row. Raises: OSError."""
    try:
        parts = _parts_of_record(file, size)
        while (start := file.tell()) < size:
            place = f"byte {start}"
            found: dict[str, bytes] = {}
            for part in parts:
                length = _length(file)
                if length > size - file.tell():
                    raise _CutOff(start)
                if part == METADATA or length > ROW_BYTES_MAX:
                    file.seek(length, 1)
                else:
                    found[part] = file.read(length)
            yield _read(place, found, decompress)
    except _CutOff as error:
        yield BadRow(f"byte {error.position}", "from here on it is cut off or damaged")
    except SourceError as error:
        yield BadRow("byte 0", str(error))


class _CutOff(Exception):
    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def _parts_of_record(file: BinaryIO, size: int) -> tuple[str, ...]:
    """What each record consists of; the file is then at its first one. Raises: SourceError, _CutOff."""
    if file.read(len(MAGIC)) == MAGIC:
        line = file.readline(VERSION_LINE_BYTES_MAX)
        if line.strip() != b"2":
            raise SourceError(f"it is of version {line.strip()[:20]!r}, which nobody has described yet")
        return UPDATE, METADATA, TIME
    file.seek(0)
    # Who wrote updates alone wrote another one here, and no metadata is one.
    is_second_one_an_update = False
    for _ in range(2):
        if file.tell() >= size:
            break
        start = file.tell()
        length = _length(file)
        if length > size - file.tell():
            raise _CutOff(start)
        is_second_one_an_update = _is_update(file.read(min(length, ROW_BYTES_MAX)))
    else:
        file.seek(0)
        return (UPDATE,) if is_second_one_an_update else (UPDATE, METADATA)
    file.seek(0)
    return (UPDATE,)


def _is_update(data: bytes) -> bool:
    try:
        decode_update(data)
    except Malformed:
        return False
    return True


def _length(file: BinaryIO) -> int:
    """A length as lib0 writes it (var_uint). Raises: _CutOff."""
    start = file.tell()
    value = shift = 0
    while shift <= 49:
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    raise _CutOff(start)


def _read(place: str, found: dict[str, bytes], decompress: Decompress) -> Row:
    if UPDATE not in found:
        return BadRow(place, "it is larger than may be read")
    time = found.get(TIME, b"")
    at = moment_in(struct.unpack("<d", time)[0]) if len(time) == 8 else None
    try:
        return SourceRow(place, decompress(found[UPDATE]), at)
    except ValueError as error:
        return BadRow(place, str(error))
