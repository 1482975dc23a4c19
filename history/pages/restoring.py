"""Restore in the history pages: GET shows what would come of it, POST does it. The whole document, or a part of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from documents.models import Document
from history.crdt.places import Piece
from history.crdt.ranges import Span
from history.heavy_reads import heavy_read
from history.pages.acting import form_key, session_of
from history.pages.frame import Frame, show_page
from history.pages.previewing import preview_of
from history.parameters import SEQ_MAX, piece_in, request_key_in, seq_in
from history.problems import PROBLEMS, BadMoment, problem_of
from history.timeline import moment_of
from history.undoing import plan_restore
from history.writes import restore

ROOT = "root:"
"""Begins the value of a root in the form: a root may have the empty name, which is not the whole document."""


class PartForm(forms.Form):
    """Which part of the document to restore; all of it where nothing is chosen."""

    root = forms.CharField(label="Part", required=False, strip=False, widget=forms.Select)
    path = forms.CharField(
        label="Key",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 1, "spellcheck": "false", "autocapitalize": "none"}),
        help_text="Of a map, to restore that key alone. One in a map within it: each key on a line of its own.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["from"] = _Units(label="From character")
        self.fields["to"] = _Units(
            label="To character",
            help_text="Of a text, to restore that range of it alone; counted from 0 as it was at that moment.",
        )

    def offer(self, roots: set[str]) -> None:
        choices = [
            ("", "The whole document"),
            *((f"{ROOT}{name}", name or "(without a name)") for name in sorted(roots)),
        ]
        self.fields["root"].widget = forms.Select(choices=choices)

    def part(self) -> tuple[Piece | None, Span | None]:
        """Raises: BadMoment."""
        if not self.is_valid():
            raise BadMoment("This part cannot be read; see below.")
        said = self.cleaned_data
        if not said["root"].startswith(ROOT):
            return None, None
        units = None if said["from"] is None and said["to"] is None else [said["from"], said["to"]]
        path = said["path"].replace("\r\n", "\n").split("\n") if said["path"] else []
        return piece_in({"root": said["root"].removeprefix(ROOT), "path": path, "range": units})


class _Units(forms.IntegerField):
    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, min_value=0, max_value=SEQ_MAX, **options)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be restored: all of seq `seq`, or a part of it."""

    seq: int
    piece: Piece | None
    span: Span | None

    @property
    def said(self) -> str:
        """What becomes what it was, for a sentence."""
        if self.piece is None:
            return "The document"
        if self.span is not None:
            return f"“{self.piece.root}”, from character {self.span.start} to {self.span.stop},"
        return f"“{' › '.join([self.piece.root, *self.piece.path])}”"


def show_restore(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """`?seq=`, and for a part of the document `root`, `path`, `from`, `to`. Appends one forward update."""
    values = request.POST if request.method == "POST" else request.GET
    form = PartForm(values)
    context: dict[str, Any] = {"form": form, "request_key": form_key(values)}
    wanted: Wanted | None = None
    try:
        wanted = Wanted(_seq_in(values), *form.part())
        if request.method == "POST":
            return _restored(request, document, frame, wanted)
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    try:
        moment = context["moment"] = moment_of(document, _seq_in(values))
        form.offer({*moment.content})
        if wanted is not None:
            context |= _previewed(document, form, wanted)
    except PROBLEMS as error:
        context.setdefault("problem", problem_of(error))
    return show_page(request, document, frame, "history/restore.html", f"Restore “{document.title}”?", context)


def _seq_in(values: Mapping[str, str]) -> int:
    seq = seq_in(values, "seq")
    if seq is None:
        raise BadMoment("Say which moment to restore: seq is missing.")
    return seq


@heavy_read()
def _previewed(document: Document, form: PartForm, wanted: Wanted) -> dict[str, Any]:
    plan = plan_restore(document.pk, wanted.seq, piece=wanted.piece, span=wanted.span)
    if plan.taken_back is not None:
        form.offer({*plan.taken_back.kinds})
    return {"wanted": wanted, "preview": preview_of(document, plan)}


def _restored(request: HttpRequest, document: Document, frame: Frame, wanted: Wanted) -> HttpResponse:
    key = request_key_in(request.POST, act="restore")
    session = session_of(request, document, frame)
    stored = restore(session, wanted.seq, piece=wanted.piece, span=wanted.span, request_key=key)
    if stored is None:
        what = "the document" if wanted.piece is None else wanted.said
        messages.info(request, f"It is that already: {what} says what it said at seq {wanted.seq}. Nothing was added.")
        return redirect(frame.home_url)
    what = "Restored" if wanted.piece is None else f"Restored {wanted.said}"
    messages.success(request, f"{what} to seq {wanted.seq} as seq {stored.seq}.")
    return redirect(f"{frame.home_url}?{urlencode({'seq': stored.seq})}")
