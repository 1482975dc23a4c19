"""What a request asks for, read strictly: seqs, times, cursors, and from where it came.

Every refusal is a `BadMoment` whose message tells how to write it; blank counts as not given."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeGuard

from django.http import HttpRequest

from documents.json_doors import REQUEST_BYTES_MAX, json_of
from history.crdt.places import Piece
from history.crdt.ranges import Span
from history.problems import BadMoment

SEQ_DIGITS_MAX = 18
"""A bigint holds every number of this many digits."""

SEQ_MAX = 10**SEQ_DIGITS_MAX - 1

REQUEST_KEY_LENGTH_MAX = 100

PATH_KEYS_MAX = 100
"""Keys of a path; shared types are nested no deeper."""

YEARS = range(1970, 9000)
"""Years outside leave no room for arithmetic and are a slip of the pen."""


@dataclass(frozen=True, slots=True)
class AskedMoment:
    """A seq, or a time, or neither for the head."""

    seq: int | None
    at: datetime | None


def asked_moment(values: Mapping[str, str], *, zone: tzinfo | None = None) -> AskedMoment:
    """Read `seq` or `at`. A time without an offset is in `zone` and means the whole of its second; without a
    zone it is refused.

    Raises: BadMoment."""
    asked = AskedMoment(seq_in(values, "seq"), time_in(values, "at", zone=zone))
    if asked.seq is not None and asked.at is not None:
        raise BadMoment("Give seq or at, not both.")
    return asked


def seq_in(values: Mapping[str, str], name: str) -> int | None:
    """Read a seq: a whole number from 0. Raises: BadMoment."""
    text = values.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= SEQ_DIGITS_MAX):
        raise BadMoment(f"{name} is a whole number from 0.")
    return int(text)


def pair_in(values: Mapping[str, str], name: str) -> tuple[int, int] | None:
    """Read two whole numbers with a point between them, as a cursor has. Raises: BadMoment."""
    text = values.get(name, "").strip()
    if not text:
        return None
    parts = text.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= SEQ_DIGITS_MAX for part in parts):
        raise BadMoment(f"{name} is what the page before it said.")
    return int(parts[0]), int(parts[1])


def count_in(values: Mapping[str, str], name: str, *, default: int, at_most: int) -> int:
    """Read a number of things, from 1. Raises: BadMoment."""
    count = seq_in(values, name)
    if count is None:
        return default
    if not 1 <= count <= at_most:
        raise BadMoment(f"{name} is a whole number from 1 to {at_most}.")
    return count


def flag_in(values: Mapping[str, str], name: str) -> bool:
    """Read a yes or no, written 1 or 0; no where it is not given. Raises: BadMoment."""
    text = values.get(name, "").strip()
    if text not in ("", "0", "1"):
        raise BadMoment(f"{name} is 0 or 1.")
    return text == "1"


def time_in(values: Mapping[str, str], name: str, *, zone: tzinfo | None = None) -> datetime | None:
    """Read a time in ISO 8601, as `asked_moment` does. Raises: BadMoment."""
    text = values.get(name, "").strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadMoment(f"{name} is a time such as 2025-01-31T14:00:00Z.") from None
    if moment.tzinfo is None:
        if zone is None:
            raise BadMoment(f"{name} is a time with its offset, such as 2025-01-31T14:00:00Z.")
        moment = through_its_second(moment.replace(tzinfo=zone))
    if moment.year not in YEARS:
        raise BadMoment(f"{name} is a time from {YEARS.start} on.")
    return moment.astimezone(UTC)


def through_its_second(moment: datetime) -> datetime:
    """The last microsecond of the second that a person named: forms show seconds, the log keeps microseconds."""
    return moment if moment.microsecond else moment.replace(microsecond=999_999)


def json_in(request: HttpRequest, *, example: str, bytes_max: int = REQUEST_BYTES_MAX) -> dict[str, Any]:
    """The object in a request's body, of at most `bytes_max`. Raises: BadMoment, whose words hold the example."""
    wrong = BadMoment(f"Send at most {bytes_max} bytes of JSON: {example}.")
    try:
        body = json_of(request, bytes_max=bytes_max)
    except ValueError:
        raise wrong from None
    if not isinstance(body, dict):
        raise wrong
    return body


def is_seq(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a seq that a bigint holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SEQ_MAX


def request_key_in(body: Mapping[str, Any], *, act: str) -> str | None:
    """Read `request_key`, which makes a second sending harmless; None without one. Each act has keys of its own.

    Raises: BadMoment."""
    key = body.get("request_key")
    if key is None:
        return None
    if not (isinstance(key, str) and 0 < len(key) <= REQUEST_KEY_LENGTH_MAX and key.isprintable()):
        raise BadMoment(f"request_key is a text of 1 to {REQUEST_KEY_LENGTH_MAX} printable characters.")
    return f"{act}:{key}"


def piece_in(body: Mapping[str, Any]) -> tuple[Piece | None, Span | None]:
    """Read `root`, `path` and `range`, a part of a document: a root, what is under a key of it, or a range of its text
    in UTF-16 units; None for all of it. Raises: BadMoment."""
    root, path, units = body.get("root"), body.get("path", []), body.get("range")
    if root is None and not path and units is None:
        return None, None
    if not isinstance(root, str) or not _is_path(path):
        raise BadMoment("root is the name of a root, path a list of keys in it.")
    if units is None:
        return Piece(root, tuple(path)), None
    is_range = isinstance(units, list) and len(units) == 2 and all(map(is_seq, units)) and units[0] < units[1]
    if not is_range or path:
        raise BadMoment("range is [from, to] of a root that is a text, in UTF-16 units, to not included.")
    return Piece(root), Span(*units)


def _is_path(path: object) -> bool:
    return isinstance(path, list) and len(path) <= PATH_KEYS_MAX and all(isinstance(key, str) for key in path)
