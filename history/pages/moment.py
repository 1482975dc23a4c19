"""The history page of a document: read it as it was at any seq or time. What goes wrong is said in words."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.safestring import SafeString

from documents.acts import actor_of
from documents.models import Document, Role
from documents.roles import role_for
from history.audit.entries import record_opening
from history.pages.frame import Frame, show_page
from history.pages.rendering import CHARACTERS_MAX, ContentHtml
from history.parameters import asked_moment, seq_in
from history.problems import PROBLEMS, Problem, problem_of
from history.timeline import Moment, RunPage, moment_of, next_run_end, place_of, previous_run_end, run_page

STEPS = {"previous": previous_run_end, "next": next_run_end}


@dataclass(frozen=True, slots=True)
class Root:
    """One root of the document as the page shows it. `html` is empty when it holds nothing."""

    name: str
    kind: str
    html: SafeString


def show_history(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """`?seq=` or `?at=` choose the moment, `?step=previous|next` goes a run on from it, `?before=` pages the runs,
    `?part=moment` answers with the moment alone.

    A problem is shown in the moment's place."""
    record_opening(document, actor_of(request, door=frame.via.label))
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
        content = _roots(moment)
    except PROBLEMS as error:
        problem, content = problem_of(error), _NO_CONTENT
    context: dict[str, Any] = {
        "moment": moment,
        "roots": content[0],
        "is_cut": content[1],
        "is_empty": not any(root.html for root in content[0]),
        "problem": problem,
        "head_seq": moment.head_seq if moment else place_of(document).head_seq,
        "can_restore": may_restore(request, document),
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


_NO_CONTENT: tuple[list[Root], bool] = ([], False)


def _asked_seq(request: HttpRequest, document: Document) -> int:
    asked = asked_moment(request.GET, zone=timezone.get_current_timezone())
    return place_of(document, seq=asked.seq, at=asked.at).seq


def _query(request: HttpRequest, **changes: Any) -> str:
    """The query string that keeps the page of runs and the part that was asked for."""
    kept = {name: request.GET[name] for name in ("before", "part") if name in request.GET}
    return urlencode(kept | changes)


def _roots(moment: Moment) -> tuple[list[Root], bool]:
    """The roots as HTML, and whether they were cut short. Recursion is bounded: deeper content is refused before."""
    html = ContentHtml(characters_max=CHARACTERS_MAX)
    roots = [Root(name, str(content["type"]), html.root(content)) for name, content in moment.content.items()]
    return roots, html.is_cut


def may_restore(request: HttpRequest, document: Document) -> bool:
    role = role_for(request.user, document)
    return role is not None and role >= Role.EDITOR
