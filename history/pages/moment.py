"""The history page of a document: read it as it was at any seq or time. What goes wrong is said in words."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from documents.models import Document
from history.audit.entries import record_opening
from history.models import Version
from history.pages.drawing import drawn
from history.pages.frame import Frame, show_page
from history.pages.listing import entries_of
from history.pages.viewing import carried, facts_for, show_in, tabs_of, view_of
from history.parameters import asked_moment, seq_in
from history.problems import PROBLEMS, problem_of
from history.strip import strip_of
from history.timeline import next_run_end, place_of, previous_run_end, run_page

STEPS = {"previous": previous_run_end, "next": next_run_end}

VERSIONS_HERE_MAX = 5
"""Names of one moment that stand beside it; the list has all."""


def show_history(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """`?seq=` or `?at=` choose the moment, `?step=previous|next` goes a run on from it, `?show=` chooses the view (see
    `viewing`), `?before=` pages the runs, `?part=moment` answers with the moment alone.

    A problem is shown in the moment's place, or the view's."""
    record_opening(document)
    step = request.GET.get("step")
    try:
        if step in STEPS:
            seq = STEPS[step](document, _asked_seq(request, document))
            return redirect(f"{frame.home_url}?{_query(request, seq=seq)}")
    except PROBLEMS as error:
        context: dict[str, Any] = {"problem": problem_of(error), "moment": None}
    else:
        context = _moment(request, document)
    moment = context["moment"]
    context["carried"] = urlencode(carried(request.GET))
    context["before"] = request.GET.get("before")
    context["head_seq"] = moment.head_seq if moment else place_of(document).head_seq
    context["shown_seq"] = moment.seq if moment else context["head_seq"]
    if request.GET.get("part") == "moment":
        return show_page(request, document, frame, "history/_moment.html", "", context)
    context |= _list(request, document)
    kept = carried(request.GET)
    context |= {
        "strip": drawn(strip_of(document)),
        "kept": kept,
        "view": urlencode({name: kept[name] for name in kept if name != "before"}),
        "time_zone": timezone.get_current_timezone_name(),
    }
    shown = show_page(request, document, frame, "history/page.html", f"History of {document.title}", context)
    if "runs_problem" in context and shown.status_code == HTTPStatus.OK:
        shown.status_code = context["runs_problem"].status
    return shown


def _moment(request: HttpRequest, document: Document) -> dict[str, Any]:
    """Who wrote it, and the view of it."""
    context: dict[str, Any] = {"moment": None}
    try:
        show = show_in(request.GET)
        facts = facts_for(document, _asked_seq(request, document), request.GET)
        here = Version.objects.filter(document=document, seq=facts.seq, automatic=False).order_by("-id")
        context |= {
            "moment": facts,
            "versions_here": here[:VERSIONS_HERE_MAX],
            "tabs": tabs_of(request.GET, seq=facts.seq, show=show),
        }
        view = view_of(document, facts, request.GET)
        context |= {"view_template": view.template, **view.context}
    except PROBLEMS as error:
        context["problem"] = problem_of(error)
    return context


def _list(request: HttpRequest, document: Document) -> dict[str, Any]:
    try:
        before = seq_in(request.GET, "before")
        runs = run_page(document, before=before)
        return {"before": before, "runs": runs, "entries": entries_of(document, runs, before=before)}
    except PROBLEMS as error:
        return {"runs_problem": problem_of(error)}


def _asked_seq(request: HttpRequest, document: Document) -> int:
    asked = asked_moment(request.GET, zone=timezone.get_current_timezone())
    return place_of(document, seq=asked.seq, at=asked.at).seq


def _query(request: HttpRequest, **changes: Any) -> str:
    """The query string that keeps the page of runs, the view and the part that was asked for."""
    part = {"part": request.GET["part"]} if "part" in request.GET else {}
    return urlencode(carried(request.GET) | part | changes)
