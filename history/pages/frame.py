"""Where a document's history pages stand: on the site or in the admin. The pages are the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render

from documents.acts import acting, actor_of
from documents.models import Document, Role
from documents.roles import gone_is_404
from history.models import Via
from history.problems import Problem

HISTORY = "history"
"""The name of the page that the others lead back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """`template` is what the pages extend; `role` what who asks is of the document; `via` the door that what is done
    there comes through; `urls` the address of each page by its name (`history.pages.table.PAGES`)."""

    template: str
    role: Role
    via: Via
    urls: Mapping[str, str]
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def home_url(self) -> str:
        return self.urls[HISTORY]

    @property
    def may_edit(self) -> bool:
        return self.role >= Role.EDITOR

    @property
    def may_own(self) -> bool:
        return self.role >= Role.OWNER


Show = Callable[[HttpRequest, Document, Frame], HttpResponseBase]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: who may have it, and what shows it. The gate is passed before `show` is called."""

    role: Role
    show: Show
    methods: tuple[str, ...] = ("GET", "HEAD", "POST")


def answer(page: Page, request: HttpRequest, document: Document, frame: Frame) -> HttpResponseBase:
    """Show a page; whatever is done on the way is done by who asks, through the frame's door."""
    with acting(actor_of(request, door=frame.via.label)), gone_is_404(document):
        return page.show(request, document, frame)


def show_page(
    request: HttpRequest, document: Document, frame: Frame, template: str, title: str, context: Mapping[str, Any]
) -> HttpResponse:
    """Render a page in its frame; a `problem` in the context gives the status."""
    problem: Problem | None = context.get("problem")
    whole = {**frame.context, "document": document, "frame": frame, "title": title, **context}
    shown = render(request, template, whole, status=problem.status if problem else None)
    if problem is not None and problem.retry_after_seconds is not None:
        shown["Retry-After"] = str(problem.retry_after_seconds)
    return shown


def show_form(
    request: HttpRequest, document: Document, frame: Frame, template: str, title: str, context: Mapping[str, Any]
) -> HttpResponse:
    """As `show_page`, with what was typed still in the `form` of the context: 400 where that is wrong."""
    shown = show_page(request, document, frame, template, title, context)
    form: BaseForm | None = context.get("form")
    if form is not None and form.errors:
        shown.status_code = HTTPStatus.BAD_REQUEST
    return shown
