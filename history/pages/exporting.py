"""A document's whole history as a file, for its owners: to keep, to move, or to prove elsewhere."""

from collections.abc import Generator

from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.text import slugify

from documents.conf import conf
from documents.models import Document
from history.audit.entries import record
from history.log import consistent_read
from history.models import Action
from history.pages.frame import Frame, show_page
from history.proof.exports import export_document
from history.streaming import streamed

CHUNK_CHARACTERS = 64 * 1024
"""What is sent at once; lines are ASCII. One line more, of a large update, may be on top."""

FILE_NAME_LENGTH_MAX = 60


def show_export(request: HttpRequest, document: Document, frame: Frame) -> HttpResponseBase:
    """GET says what the file holds, POST gives it out (`pseudonymous` without who and from where)."""
    if request.method != "POST":
        return show_page(request, document, frame, "history/export.html", f"Export “{document.title}”", {})
    pseudonymous = "pseudonymous" in request.POST
    record(Action.EXPORTED, document=document, detail={"of": "history", "pseudonymous": pseudonymous})
    chunks = chunks_of(document.pk, pseudonymous=pseudonymous)
    response = streamed(request, chunks, content_type="application/jsonl")
    name = slugify(document.title)[:FILE_NAME_LENGTH_MAX] or "document"
    response["Content-Disposition"] = f'attachment; filename="{name}-{timezone.now():%Y-%m-%d}.jsonl"'
    return response


def chunks_of(document_id: int, *, pseudonymous: bool) -> Generator[bytes]:
    """An export that fails on the way breaks the download off: without its last line it is known not to be whole. The
    database ends one whose reader stalls under a server that does not."""
    with consistent_read():
        with connection.cursor() as cursor:
            wait = f"{int(conf().stalled_reader_seconds * 1000)}ms"
            cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [wait])
        lines: list[str] = []
        characters = 0
        for line in export_document(document_id, pseudonymous=pseudonymous):
            lines.append(line)
            characters += len(line)
            if characters >= CHUNK_CHARACTERS:
                yield "".join(lines).encode()
                lines, characters = [], 0
        yield "".join(lines).encode()
