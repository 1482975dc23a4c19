"""Restore and undo for programs, each with a preview: what the document would say, and nothing is written."""

from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from documents.acts import address_of
from documents.models import Document, Role
from history.api.doors import door
from history.crdt.places import Piece
from history.crdt.ranges import Span
from history.errors import NoSuchSeq
from history.fates import Stored
from history.log import head_of
from history.models import Via
from history.parameters import is_seq, json_in, request_key_in, time_in
from history.problems import BadMoment
from history.sessions import WriteSession
from history.timeline import user_named
from history.undoing import Plan, Whose, content_after, first_seq_since, last_seq_until, plan_restore, plan_undo
from history.writes import restore, undo, write_session

PATH_KEYS_MAX = 100
"""Keys of a path; shared types are nested no deeper."""

RESTORE_EXAMPLE = '{"seq": <whole number from 0>, "root": <name>, "path": [<key>, …], "range": [<from>, <to>]}'
UNDO_EXAMPLE = '{"user": <name> or "session": <number>, "from": <seq or time>, "to": <seq or time>}'


@door(method="POST", role=Role.EDITOR)
def restore_moment(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`{"seq": n}` restores the whole document; with `"root"` that root; with `"path"` besides, a list of keys, what is
    under the last of them; with `"root"` and `"range": [from, to]` a range of its text at n, in UTF-16 units.

    An optional `"request_key"` makes a second sending harmless → 201 `{"document", "source_seq", "seq", "at",
    "changed": true}`; 200 with `"seq": null, "changed": false` when it is that already. With `"preview": true` see
    `_previewed`. 400 malformed, 401, 403 `forbidden` or `csrf`, 404 also `no_such_piece`, 409 `not_restorable` or
    `refused`, 503 `log_unavailable` or `outcome_unknown` (look before sending again)."""
    body = json_in(request, example=RESTORE_EXAMPLE)
    seq = body.get("seq")
    if not is_seq(seq):
        raise BadMoment(f"Send {RESTORE_EXAMPLE}; root, path and range may be left out.")
    piece, span = _piece_in(body)
    request_key = request_key_in(body, act="restore")
    answer = {"document": str(document.key), "source_seq": seq}
    if _is_preview(body):
        return _previewed(document, plan_restore(document.pk, seq, piece=piece, span=span), answer)
    return _done(
        request,
        document,
        lambda session: restore(session, seq, piece=piece, span=span, request_key=request_key),
        answer,
    )


@door(method="POST", role=Role.EDITOR)
def undo_edits(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`{"user"}` (a user name) or `{"session"}` (as `runs` names them), `"from"` and `"to"`: seqs or times (ISO 8601
    with offset), both included; without `"to"` to the head → as `restore_moment`, with `"from_seq"` and `"to_seq"`.

    What they wrote there goes, what they deleted comes back; what others wrote stays. Nobody's edits, and those of
    somebody unknown, are none: `"changed": false`. Codes as for `restore_moment`, and 409 `too_many_updates`."""
    body = json_in(request, example=UNDO_EXAMPLE)
    whose = _whose_in(body)
    request_key = request_key_in(body, act="undo")
    first_seq, last_seq = _seqs_in(body, document)
    answer = {"document": str(document.key), "from_seq": first_seq, "to_seq": last_seq}
    if first_seq > last_seq:
        return JsonResponse({**answer, "seq": None, "at": None, "changed": False})
    if _is_preview(body):
        plan = plan_undo(document.pk, whose, first_seq=first_seq, last_seq=last_seq)
        return _previewed(document, plan, answer)
    return _done(
        request,
        document,
        lambda session: undo(session, whose, first_seq=first_seq, last_seq=last_seq, request_key=request_key),
        answer,
    )


def _previewed(document: Document, plan: Plan, answer: Mapping[str, Any]) -> HttpResponseBase:
    """200 `{…, "head_seq", "changed", "updates", "inserted", "deleted", "content"}`: how many updates are undone (0 for
    a restore), how many characters of texts come and go, and what the document would say then, as `content` has it."""
    body = {
        **answer,
        "head_seq": plan.head_seq,
        "changed": plan.update is not None,
        "updates": plan.updates,
        "inserted": plan.inserted,
        "deleted": plan.deleted,
        "content": content_after(document.pk, plan),
    }
    return JsonResponse(body)


def _done(
    request: HttpRequest,
    document: Document,
    act: Callable[[WriteSession], Stored | None],
    answer: Mapping[str, Any],
) -> HttpResponseBase:
    session = write_session(
        document,
        actor=request.user,
        via=Via.API,
        ip=address_of(request),
        user_agent=request.headers.get("User-Agent", ""),
    )
    stored = act(session)
    if stored is None:
        return JsonResponse({**answer, "seq": None, "at": None, "changed": False})
    body = {**answer, "seq": stored.seq, "at": stored.at, "changed": True}
    return JsonResponse(body, status=HTTPStatus.OK if stored.repeated else HTTPStatus.CREATED)


def _is_preview(body: Mapping[str, Any]) -> bool:
    preview = body.get("preview", False)
    if not isinstance(preview, bool):
        raise BadMoment("preview is true or false.")
    return preview


def _piece_in(body: Mapping[str, Any]) -> tuple[Piece | None, Span | None]:
    root, path, units = body.get("root"), body.get("path", []), body.get("range")
    if root is None and not path and units is None:
        return None, None
    if not isinstance(root, str) or not _is_path(path):
        raise BadMoment("root is the name of a root, path a list of keys in it.")
    if units is None:
        return Piece(root, tuple(path)), None
    is_range = isinstance(units, list) and len(units) == 2 and all(map(is_seq, units)) and units[0] < units[1]
    if not is_range or path:
        raise BadMoment("range is [from, to] of a root that is a text, in UTF-16 units, to not included.")
    return Piece(root), Span(*units)


def _is_path(path: object) -> bool:
    return isinstance(path, list) and len(path) <= PATH_KEYS_MAX and all(isinstance(key, str) for key in path)


def _whose_in(body: Mapping[str, Any]) -> Whose:
    user, session = body.get("user"), body.get("session")
    if isinstance(user, str) and session is None:
        account = user_named(user)
        return Whose() if account is None else Whose(user_key=account.pk)
    if is_seq(session) and user is None:
        return Whose(session_id=session)
    raise BadMoment(f"Send {UNDO_EXAMPLE}.")


def _seqs_in(body: Mapping[str, Any], document: Document) -> tuple[int, int]:
    """Raises: BadMoment, NoSuchSeq."""
    begin, end = body.get("from"), body.get("to")
    head_seq = head_of(document.pk).seq
    end = head_seq if end is None else end
    first_seq = begin if is_seq(begin) else first_seq_since(document.pk, _time_in(body, "from"))
    last_seq = end if is_seq(end) else last_seq_until(document.pk, _time_in(body, "to"))
    for asked, seq in ((begin, first_seq), (end, last_seq)):
        if is_seq(asked) and not 1 <= seq <= max(head_seq, 1):
            raise NoSuchSeq(document.pk, seq, head_seq)
    return first_seq, last_seq


def _time_in(body: Mapping[str, Any], name: str) -> datetime:
    value = body.get(name)
    moment = time_in({name: value}, name) if isinstance(value, str) else None
    if moment is None:
        raise BadMoment(f"{name} is a seq from 1, or a time such as 2025-01-31T14:00:00Z.")
    return moment
