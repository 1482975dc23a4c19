"""The history page of a document: read it as it was at any seq or time. What goes wrong is said in words."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from documents.models import Document
from history.audit.entries import record_opening
from history.pages.frame import Frame, show_page
from history.pages.rendering import shown_content
from history.parameters import asked_moment, seq_in
from history.problems import PROBLEMS, Problem, problem_of
from history.timeline import Moment, RunPage, moment_of, next_run_end, place_of, previous_run_end, run_page

STEPS = {"previous": previous_run_end, "next": next_run_end}


def show_history(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """`?seq=` or `?at=` choose the moment, `?step=previous|next` goes a run on from it, `?before=` pages the runs,
    `?part=moment` answers with the moment alone.

    A problem is shown in the moment's place."""
    record_opening(document)
    problem: Problem | None = None
    moment: Moment | None = None
    runs: RunPage | None = None
    before: int | None = None
    try:
        step = request.GET.get("step")
        if step in STEPS:
            return redirect(
                f"{frame.home_url}?{_query(request, seq=STEPS[step](document, _asked_seq(request, document)))}"
            )
        moment = moment_of(document, _asked_seq(request, document))
        shown = shown_content(moment.content)
    except PROBLEMS as error:
        problem, shown = problem_of(error), shown_content({})
    context: dict[str, Any] = {
        "moment": moment,
        "shown": shown,
        "problem": problem,
        "head_seq": moment.head_seq if moment else place_of(document).head_seq,
    }
    context["shown_seq"] = moment.seq if moment else context["head_seq"]
    if request.GET.get("part") == "moment":
        return show_page(request, document, frame, "history/_moment.html", "", context)
    try:
        before = seq_in(request.GET, "before")
        runs = run_page(document, before=before)
    except PROBLEMS as error:
        context["runs_problem"] = problem_of(error)
    context |= {"runs": runs, "before": before, "time_zone": timezone.get_current_timezone_name()}
    return show_page(request, document, frame, "history/page.html", f"History of {document.title}", context)


def _asked_seq(request: HttpRequest, document: Document) -> int:
    asked = asked_moment(request.GET, zone=timezone.get_current_timezone())
    return place_of(document, seq=asked.seq, at=asked.at).seq


def _query(request: HttpRequest, **changes: Any) -> str:
    """The query string that keeps the page of runs and the part that was asked for."""
    kept = {name: request.GET[name] for name in ("before", "part") if name in request.GET}
    return urlencode(kept | changes)
