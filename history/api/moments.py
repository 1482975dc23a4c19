"""A document's history for programs: its content at a moment, its runs and groups, and what the log did not take."""

import base64
from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse
from django.utils.cache import get_conditional_response

from documents.models import Document, Role
from documents.roles import NO_SUCH_DOCUMENT, role_once_recovered
from history.api.doors import author_name, door
from history.authors import author_of
from history.grouping import GroupLine, group_page
from history.models import Refusal
from history.parameters import asked_moment, count_in, flag_in, seq_in
from history.reading import difference
from history.refusals import refusals_for, updates_of, without_payloads
from history.timeline import RUNS_PER_PAGE, Place, RunLine, moment_of, place_of, run_page

RUNS_MAX = 200
GROUPS_MAX = 200
GROUPS_WITH_WORDS_MAX = 20
"""Each opens two moments, which takes up to 0.1 s."""

REFUSALS_MAX = 1000


@door(method="GET", role=Role.VIEWER)
def content(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?seq=` or `?at=` (ISO 8601 with its offset; the head without either) → `{"document", "seq", "head_seq", "at",
    "author", "via", "kind", "content"}`. At seq 0, before the first edit, `at` and `author` are null.

    304 to an ETag of before, 400 malformed, 401, 404 `not_found` or `no_such_seq`, 409 `too_deep`, 503 log damaged."""
    asked = asked_moment(request.GET)
    place = place_of(document, seq=asked.seq, at=asked.at)
    etag = _etag(document, place)
    unchanged = get_conditional_response(request, etag=etag)
    if unchanged is not None:
        return unchanged
    moment = moment_of(document, place.seq)
    response = JsonResponse(
        {
            "document": str(document.key),
            "seq": moment.seq,
            "head_seq": place.head_seq,
            "at": moment.at,
            "author": author_name(moment.author),
            "via": moment.via.label if moment.via else None,
            "kind": moment.kind.label if moment.kind else None,
            "source_seq": moment.source_seq,
            "content": moment.content,
        }
    )
    response["ETag"] = etag
    return response


def _etag(document: Document, place: Place) -> str:
    """The same for every reader. A seq never changes; the answer says where the head is as well, and the epoch tells a
    log that was set back. Weak: an author may have been renamed."""
    return f'W/"{document.key}.{place.epoch}.{place.seq}.{place.head_seq}"'


@door(method="GET", role=Role.VIEWER)
def runs(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?before=` (a seq; the newest without) and `?limit=` (1 to RUNS_MAX) → `{"document", "runs", "next_before"}`:
    runs that ended before that seq, the last first; `next_before` asks for the rest and is null at the end."""
    limit = count_in(request.GET, "limit", default=RUNS_PER_PAGE, at_most=RUNS_MAX)
    page = run_page(document, before=seq_in(request.GET, "before"), limit=limit)
    return JsonResponse(
        {"document": str(document.key), "runs": [_run(line) for line in page.lines], "next_before": page.next_before}
    )


@door(method="GET", role=Role.VIEWER)
def groups(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?before=` and `?limit=` (1 to GROUPS_MAX) as `runs` → `{"document", "groups", "next_before"}`: what an author
    did without a pause of RUN_GAP_SECONDS, up to a version or a restore. With `?words=1` (GROUPS_WITH_WORDS_MAX of them
    at most) each tells what changed from its first seq to its last; what others did in between is in it.

    400 malformed, 401, 404, 503 log damaged; with words 409 `too_deep` as well."""
    with_words = flag_in(request.GET, "words")
    at_most = GROUPS_WITH_WORDS_MAX if with_words else GROUPS_MAX
    limit = count_in(request.GET, "limit", default=min(RUNS_PER_PAGE, at_most), at_most=at_most)
    page = group_page(document, before=seq_in(request.GET, "before"), limit=limit)
    answer = [_group(line) for line in page.lines]
    if with_words:
        for told, line in zip(answer, page.lines, strict=True):
            told["words"] = difference(document, from_seq=line.group.first_seq - 1, to_seq=line.group.last_seq).words
    return JsonResponse({"document": str(document.key), "groups": answer, "next_before": page.next_before})


@door(method="GET", role=None)
def refused(request: HttpRequest, document: Document) -> HttpResponseBase:
    """What the log did not take: an owner's list of all, anybody else's of their own, the last first, at most
    REFUSALS_MAX → `{"document", "refused": [{"id", "reason", "author", "first_at", "last_at", "updates", "bytes",
    "clients"}]}`. It is kept for REFUSED_DAYS; a right that was lost since does not matter. 401, 404."""
    rows = without_payloads(_refusals(request, document))[:REFUSALS_MAX]
    return JsonResponse({"document": str(document.key), "refused": [_refusal(row) for row in rows]})


@door(method="GET", role=None)
def refused_updates(
    request: HttpRequest, document: Document, session_id: int, reason: str, part: int
) -> HttpResponseBase:
    """`{"document", "id", "updates": [base64, …]}`: Yjs updates (v1) as they came, to be applied in their order to a
    document of one's own. Nothing but their form has been checked. 401, 404."""
    row = _refusals(request, document).filter(session_id=session_id, reason=reason, part=part).first()
    if row is None:
        raise Http404("There is nothing refused under that id.")
    updates = [base64.b64encode(update).decode() for update in updates_of(row)]
    return JsonResponse({"document": str(document.key), "id": f"{session_id}/{reason}/{part}", "updates": updates})


def _refusals(request: HttpRequest, document: Document) -> QuerySet[Refusal]:
    """Raises: Http404 for someone without a role of whom nothing was refused, as for a document that is not there."""
    rows = refusals_for(request.user, document)
    if role_once_recovered(request.user, document) is None and not rows.exists():
        raise Http404(NO_SUCH_DOCUMENT)
    return rows


def _refusal(row: Any) -> dict[str, Any]:
    return {
        "id": f"{row.session_id}/{row.reason}/{row.part}",
        "reason": row.reason,
        "author": author_name(author_of(row.user)),
        "first_at": row.first_at,
        "last_at": row.last_at,
        "updates": row.updates,
        "bytes": row.bytes,
        "clients": row.clients,
    }


def _run(line: RunLine) -> dict[str, Any]:
    """Without the address that it came from: members of a document need not know where the others are."""
    run = line.run
    return {
        "session": run.session_id,
        "first_seq": run.first_seq,
        "last_seq": run.last_seq,
        "first_at": run.first_at,
        "last_at": run.last_at,
        "author": author_name(line.author),
        "via": run.via.label if run.via else None,
        "kind": run.kind.label,
        "source_seq": line.source_seq,
        "updates": run.updates,
        "bytes": run.bytes,
    }


def _group(line: GroupLine) -> dict[str, Any]:
    group = line.group
    return {
        "sessions": group.session_ids,
        "first_seq": group.first_seq,
        "last_seq": group.last_seq,
        "first_at": group.first_at,
        "last_at": group.last_at,
        "author": author_name(line.author),
        "kind": group.kind.label,
        "source_seq": line.source_seq,
    }
