"""The list of who edited what: its filters as a form, and one page of it as a template's context.

Only documents that the user may read appear. Names that are unknown and names of what one may not see answer alike."""

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from documents.models import Document
from documents.roles import readable_by
from history.models import Via
from history.parameters import edit_cursor_in, through_its_second
from history.problems import PROBLEMS, problem_of
from history.timeline import EDITS_PER_PAGE, EditCursor, EditFilter, EditPage, edit_page, user_named

_TIME_INPUT = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S")


class EditFilterForm(forms.Form):
    """All fields may be left out. Times are in the current time zone, both ends included."""

    document = forms.CharField(required=False, max_length=200, label="Document", help_text="title, room name or key")
    user = forms.CharField(required=False, max_length=254, label="User", help_text="the whole user name")
    via = forms.TypedChoiceField(
        required=False,
        label="Door",
        choices=[("", "any"), *Via.choices],
        coerce=lambda value: Via(int(value)),
        empty_value=None,
    )
    since = forms.DateTimeField(required=False, label="From", widget=_TIME_INPUT)
    until = forms.DateTimeField(required=False, label="To", widget=_TIME_INPUT)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        for name, moment in (("since", since), ("until", until)):
            if moment is not None and not 1970 <= moment.year < 9000:
                self.add_error(name, "Enter a year from 1970 on.")
        if since and until and since > until:
            self.add_error("until", "This is before the start.")
        return cleaned


def edit_list_context(request: HttpRequest) -> dict[str, Any]:
    """What the list's template shows: `form`, `lines`, `next_query` (None on the last page), `is_continued`, and
    `problem` in place of lines that cannot be read."""
    form = EditFilterForm(request.GET)
    context: dict[str, Any] = {"form": form, "lines": [], "next_query": None, "is_continued": "from" in request.GET}
    context["filter_query"] = _filters(request)
    if not form.is_valid():
        return context
    try:
        page = _page(request, form.cleaned_data)
    except PROBLEMS as error:
        return context | {"problem": problem_of(error)}
    return context | {"lines": page.lines, "next_query": _next_query(request, page.next_cursor)}


def _page(request: HttpRequest, wanted: dict[str, Any]) -> EditPage:
    user = user_named(wanted["user"]) if wanted["user"] else None
    if wanted["user"] and user is None:
        return EditPage(lines=[], next_cursor=None)
    asked = EditFilter(
        documents=_named(readable_by(request.user), wanted["document"]),
        user=user,
        via=wanted["via"],
        since=wanted["since"],
        until=through_its_second(wanted["until"]) if wanted["until"] else None,
    )
    return edit_page(asked, cursor=edit_cursor_in(request.GET), limit=EDITS_PER_PAGE)


def _named(documents: QuerySet[Document], words: str) -> QuerySet[Document]:
    """The documents whose title holds the words, or whose room name or key they are."""
    if not words:
        return documents
    named = Q(title__icontains=words) | Q(name=words)
    with suppress(ValueError):
        named |= Q(key=UUID(words))
    return documents.filter(named)


def _filters(request: HttpRequest) -> str:
    """The filters that are set, as a query string."""
    return urlencode({name: value for name in EditFilterForm.base_fields if (value := request.GET.get(name, ""))})


def _next_query(request: HttpRequest, cursor: EditCursor | None) -> str | None:
    if cursor is None:
        return None
    place = urlencode({"from": cursor.at.isoformat(), "skip": cursor.skip})
    return "&".join(filter(None, [_filters(request), place]))
