"""A document's versions and copies for programs: the list, naming, changing, locking, deleting; copying any moment."""

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from documents.acts import address_of
from documents.models import Document, Role
from history.api.doors import author_name, door
from history.copies import copy_history, copy_moment
from history.models import Via
from history.parameters import count_in, is_seq, json_in, pair_in, request_key_in
from history.problems import BadMoment
from history.versions import (
    VERSIONS_PER_PAGE,
    VersionCursor,
    VersionLine,
    change_version,
    delete_version,
    name_version,
    version_page,
)

VERSIONS_LIMIT_MAX = 200

VERSION_BYTES_MAX = 16 * 1024
"""Bytes of a request's body: a name and a note of any letters."""

NAMING = '{"name": <text>, "note"?: <text>, "seq"?: <whole number from 0>}'
CHANGING = '{"name"?: <text>, "note"?: <text>, "locked"?: <true or false>}'
COPYING = (
    '{"seq"?: <whole number from 0>, "title"?: <text>, "name"?: <text>, "history"?: <true or false>, '
    '"request_key"?: <text>}'
)


@door(method="GET", role=Role.VIEWER)
def versions(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?limit=` (1 to VERSIONS_LIMIT_MAX) and `?before=` (a `next_before`) → `{"document", "versions": [{"id", "seq",
    "at", "name", "note", "author", "created_at", "locked", "automatic", "beyond"}], "next_before"}`, the version of
    the last moment first. `name` is null where it came by itself, `author` where nobody's account is known; `at` is
    when the seq was written, null at 0. `beyond`: the log was set back and ends before it. 400, 401, 404."""
    before = pair_in(request.GET, "before")
    limit = count_in(request.GET, "limit", default=VERSIONS_PER_PAGE, at_most=VERSIONS_LIMIT_MAX)
    page = version_page(document, cursor=None if before is None else VersionCursor(*before), limit=limit)
    rest = page.next_cursor
    answer = {
        "document": str(document.key),
        "versions": [_version(line) for line in page.lines],
        "next_before": None if rest is None else f"{rest.seq}.{rest.id}",
    }
    return JsonResponse(answer)


@door(method="POST", role=Role.EDITOR)
def version_naming(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`{"name", "note"?, "seq"?}` (the head without `seq`) → 201, the version as the list has it.

    400 malformed, 401, 403 `forbidden` or `csrf`, 404 `not_found` or `no_such_seq`, 409 `name_taken` (also when the
    same is sent twice) or `too_many_versions`, 503."""
    body = json_in(request, example=NAMING, bytes_max=VERSION_BYTES_MAX)
    name, note, seq = body.get("name"), body.get("note", ""), body.get("seq")
    if not isinstance(name, str) or not isinstance(note, str) or not (seq is None or is_seq(seq)):
        raise BadMoment(f"Send {NAMING}.")
    line = name_version(document, name=name, note=note, seq=seq, actor=request.user)
    return JsonResponse(_version(line), status=HTTPStatus.CREATED)


@door(method="PATCH", role=Role.EDITOR)
def version_changing(request: HttpRequest, document: Document, version_id: int) -> HttpResponseBase:
    """`{"name"?, "note"?, "locked"?}` → 200, the version as it is then. `locked` takes an owner; unlocking comes before
    the rest, locking after it.

    400 malformed, 401, 403 `forbidden` or `csrf`, 404 `not_found` or `no_such_version`, 409 `locked`, `name_taken` or
    `too_many_versions`."""
    body = json_in(request, example=CHANGING, bytes_max=VERSION_BYTES_MAX)
    name, note, locked = body.get("name"), body.get("note"), body.get("locked")
    is_text = all(value is None or isinstance(value, str) for value in (name, note))
    if not is_text or not (locked is None or isinstance(locked, bool)) or not body.keys() & {"name", "note", "locked"}:
        raise BadMoment(f"Send {CHANGING}.")
    line = change_version(document, version_id, name=name, note=note, locked=locked, actor=request.user)
    return JsonResponse(_version(line))


@door(method="DELETE", role=Role.EDITOR)
def version_deleting(request: HttpRequest, document: Document, version_id: int) -> HttpResponseBase:
    """204; the log keeps what the version named. 401, 403 `forbidden` or `csrf`, 404 `not_found` or `no_such_version`,
    409 `locked`."""
    delete_version(document, version_id, actor=request.user)
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


@door(method="POST", role=Role.VIEWER)
def copies(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`{"seq"?, "title"?, "name"?, "history"?, "request_key"?}` → 201 `{"document", "name", "title",
    "source_document", "source_seq", "history"}`: a new document of yours that begins as this one was at `seq` (the
    head without it). With `"history": true`, which takes an owner, all rows up to there come along. Under one
    `request_key` one copy is made: 200 and the first one for each further sending.

    400 malformed, 401, 403 `forbidden` or `csrf`, 404 `not_found` or `no_such_seq`, 409 `name_taken`, `too_long` or
    `refused`, 503."""
    body = json_in(request, example=COPYING)
    seq, title, name, history = body.get("seq"), body.get("title"), body.get("name"), body.get("history", False)
    is_text = all(value is None or isinstance(value, str) for value in (title, name))
    if not is_text or not (seq is None or is_seq(seq)) or not isinstance(history, bool):
        raise BadMoment(f"Send {COPYING}.")
    request_key = request_key_in(body, act="copy")
    if history:
        copied = copy_history(document, seq=seq, title=title, name=name, actor=request.user, request_key=request_key)
    else:
        copied = copy_moment(
            document,
            seq=seq,
            title=title,
            name=name,
            actor=request.user,
            via=Via.API,
            ip=address_of(request),
            user_agent=request.headers.get("User-Agent", ""),
            request_key=request_key,
        )
    answer = {
        "document": str(copied.document.key),
        "name": copied.document.name,
        "title": copied.document.title,
        "source_document": str(document.key),
        "source_seq": copied.seq,
        "history": history,
    }
    return JsonResponse(answer, status=HTTPStatus.OK if copied.repeated else HTTPStatus.CREATED)


def _version(line: VersionLine) -> dict[str, Any]:
    version = line.version
    return {
        "id": version.id,
        "seq": version.seq,
        "at": version.at,
        "name": version.name or None,
        "note": version.note,
        "author": author_name(line.author),
        "created_at": version.created_at,
        "locked": version.locked,
        "automatic": version.automatic,
        "beyond": line.is_beyond,
    }
