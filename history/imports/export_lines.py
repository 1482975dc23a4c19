"""An export of this project (`proof/exports.py`), read line by line and strictly: what stands there twice, in another
order, of another type or cut off is refused with the number of its line. What it says is proven by who asks."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NoReturn

from history.times import moment

FORMATS = ("palimpsest-document-1", "palimpsest-document-2")
STAGES = ("document", "session", "row", "version", "client", "request", "member", "end")
"""Kinds of lines in their order; the first and the last stand there once."""

LINE_OVERHEAD_BYTES_MAX = 64 * 1024
"""Of a line, beside a row's payload: browsers, details and notes are far shorter."""

INTEGER_MAX = (1 << 53) - 1
"""As large as a JavaScript number holds: no export has larger ones, and what counts on from there fits its column."""


class BadExport(ValueError):
    """Raised where an export is not what its format or its hashes say; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line = line
        self.what = what


@dataclass(frozen=True, slots=True)
class Line:
    """One line and its fields, each read as what it must be. All of these raise BadExport."""

    number: int
    kind: str
    fields: dict[str, Any]
    size: int

    def refuse(self, what: str) -> NoReturn:
        raise BadExport(self.number, what)

    def text(self, name: str, *, length_max: int, default: str | None = None) -> str:
        value = self.fields.get(name, default)
        if not isinstance(value, str) or len(value) > length_max or "\x00" in value or _has_half_a_character(value):
            self.refuse(f"{name} is no text of at most {length_max} characters")
        return value

    def integer(self, name: str, *, least: int = 0) -> int:
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= INTEGER_MAX:
            self.refuse(f"{name} is no whole number from {least} on")
        return value

    def flag(self, name: str) -> bool:
        value = self.fields.get(name)
        if not isinstance(value, bool):
            self.refuse(f"{name} is neither true nor false")
        return value

    def hex(self, name: str, *, lengths: tuple[int, ...], default: str | None = None) -> bytes:
        try:
            value = bytes.fromhex(self.text(name, length_max=2 * max(lengths), default=default))
        except ValueError:
            value = b""
        if len(value) not in lengths:
            self.refuse(f"{name} is not as many bytes in hex as it should be")
        return value

    def base64(self, name: str, *, bytes_max: int) -> bytes:
        value = self.fields.get(name)
        try:
            decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else None
        except ValueError:
            decoded = None
        if decoded is None:
            self.refuse(f"{name} is no base64")
        if len(decoded) > bytes_max:
            self.refuse(f"{name} is larger than UPDATE_BYTES_MAX")
        return decoded

    def at(self, name: str, *, now: datetime) -> datetime:
        """A moment that has come by now, as far as the clocks of two servers may differ."""
        try:
            value = moment(self.integer(name))
        except OverflowError:
            self.refuse(f"{name} is no time")
        if value > now + CLOCKS_APART_MAX:
            self.refuse(f"{name} has not come yet")
        return value

    def optional_at(self, name: str, *, now: datetime) -> datetime | None:
        return None if self.fields.get(name) is None else self.at(name, now=now)

    def object(self, name: str) -> dict[str, Any]:
        value = self.fields.get(name, {})
        if not isinstance(value, dict):
            self.refuse(f"{name} is no object")
        return value


CLOCKS_APART_MAX = timedelta(minutes=15)


def _has_half_a_character(text: str) -> bool:
    r"""As JSON can write one (`"\ud83d"`), which no database takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def lines_in(file: BinaryIO, *, payload_bytes_max: int) -> Iterator[Line]:
    """The lines of one export, in the order that they must have; the last one is its end.

    Raises: BadExport, OSError."""
    line_bytes_max = payload_bytes_max * 4 // 3 + LINE_OVERHEAD_BYTES_MAX
    stage = 0
    number = 0
    while data := file.readline(line_bytes_max + 1):
        number += 1
        if len(data) > line_bytes_max:
            raise BadExport(number, "it is longer than UPDATE_BYTES_MAX lets a row be")
        fields = _fields(data, number)
        kind = fields.get("line")
        place = STAGES.index(kind) if kind in STAGES else -1
        is_first = number == 1
        if place < stage or is_first != (kind == "document") or stage == len(STAGES) - 1:
            raise BadExport(number, "it is no line of an export" if is_first else "it has no place there")
        stage = place
        yield Line(number, STAGES[place], fields, len(data))
    if stage != len(STAGES) - 1:
        raise BadExport(number + 1, "the export is cut off: it has no end line")


def _fields(data: bytes, number: int) -> dict[str, Any]:
    try:
        fields = json.loads(data, object_pairs_hook=_said_once)
    except (ValueError, RecursionError):
        raise BadExport(number, "it is cut off, or no JSON that says each thing once") from None
    if not isinstance(fields, dict):
        raise BadExport(number, "it is no JSON object")
    return fields


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises: ValueError where a name comes twice: of such a line one reader takes the first and another the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name comes twice")
    return fields
