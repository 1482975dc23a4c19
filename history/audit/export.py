"""The audit as a file: CSV for spreadsheets, JSON Lines for programs, written as it is read.

A million lines take no more memory than a thousand: some hundred lines at a time are read, written and forgotten."""

import csv
import io
import json
from collections.abc import Callable, Generator, Iterator
from datetime import UTC
from itertools import islice
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse

from history.audit.trail import TrailFilter, TrailLine, trail
from history.streaming import streamed

LINES_PER_CHUNK = 500

COLUMNS = (
    "at",
    "what",
    "who",
    "user",
    "document",
    "title",
    "room",
    "door",
    "ip",
    "first_seq",
    "last_seq",
    "updates",
    "bytes",
    "entry",
    "member",
    "detail",
)
"""`user` is the account's key, `document` the document's; seqs are of edits, `entry` is the place of an act in the
audit of its document, `member` whom it is about."""

STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for a formula, or strips before it looks for one."""


def export_response(request: HttpRequest, wanted: TrailFilter, *, form: str, name: str) -> StreamingHttpResponse:
    """All lines of the filter as a download, the newest first; `form` is one of FORMS. A read that fails on the way
    breaks the download off, so that half of it does not pass for all."""
    content_type, encode = FORMS[form]
    response = streamed(request, encode(trail(wanted)), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    response["Cache-Control"] = "private, no-store"
    return response


def csv_chunks(lines: Iterator[TrailLine]) -> Generator[bytes]:
    """RFC 4180, UTF-8, with a row of names. No cell begins as a formula does: those are put behind an apostrophe."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    yield _emptied(buffer)
    while page := list(islice(lines, LINES_PER_CHUNK)):
        for line in page:
            record = record_of(line)
            detail = record["detail"]
            record["detail"] = "" if not detail else json.dumps(detail, ensure_ascii=False)
            writer.writerow(_harmless(record[column]) for column in COLUMNS)
        yield _emptied(buffer)


def jsonl_chunks(lines: Iterator[TrailLine]) -> Generator[bytes]:
    """One JSON object on each line, UTF-8, with the columns as names and null where there is nothing."""
    while page := list(islice(lines, LINES_PER_CHUNK)):
        yield "".join(json.dumps(record_of(line), ensure_ascii=False) + "\n" for line in page).encode()


def record_of(line: TrailLine) -> dict[str, Any]:
    """A line by its columns, in JSON's types; None where there is nothing. Also what the API answers with."""
    run, document = line.run, line.document
    return {
        "at": line.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "what": line.what.value,
        "who": line.author.name if line.author.is_known else None,
        "user": None if line.user is None else str(line.user.pk),
        "document": None if document is None else str(document.key),
        "title": None if document is None else document.title,
        "room": None if document is None else document.name,
        "door": None if line.via is None else line.via.label,
        "ip": line.ip,
        "first_seq": None if run is None else run.first_seq,
        "last_seq": None if run is None else run.last_seq,
        "updates": None if run is None else run.updates,
        "bytes": None if run is None else run.bytes,
        "entry": line.entry,
        "member": line.member,
        "detail": line.detail,
    }


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(STARTS_A_FORMULA) else cell


def _emptied(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()


FORMS: dict[str, tuple[str, Callable[[Iterator[TrailLine]], Generator[bytes]]]] = {
    "csv": ("text/csv; charset=utf-8", csv_chunks),
    "jsonl": ("application/jsonl", jsonl_chunks),
}
"""Content type and writer of each form."""
