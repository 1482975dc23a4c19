"""The history page of a document and its restore: read it as it was at any seq or time, and bring a moment back.

The admin shows the same pages in its own frame (`history.admin`). Both ask the gate (`document_for`) first; what one
may not see answers 404, a reader's restore 403, and what goes wrong is said in words."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from documents.acts import actor_of, address_of
from documents.models import Document, Role
from documents.roles import document_for, role_for
from history.audit.entries import record_opening
from history.models import Via
from history.parameters import asked_moment, seq_in
from history.problems import PROBLEMS, BadMoment, Problem, problem_of
from history.rendering import CHARACTERS_MAX, ContentHtml
from history.timeline import Moment, RunPage, moment_of, next_run_end, place_of, previous_run_end, run_page
from history.writes import restore, write_session

STEPS = {"previous": previous_run_end, "next": next_run_end}

REQUEST_KEY_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where the pages stand: on the site or in the admin. `via` is the door that a restore there comes through."""

    page_template: str
    restore_template: str
    page_url: str
    restore_url: str
    via: Via
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Root:
    """One root of the document as the page shows it. `html` is empty when it holds nothing."""

    name: str
    kind: str
    html: SafeString


@never_cache
@require_safe
def document_history(request: HttpRequest, key: UUID) -> HttpResponse:
    """`?seq=` or `?at=` choose the moment, `?step=previous|next` goes a run on from it, `?before=` pages the runs,
    `?part=moment` answers with the moment alone."""
    try:
        document = document_for(request.user, key=key)
    except Http404:
        if request.user.is_authenticated:
            raise
        return redirect_to_login(request.get_full_path())
    return show_history(request, document, _site(document))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def document_history_restore(request: HttpRequest, key: UUID) -> HttpResponse:
    """GET asks whether to restore `?seq=`, POST does it."""
    try:
        document = document_for(request.user, role=Role.EDITOR, key=key)
    except Http404:
        if request.user.is_authenticated:
            raise
        return redirect_to_login(reverse("document-history", args=[key]))
    return show_restore(request, document, _site(document))


def _site(document: Document) -> Frame:
    return Frame(
        page_template="history/page.html",
        restore_template="history/restore.html",
        page_url=reverse("document-history", args=[document.key]),
        restore_url=reverse("document-history-restore", args=[document.key]),
        via=Via.PAGE,
    )


def show_history(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """The page, or the moment alone. The caller has passed the gate; a problem is shown in the moment's place."""
    record_opening(document, actor_of(request, door=frame.via.label))
    problem: Problem | None = None
    moment: Moment | None = None
    runs: RunPage | None = None
    before: int | None = None
    try:
        step = request.GET.get("step")
        if step in STEPS:
            return redirect(
                f"{frame.page_url}?{_query(request, seq=STEPS[step](document, _asked_seq(request, document)))}"
            )
        moment = moment_of(document, _asked_seq(request, document))
        content = _roots(moment)
    except PROBLEMS as error:
        problem, content = problem_of(error), _NO_CONTENT
    context = {
        "document": document,
        "frame": frame,
        "moment": moment,
        "roots": content[0],
        "is_cut": content[1],
        "is_empty": not any(root.html for root in content[0]),
        "problem": problem,
        "head_seq": moment.head_seq if moment else place_of(document).head_seq,
        "can_restore": may_restore(request, document),
    }
    context["shown_seq"] = moment.seq if moment else context["head_seq"]
    status = problem.status if problem else HTTPStatus.OK
    if request.GET.get("part") == "moment":
        return render(request, "history/_moment.html", context, status=status)
    try:
        before = seq_in(request.GET, "before")
        runs = run_page(document, before=before)
    except PROBLEMS as error:
        context["runs_problem"] = problem_of(error)
    context |= {"runs": runs, "before": before, "time_zone": timezone.get_current_timezone_name(), **frame.context}
    return render(request, frame.page_template, context, status=status)


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


def show_restore(request: HttpRequest, document: Document, frame: Frame) -> HttpResponse:
    """Ask first, then append one forward update. The caller has passed the gate with the role of an editor."""
    values = request.POST if request.method == "POST" else request.GET
    context: dict[str, Any] = {"document": document, "frame": frame, **frame.context}
    try:
        seq = seq_in(values, "seq")
        if seq is None:
            raise BadMoment("Say which moment to restore: seq is missing.")
        if request.method == "POST":
            return _restored(request, document, frame, seq)
        context |= {"moment": moment_of(document, seq), "request_key": secrets.token_hex(16)}
    except PROBLEMS as error:
        problem = problem_of(error)
        return render(request, frame.restore_template, context | {"problem": problem}, status=problem.status)
    return render(request, frame.restore_template, context)


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
        return redirect(frame.page_url)
    messages.success(request, f"Restored to seq {seq} as seq {stored.seq}.")
    return redirect(f"{frame.page_url}?{urlencode({'seq': stored.seq})}")
