"""Undo in the history pages: whose edits, from when to when; GET shows what would come of it, POST does it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from documents.models import Document
from history.authors import Author, author_of
from history.heavy_reads import heavy_read
from history.log import head_of
from history.models import Session
from history.pages.acting import form_key, session_of
from history.pages.frame import Frame, show_page
from history.pages.previewing import preview_of
from history.parameters import SEQ_MAX, YEARS, request_key_in, through_its_second
from history.problems import PROBLEMS, BadMoment, problem_of
from history.timeline import user_named
from history.undoing import Plan, Whose, plan_undo, seqs_between
from history.writers import writers
from history.writes import undo

RUN_SESSION = "run-session"


class SpanForm(forms.Form):
    """Whose edits, and the span of seqs or times that they lie in: from the first edit and to now where nothing is
    said."""

    user = forms.CharField(label="Whose edits", required=False, widget=forms.Select)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["from"] = _seq_field("From seq")
        self.fields["since"] = _time_field("or from time")
        self.fields["to"] = _seq_field("To seq")
        self.fields["until"] = _time_field("or to time")
        self.fields[RUN_SESSION] = _seq_field("", widget=forms.HiddenInput)
        self.offer([])

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        for seq, time in (("from", "since"), ("to", "until")):
            if said.get(seq) is not None and said.get(time) is not None:
                self.add_error(time, "Give a seq or a time, not both.")
        return said

    def offer(self, names: list[str]) -> None:
        """Let one choose among these people; who was asked for stays a choice."""
        asked = str(self.data.get("user", ""))
        names = [*names, *([asked] if asked and asked not in names else [])]
        choices = [("", "Choose a person…"), *((name, name) for name in names)]
        self.fields["user"].widget = forms.Select(choices=choices)

    @property
    def span(self) -> tuple[int | datetime, int | datetime | None]:
        said = self.cleaned_data
        begin, end = said["from"] or said["since"], said["to"]
        if end is None and said["until"] is not None:
            end = through_its_second(said["until"])
        return 1 if begin is None else begin, end


def _seq_field(label: str, **options: Any) -> forms.IntegerField:
    return forms.IntegerField(label=label, required=False, min_value=1, max_value=SEQ_MAX, **options)


def _time_field(label: str) -> forms.DateTimeField:
    years = datetime(YEARS.start, 1, 2, tzinfo=UTC), datetime(YEARS.stop, 1, 1, tzinfo=UTC)
    return forms.DateTimeField(
        label=label,
        required=False,
        validators=[MinValueValidator(years[0]), MaxValueValidator(years[1])],
        widget=forms.DateTimeInput(format="%Y-%m-%dT%H:%M:%S", attrs={"type": "datetime-local", "step": 1}),
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be undone. `field` and `value` name whose edits in the form."""

    whose: Whose
    author: Author
    field: str
    value: str | int
    first_seq: int
    last_seq: int

    @property
    def is_run(self) -> bool:
        return self.field == RUN_SESSION


def show_undo(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """`?user=` (a name) or `?run-session=`; `from` and `to` (seqs), `since` and `until` (times), all included. Appends
    one forward update."""
    values = request.POST if request.method == "POST" else request.GET
    form = SpanForm(values)
    context: dict[str, Any] = {
        "form": form,
        "request_key": form_key(values),
        "head_seq": head_of(document.pk).seq,
        "time_zone": timezone.get_current_timezone_name(),
    }
    wanted: Wanted | None = None
    try:
        if not form.is_valid():
            raise BadMoment("This cannot be read; see below.")
        first_seq, last_seq = seqs_between(document.pk, *form.span) if context["head_seq"] else (1, 0)
        people = writers(document.pk, first_seq=first_seq, last_seq=last_seq)
        form.offer([each.get_username() for each in people])
        wanted = context["wanted"] = _wanted(document, form, first_seq, last_seq)
        if request.method == "POST":
            if wanted is None:
                raise BadMoment("Say whose edits to undo.")
            return _undone(request, document, frame, wanted)
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    if wanted is not None:
        try:
            with heavy_read():
                plan = _plan(document, wanted)
                context["preview"] = None if plan is None else preview_of(document, plan)
        except PROBLEMS as error:
            context.setdefault("problem", problem_of(error))
    return show_page(request, document, frame, "history/undo.html", f"Undo edits of “{document.title}”", context)


def _wanted(document: Document, form: SpanForm, first_seq: int, last_seq: int) -> Wanted | None:
    """None where nobody is named. Raises: BadMoment."""
    name, session_id = form.cleaned_data["user"], form.cleaned_data[RUN_SESSION]
    if name and session_id is not None:
        raise BadMoment("Name a person or a run, not both.")
    if name:
        account = user_named(name)
        if account is None:
            raise BadMoment("There is no account of that name.")
        return Wanted(Whose(user_key=account.pk), author_of(account), "user", name, first_seq, last_seq)
    if session_id is None:
        return None
    sessions = Session.objects.select_related("user").filter(document=document, id=session_id)
    session = sessions.first()
    if session is None:
        raise BadMoment("There is no such run in the history of this document.")
    return Wanted(Whose(session_id=session_id), author_of(session.user), RUN_SESSION, session_id, first_seq, last_seq)


def _plan(document: Document, wanted: Wanted) -> Plan | None:
    """None where the span is empty."""
    if wanted.first_seq > wanted.last_seq:
        return None
    return plan_undo(document.pk, wanted.whose, first_seq=wanted.first_seq, last_seq=wanted.last_seq)


def _undone(request: HttpRequest, document: Document, frame: Frame, wanted: Wanted) -> HttpResponse:
    key = request_key_in(request.POST, act="undo")
    session = session_of(request, document, frame)
    span = {"first_seq": wanted.first_seq, "last_seq": wanted.last_seq}
    stored = undo(session, wanted.whose, **span, request_key=key) if wanted.first_seq <= wanted.last_seq else None
    if stored is None:
        messages.info(request, f"Nothing is left of what {wanted.author.name} did there. Nothing was added.")
        return redirect(frame.home_url)
    said = (
        f"Undone what {wanted.author.name} did from seq {wanted.first_seq} to {wanted.last_seq}, as seq {stored.seq}."
    )
    messages.success(request, said)
    return redirect(f"{frame.home_url}?{urlencode({'seq': stored.seq})}")
