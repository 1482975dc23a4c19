"""A document's audit for programs: who did what, from where, in pages or as one file. Behind `history.api.doors`."""

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from documents.models import Document, Role
from history.api.doors import door
from history.audit.entries import record
from history.audit.export import FORMS, export_response, record_of
from history.audit.filters import AuditFilterForm, cursor_in, cursor_text, trail_filter
from history.audit.trail import LINES_PER_PAGE, trail_page
from history.models import Action
from history.parameters import count_in
from history.problems import BadMoment

LINES_LIMIT_MAX = 500


@door(method="GET", role=Role.OWNER)
def audit(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?user=`, `?via=`, `?what=`, `?words=`, `?since=`, `?until=` (ISO 8601) filter; `?limit=` (1 to LINES_LIMIT_MAX)
    and `?before=` (a `next_before`) page → `{"document", "lines": [{"at", "what", "who", …}], "next_before"}`, the
    newest first. A page may be short, or empty, before the last: `next_before` is null there alone.

    `?format=csv` or `jsonl` answers with all lines as a file instead, which is an act of its own.
    400 malformed, 401, 403, 404."""
    form = AuditFilterForm({name: value for name, value in request.GET.items() if name != "document"})
    if not form.is_valid():
        name, errors = next(iter(form.errors.items()))
        raise BadMoment(f"{name}: {' '.join(map(str, errors))}")
    wanted = trail_filter(form, Document.objects.filter(pk=document.pk))
    form_of_file = request.GET.get("format", "")
    if form_of_file:
        if form_of_file not in FORMS:
            raise BadMoment(f"format is {' or '.join(FORMS)}.")
        record(Action.EXPORTED, document=document, detail={"of": "audit", "format": form_of_file})
        return export_response(request, wanted, form=form_of_file, name=f"audit-{document.key}")
    limit = count_in(request.GET, "limit", default=LINES_PER_PAGE, at_most=LINES_LIMIT_MAX)
    page = trail_page(wanted, cursor=cursor_in(request.GET), limit=limit)
    answer = {
        "document": str(document.key),
        "lines": [record_of(line) for line in page.lines],
        "next_before": cursor_text(page.next_cursor),
    }
    return JsonResponse(answer)
