"""Restore in the history pages: GET asks whether to restore `?seq=`, POST does it."""

import secrets
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from documents.acts import address_of
from documents.models import Document
from history.pages.frame import Frame, show_page
from history.parameters import seq_in
from history.problems import PROBLEMS, BadMoment, problem_of
from history.timeline import moment_of
from history.writes import restore, write_session

REQUEST_KEY_LENGTH_MAX = 64


def show_restore(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """Ask first, then append one forward update."""
    values = request.POST if request.method == "POST" else request.GET
    context: dict[str, Any] = {}
    try:
        seq = seq_in(values, "seq")
        if seq is None:
            raise BadMoment("Say which moment to restore: seq is missing.")
        if request.method == "POST":
            return _restored(request, document, frame, seq)
        context = {"moment": moment_of(document, seq), "request_key": secrets.token_hex(16)}
    except PROBLEMS as error:
        context = {"problem": problem_of(error)}
    return show_page(request, document, frame, "history/restore.html", f"Restore “{document.title}”?", context)


def _restored(request: HttpRequest, document: Document, frame: Frame, seq: int) -> HttpResponse:
    session = write_session(
        document,
        actor=request.user,
        via=frame.via,
        ip=address_of(request),
        user_agent=request.headers.get("User-Agent", ""),
    )
    # The key comes from the confirmation, so that a form sent twice restores once.
    key = request.POST.get("request_key", "")
    is_key = key.isascii() and key.isalnum() and len(key) <= REQUEST_KEY_LENGTH_MAX
    stored = restore(session, seq, request_key=f"restore-page:{key}" if is_key else None)
    if stored is None:
        messages.info(request, f"It is that already: the document says what it said at seq {seq}. Nothing was added.")
        return redirect(frame.home_url)
    messages.success(request, f"Restored to seq {seq} as seq {stored.seq}.")
    return redirect(f"{frame.home_url}?{urlencode({'seq': stored.seq})}")
