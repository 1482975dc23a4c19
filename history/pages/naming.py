"""A document's versions in the history pages: the list, and each act on a version."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from documents.models import Document
from history.models import VERSION_NAME_LENGTH_MAX, VERSION_NOTE_LENGTH_MAX, Version
from history.pages.frame import Frame, show_form, show_page
from history.parameters import pair_in, seq_in
from history.problems import PROBLEMS, BadMoment, Problem, problem_of
from history.timeline import place_of
from history.versions import (
    VERSIONS_PER_PAGE,
    VersionCursor,
    VersionLine,
    VersionNameTaken,
    change_version,
    clean_name,
    clean_note,
    delete_version,
    name_version,
    version_line,
    version_page,
)


class NameForm(forms.Form):
    """What people call a moment; the acts check it again."""

    name = forms.CharField(max_length=VERSION_NAME_LENGTH_MAX, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    note = forms.CharField(max_length=VERSION_NOTE_LENGTH_MAX, required=False, widget=forms.Textarea(attrs={"rows": 3}))

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        return clean_name(name) if name else ""

    def clean_note(self) -> str:
        return clean_note(self.cleaned_data["note"])


def show_versions(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """The list, the last moment first; `?before=` pages it. `?from=&to=` compares two, in any order."""
    try:
        seqs = seq_in(request.GET, "from"), seq_in(request.GET, "to")
    except BadMoment as error:
        return _list(request, document, frame, problem=problem_of(error))
    if None in seqs:
        return _list(request, document, frame)
    first, last = sorted(seq for seq in seqs if seq is not None)
    return redirect(f"{frame.home_url}?{urlencode({'seq': last, 'show': 'compare', 'from': first})}")


def _list(request: HttpRequest, document: Document, frame: Frame, *, problem: Problem | None = None) -> HttpResponse:
    context: dict[str, Any] = {"problem": problem, "head_seq": place_of(document).head_seq}
    try:
        before = pair_in(request.GET, "before")
        cursor = None if before is None else VersionCursor(*before)
        page = context["page"] = version_page(document, cursor=cursor, limit=VERSIONS_PER_PAGE)
        context["is_first_page"] = before is None
        context["compared"] = _compared([line for line in page.lines if not line.is_beyond], context["head_seq"])
    except PROBLEMS as error:
        context["problem"] = problem or problem_of(error)
    return show_page(request, document, frame, "history/versions.html", f"Versions of “{document.title}”", context)


def _compared(lines: Sequence[VersionLine], head_seq: int) -> int | None:
    """The version that is chosen to begin with: the last one that is not what the document says now anyway."""
    return next((line.version.id for line in lines if line.version.seq < head_seq), None)


def show_name(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """Name `?seq=`, the head without it."""
    values = request.POST if request.method == "POST" else request.GET
    form = NameForm(request.POST if request.method == "POST" else None)
    context: dict[str, Any] = {"form": form}
    try:
        place = context["place"] = place_of(document, seq=seq_in(values, "seq"))
        if request.method == "POST" and form.is_valid():
            line = _named(request, document, form.cleaned_data, seq=place.seq)
            messages.success(request, f"Seq {line.version.seq} is “{line.version.name}” now.")
            return redirect(frame.urls["versions"])
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    return show_form(request, document, frame, "history/name.html", "Name this moment", context)


def _named(request: HttpRequest, document: Document, said: Mapping[str, str], *, seq: int) -> VersionLine:
    try:
        return name_version(document, name=said["name"], note=said["note"], seq=seq, actor=request.user)
    except VersionNameTaken:
        # A form that is sent twice names once: the second time finds what the first has made.
        mine = Version.objects.filter(document=document, seq=seq, created_by=request.user.pk, automatic=False)
        made = mine.filter(name=said["name"], note=said["note"]).first()
        if made is None:
            raise
        return version_line(document, made.id)


def show_version(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """Give `?version=` another name or note."""
    context: dict[str, Any] = {}
    try:
        line = context["line"] = version_line(document, _version_in(request))
        form = context["form"] = NameForm(
            request.POST if request.method == "POST" else None,
            initial={"name": line.version.name, "note": line.version.note},
        )
        form.fields["name"].required = not line.version.automatic
        if request.method == "POST" and form.is_valid():
            name, note = form.cleaned_data["name"] or None, form.cleaned_data["note"]
            change_version(document, line.version.id, name=name, note=note, actor=request.user)
            messages.success(request, "Saved.")
            return redirect(frame.urls["versions"])
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    return show_form(request, document, frame, "history/version.html", "Name and note", context)


def lock_version(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """POST `version` and `locked` (1 or 0)."""
    try:
        locked = request.POST.get("locked") == "1"
        version = change_version(document, _version_in(request), locked=locked, actor=request.user).version
    except PROBLEMS as error:
        return _list(request, document, frame, problem=problem_of(error))
    what = f"“{version.name}”" if version.name else f"The version of seq {version.seq}"
    messages.success(request, f"{what} is locked." if locked else f"{what} is no longer locked.")
    return redirect(frame.urls["versions"])


def show_forget(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """Ask whether to delete `?version=`; the log keeps the moment."""
    context: dict[str, Any] = {}
    try:
        line = context["line"] = version_line(document, _version_in(request))
        if request.method == "POST":
            delete_version(document, line.version.id, actor=request.user)
            messages.success(request, f"Deleted the version. Seq {line.version.seq} stays in the history.")
            return redirect(frame.urls["versions"])
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    return show_page(request, document, frame, "history/forget.html", "Delete this version?", context)


def _version_in(request: HttpRequest) -> int:
    version_id = seq_in(request.POST if request.method == "POST" else request.GET, "version")
    if version_id is None:
        raise BadMoment("Say which version: version is missing.")
    return version_id
