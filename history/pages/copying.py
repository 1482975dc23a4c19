"""A copy of a moment as a new document of one's own; owners of the document may take its history along."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from documents.acts import address_of
from documents.forms import TitleForm
from documents.models import Document
from documents.opening import TITLE_LENGTH_MAX
from history.copies import Copy, copy_history, copy_moment
from history.pages.acting import form_key
from history.pages.frame import Frame, show_form
from history.parameters import request_key_in, seq_in
from history.problems import PROBLEMS, problem_of
from history.timeline import place_of


class CopyForm(TitleForm):
    history = forms.BooleanField(
        label="With its history",
        required=False,
        help_text="All that was ever written and deleted up to there, who wrote it, when and from where: "
        "whoever you share the copy with sees it.",
    )


def show_copy(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """Copy `?seq=`, the head without it."""
    values = request.POST if request.method == "POST" else request.GET
    title = f"Copy of {document.title}"[:TITLE_LENGTH_MAX]
    form = CopyForm(request.POST if request.method == "POST" else None, initial={"title": title})
    context: dict[str, Any] = {"form": form, "request_key": form_key(values)}
    try:
        place = context["place"] = place_of(document, seq=seq_in(values, "seq"))
        if request.method == "POST" and form.is_valid():
            return redirect(_copied(request, document, frame, form, seq=place.seq).document)
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    return show_form(request, document, frame, "history/copy.html", "Copy this moment", context)


def _copied(request: HttpRequest, document: Document, frame: Frame, form: CopyForm, *, seq: int) -> Copy:
    key = request_key_in(request.POST, act="copy")
    title = form.cleaned_data["title"]
    if form.cleaned_data["history"]:
        return copy_history(document, seq=seq, title=title, actor=request.user, request_key=key)
    return copy_moment(
        document,
        seq=seq,
        title=title,
        actor=request.user,
        via=frame.via,
        ip=address_of(request),
        user_agent=request.headers.get("User-Agent", ""),
        request_key=key,
    )
