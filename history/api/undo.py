"""Restore and undo for programs, each with a preview: what the document would say, and nothing is written."""

from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from documents.acts import address_of
from documents.models import Document, Role
from history.api.doors import door
from history.fates import Stored
from history.models import Via
from history.parameters import is_seq, json_in, piece_in, request_key_in, time_in
from history.problems import BadMoment
from history.sessions import WriteSession
from history.timeline import user_named
from history.undoing import Plan, Whose, content_after, plan_restore, plan_undo, seqs_between, span_undone
from history.writes import restore, undo, write_session

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
    piece, span = piece_in(body)
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
    if stored.repeated:
        # The span of then: without an end, this asking may mean more than was carried out.
        answer = {**answer, **span_undone(document.pk, stored.seq)}
    body = {**answer, "seq": stored.seq, "at": stored.at, "changed": True}
    return JsonResponse(body, status=HTTPStatus.OK if stored.repeated else HTTPStatus.CREATED)


def _is_preview(body: Mapping[str, Any]) -> bool:
    preview = body.get("preview", False)
    if not isinstance(preview, bool):
        raise BadMoment("preview is true or false.")
    return preview


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
    begin = _seq_or_time(body, "from")
    end = None if body.get("to") is None else _seq_or_time(body, "to")
    return seqs_between(document.pk, begin, end)


def _seq_or_time(body: Mapping[str, Any], name: str) -> int | datetime:
    value = body.get(name)
    if is_seq(value):
        return value
    moment = time_in({name: value}, name) if isinstance(value, str) else None
    if moment is None:
        raise BadMoment(f"{name} is a seq from 1, or a time such as 2025-01-31T14:00:00Z.")
    return moment
