"""The audit's filters as a form, for the admin's list, its exports and the API: what is asked, read strictly.

Only documents that the asker may read appear. Names that are unknown and names of what one may not see answer alike."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from documents.conf import conf
from documents.models import Document
from documents.roles import MEMBERSHIP_RULE, User, is_superuser, readable_by
from history.audit.trail import LINES_PER_PAGE, TrailCursor, TrailFilter, What, trail_page
from history.models import Via
from history.parameters import pair_in, through_its_second
from history.problems import PROBLEMS, BadMoment, problem_of
from history.timeline import user_named
from history.times import microseconds, moment

_TIME_INPUT = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S")

MICROSECONDS_MAX = microseconds(datetime.fromisoformat("9000-01-01T00:00:00+00:00"))


class AuditFilterForm(forms.Form):
    """All fields may be left out. Times without an offset are in the current time zone, both ends included."""

    words = forms.CharField(required=False, max_length=200, label="Words", help_text="in titles, names and details")
    document = forms.CharField(required=False, max_length=200, label="Document", help_text="title, room name or key")
    user = forms.CharField(required=False, max_length=254, label="User", help_text="the whole user name")
    what = forms.TypedChoiceField(
        required=False,
        label="What",
        choices=[("", "anything"), *((what.value, what.label) for what in What)],
        coerce=What,
        empty_value=None,
    )
    via = forms.TypedChoiceField(
        required=False,
        label="Door",
        choices=[("", "any"), *((via.label, via.label) for via in Via)],
        coerce=lambda label: Via[label.upper()],
        empty_value=None,
    )
    since = forms.DateTimeField(required=False, label="From", widget=_TIME_INPUT)
    until = forms.DateTimeField(required=False, label="To", widget=_TIME_INPUT)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        for name, when in (("since", since), ("until", until)):
            if when is not None and not 1970 <= when.year < 9000:
                self.add_error(name, "Enter a year from 1970 on.")
            elif when is not None:
                cleaned[name] = when.astimezone(UTC)  # the database takes no offset of 16 hours or more
        if since and until and since > until:
            self.add_error("until", "This is before the start.")
        return cleaned


def audit_list_context(request: HttpRequest) -> dict[str, Any]:
    """What the list's template shows: `form`, `lines`, `next_query` (None on the last page), `is_continued`, and
    `problem` in place of lines that cannot be read."""
    form = AuditFilterForm(request.GET)
    context: dict[str, Any] = {"form": form, "lines": [], "next_query": None, "is_continued": "before" in request.GET}
    context["filter_query"] = _filters(request)
    if not form.is_valid():
        return context
    try:
        cursor = cursor_in(request.GET)
        page = trail_page(trail_filter(form, visible_to(request.user)), cursor=cursor, limit=LINES_PER_PAGE)
    except PROBLEMS as error:
        return context | {"problem": problem_of(error)}
    return context | {"lines": page.lines, "next_query": _next_query(request, page.next_cursor)}


def visible_to(user: User) -> QuerySet[Document] | None:
    """The documents whose audit the user may read in the admin; None for all that there ever were."""
    if is_superuser(user) and conf().role_for == MEMBERSHIP_RULE:
        return None
    return readable_by(user)


def trail_filter(form: AuditFilterForm, visible: QuerySet[Document] | None) -> TrailFilter:
    """What a valid form asks of the documents that are visible."""
    asked = form.cleaned_data
    user = user_named(asked["user"]) if asked["user"] else None
    documents = Document.objects.all() if visible is None else visible
    if asked["user"] and user is None:
        documents, visible = documents.none(), documents.none()
    return TrailFilter(
        documents=_named(documents, asked["document"]),
        beyond=visible is None and not asked["document"],
        gone_key=_key(asked["document"]) if visible is None else None,
        user=user,
        via=asked["via"],
        what=asked["what"],
        words=asked["words"],
        since=asked["since"],
        until=through_its_second(asked["until"]) if asked["until"] else None,
    )


def cursor_in(values: Mapping[str, str]) -> TrailCursor | None:
    """Read where a page goes on (`before`). Raises: BadMoment."""
    pair = pair_in(values, "before")
    if pair is None:
        return None
    if pair[0] > MICROSECONDS_MAX:
        raise BadMoment("before is what the page before it said.")
    return TrailCursor(at=moment(pair[0]), skip=pair[1])


def cursor_text(cursor: TrailCursor | None) -> str | None:
    """What `cursor_in` reads."""
    return None if cursor is None else f"{microseconds(cursor.at)}.{cursor.skip}"


def _named(documents: QuerySet[Document], words: str) -> QuerySet[Document]:
    """The documents whose title holds the words, or whose room name or key they are."""
    if not words:
        return documents
    named = Q(title__icontains=words) | Q(name=words)
    if (key := _key(words)) is not None:
        named |= Q(key=key)
    return documents.filter(named)


def _key(words: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(words)
    return None


def _filters(request: HttpRequest) -> str:
    """The filters that are set, as a query string."""
    return urlencode({name: value for name in AuditFilterForm.base_fields if (value := request.GET.get(name, ""))})


def _next_query(request: HttpRequest, cursor: TrailCursor | None) -> str | None:
    if cursor is None:
        return None
    return "&".join(filter(None, [_filters(request), urlencode({"before": cursor_text(cursor) or ""})]))
