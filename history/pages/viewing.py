"""The views of a moment: its content, what changed until then or since, and who wrote it.

One `?show=` is one view and one template; the page and the part that its slider asks for show the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict
from django.urls import reverse

from documents.models import Document
from history.blaming import blame_of
from history.heavy_reads import heavy_read
from history.models import Version
from history.pages.blaming import shown_blame
from history.pages.changing import shown_changes
from history.pages.rendering import shown_content
from history.parameters import seq_in
from history.problems import BadMoment
from history.reading import difference
from history.timeline import Facts, Moment, facts_of, moment_of, previous_run_end

VERSIONS_TO_COMPARE_MAX = 50
"""Versions that the form offers, the newest; a seq can be given for any other."""

CARRIED = ("before", "show", "from", "deleted")
"""What stays in the address when another moment is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown below the line that says who wrote the moment; `template` shows `context`."""

    template: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tab:
    """A link to one view of the same moment."""

    name: str
    label: str
    query: str
    is_current: bool


def show_in(values: QueryDict) -> str:
    """Read `show`; the content without. Raises: BadMoment."""
    show = values.get("show", "").strip() or CONTENT
    if show not in VIEWS:
        raise BadMoment(f"show is one of {', '.join(VIEWS)}.")
    return show


def tabs_of(values: QueryDict, *, seq: int, show: str) -> list[Tab]:
    before = {"before": values.get("before")} if values.get("before") else {}
    asked = {name: {} if name == CONTENT else {"show": name} for name in VIEWS}
    return [
        Tab(name, label, urlencode({"seq": seq, **before, **asked[name]}), name == show)
        for name, (label, _) in VIEWS.items()
    ]


def carried(values: QueryDict) -> dict[str, str]:
    return {name: value for name in CARRIED if (value := values.get(name))}


def view_of(document: Document, facts: Facts, values: QueryDict) -> View:
    """Make the view that was asked for; of its content a moment needs to be a `Moment`. Raises: what reading it does,
    and BadMoment."""
    _, view = VIEWS[show_in(values)]
    return view(document, facts, values)


def facts_for(document: Document, seq: int, values: QueryDict) -> Facts:
    """What `view_of` needs to know of a seq: its content only for the view that shows it. Raises: as `moment_of`."""
    return moment_of(document, seq) if show_in(values) == CONTENT else facts_of(document, seq)


def _content(document: Document, facts: Facts, values: QueryDict) -> View:
    content = facts.content if isinstance(facts, Moment) else {}
    return View(template="history/_content.html", context={"shown": shown_content(content)})


def _changes(document: Document, facts: Facts, values: QueryDict) -> View:
    return _difference(document, previous_run_end(document, facts.seq), facts.seq)


def _until_now(document: Document, facts: Facts, values: QueryDict) -> View:
    return _difference(document, facts.seq, facts.head_seq)


def _compared(document: Document, facts: Facts, values: QueryDict) -> View:
    versions = Version.objects.filter(document=document, automatic=False).exclude(seq=facts.seq).order_by("-seq", "-id")
    form = {"can_choose": True, "versions": versions[:VERSIONS_TO_COMPARE_MAX], "from_seq": None}
    from_seq = seq_in(values, "from")
    if from_seq is None:
        return View(template="history/_changes.html", context=form)
    view = _difference(document, *sorted((from_seq, facts.seq)))
    return View(template=view.template, context={**view.context, **form, "from_seq": from_seq})


def _difference(document: Document, from_seq: int, to_seq: int) -> View:
    found = difference(document, from_seq=from_seq, to_seq=to_seq)
    whole = f"{reverse('document-changes', args=[document.key])}?{urlencode({'from': from_seq, 'to': found.to_seq})}"
    context = {
        "difference": found,
        "counts": found.counts,
        "shown": shown_changes(found.changes, found.after),
        "whole_url": whole,
    }
    return View(template="history/_changes.html", context=context)


def _authors(document: Document, facts: Facts, values: QueryDict) -> View:
    deleted = values.get("deleted", "").strip()
    if deleted not in ("", "0", "1"):
        raise BadMoment("deleted is 0 or 1.")
    with heavy_read():
        found = shown_blame(blame_of(document, seq=facts.seq, deleted=deleted == "1"))
    asked = {"seq": facts.seq, **({"deleted": 1} if deleted == "1" else {})}
    context = {
        "shown": found.content,
        "authors": found.authors,
        "with_deleted": deleted == "1",
        "whole_url": f"{reverse('document-blame', args=[document.key])}?{urlencode(asked)}",
    }
    return View(template="history/_authors.html", context=context)


CONTENT = "content"

VIEWS: Mapping[str, tuple[str, Callable[[Document, Facts, QueryDict], View]]] = {
    CONTENT: ("Content", _content),
    "changes": ("Changes", _changes),
    "now": ("Up to now", _until_now),
    "compare": ("Compare", _compared),
    "authors": ("Who wrote it", _authors),
}
