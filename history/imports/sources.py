"""What is read from other servers' stores: documents, and the updates of each in the order in which it was kept.

A reader changes nothing, opens nothing for writing and holds one update in memory. What it cannot read it gives out as
a `BadRow` with its place; whether to go on without is not its business."""

import hashlib
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeAlias

ROW_BYTES_MAX = 256 * 1024 * 1024
"""Of one update or state in a store; a larger one is not read into memory."""


class SourceError(Exception):
    """Raised where a source cannot be read at all: no such file, another format, a database that is away."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One update (v1), where it stands in its source, and when it was stored; None where nobody wrote that down."""

    place: str
    update: bytes
    at: datetime | None


@dataclass(frozen=True, slots=True)
class BadRow:
    """What cannot be read: where, and what is wrong with it."""

    place: str
    what: str


Row: TypeAlias = SourceRow | BadRow


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDocument:
    """One document of a source. `state` changes when what the source has of it does. `at` is the time of rows that have
    none and no timed one before them. `detail` is kept with what is imported: it names the source, without the folders
    that it lay in. `rows` reads them, anew at each call."""

    name: str
    state: str
    bytes: int
    at: datetime | None
    detail: Mapping[str, str | int]
    rows: Callable[[], Iterator[Row]]


class Source(Protocol):
    """A store that is open for reading. `kind` is the word for its format."""

    kind: str

    def count(self) -> int:
        """How many documents there are."""

    def documents(self) -> Iterator[SourceDocument]:
        """Raises: SourceError."""

    def close(self) -> None: ...


def moment_in(value: object) -> datetime | None:
    """A time as stores write it: seconds since 1970, or a text in ISO 8601, of UTC where it names no zone. None for
    what is no time."""
    try:
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def files_in(path: Path, suffix: str, *, magic: bytes | None = None) -> list[tuple[str, Path]]:
    """The files with this suffix, or that begin with `magic`, in a folder and those below it, each with its name: the
    way to it without the suffix, composed (NFC), as one file system writes it so and another otherwise. A file by
    itself is the only one.

    Raises: SourceError, also where there is none."""
    if path.is_file():
        return [(_composed(path.stem if path.suffix == suffix else path.name), path)]
    if not path.is_dir():
        raise SourceError(f"there is no file or folder {path}")
    found = [each for each in path.rglob("*") if each.is_file() and (each.suffix == suffix or _begins(each, magic))]
    if not found:
        raise SourceError(f"there are no {suffix} files in {path}")
    return sorted((_composed(each.relative_to(path).as_posix().removesuffix(suffix)), each) for each in found)


def _begins(path: Path, magic: bytes | None) -> bool:
    if magic is None:
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def changed_at(path: Path) -> datetime:
    """When a file was last written to."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def digest_of(path: Path) -> str:
    """What tells whether a file has changed. Raises: SourceError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
