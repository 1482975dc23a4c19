"""What changed, who wrote what, and how it came about, for programs; viewers and up."""

import json
from collections.abc import Generator, Iterator
from dataclasses import asdict
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import get_conditional_response

from documents.conf import conf
from documents.models import Document, Role
from history.api.doors import author_name, door
from history.blaming import Writing, blame_of
from history.heavy_reads import heavy_read
from history.parameters import count_in, flag_in, seq_in
from history.problems import PROBLEMS, BadMoment, problem_of
from history.reading import Step, difference, playback
from history.streaming import streamed
from history.timeline import Place, place_of

STEPS_DEFAULT = 100


@door(method="GET", role=Role.VIEWER)
def changes(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?from=&to=` (seqs; the head without `to`, the seq before it without `from`) → `{"document", "from", "to",
    "head_seq", "words", "counts", "changes"}`; `changes` is null above READING_BYTES_MAX, words and counts stay.

    304 to an ETag of before, 400 malformed, 401, 404 `not_found` or `no_such_seq`, 409 `too_deep`, 503 log damaged."""
    from_seq, to = _span_in(request, document)
    etag = _etag(document, to, f"{from_seq}.changes")
    unchanged = get_conditional_response(request, etag=etag)
    if unchanged is not None:
        return unchanged
    found = difference(document, from_seq=from_seq, to_seq=to.seq)
    answer = {
        "document": str(document.key),
        "from": found.from_seq,
        "to": found.to_seq,
        "head_seq": found.head_seq,
        "words": found.words,
        "counts": asdict(found.counts),
    }
    return _tagged(_with_bounded(answer, "changes", found.changes), etag)


@door(method="GET", role=Role.VIEWER)
def blame(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?seq=` (the head without) and `?deleted=1` → `{"document", "seq", "head_seq", "writings": {number: {"author",
    "via", "kind", "seq", "at"}}, "content"}`: `by` and `deleted_by` in the content are numbers of writings, 0 is
    unknown. `content` is null above READING_BYTES_MAX. Refusals as of `changes`."""
    place = place_of(document, seq=seq_in(request.GET, "seq"))
    with_deleted = flag_in(request.GET, "deleted")
    etag = _etag(document, place, f"blame{with_deleted:d}")
    unchanged = get_conditional_response(request, etag=etag)
    if unchanged is not None:
        return unchanged
    with heavy_read():
        found = blame_of(document, seq=place.seq, deleted=with_deleted)
    answer = {
        "document": str(document.key),
        "seq": found.seq,
        "head_seq": found.head_seq,
        "writings": {number: _writing(writing) for number, writing in found.writings.items()},
    }
    return _tagged(_with_bounded(answer, "content", found.content), etag)


@door(method="GET", role=Role.VIEWER)
def playback_steps(request: HttpRequest, document: Document) -> HttpResponseBase:
    """`?from=&to=&steps=` (from 0 to the head without, STEPS_DEFAULT steps) → JSON Lines, one for each step as it is
    folded: `{"from", "seq", "at", "authors", "words", "changes"}`; `changes` is null above READING_BYTES_MAX.

    A problem after the first line is a last line `{"error": {"code", "message"}}`."""
    steps = count_in(
        request.GET, "steps", default=min(STEPS_DEFAULT, conf().playback_steps_max), at_most=conf().playback_steps_max
    )
    from_seq, to = _span_in(request, document, from_start=True)
    lines = _lines(playback(document, from_seq=from_seq, to_seq=to.seq, steps=steps))
    return streamed(request, lines, content_type="application/jsonl")


def _span_in(request: HttpRequest, document: Document, *, from_start: bool = False) -> tuple[int, Place]:
    """Raises: BadMoment, NoSuchSeq."""
    to = place_of(document, seq=seq_in(request.GET, "to"))
    from_seq = seq_in(request.GET, "from")
    if from_seq is None:
        from_seq = 0 if from_start else max(to.seq - 1, 0)
    if from_seq > to.seq:
        raise BadMoment("from is a seq that is not after to.")
    return from_seq, to


def _lines(steps: Iterator[Step]) -> Generator[bytes]:
    try:
        for step in steps:
            yield _with_bounded(_step(step), "changes", step.changes).content + b"\n"
    except PROBLEMS as error:
        problem = problem_of(error)
        yield _encoded({"error": {"code": problem.code, "message": problem.message}}) + b"\n"


def _step(step: Step) -> dict[str, Any]:
    return {
        "from": step.from_seq,
        "seq": step.seq,
        "at": step.at,
        "authors": [author_name(author) for author in step.authors],
        "words": step.words,
    }


def _writing(writing: Writing) -> dict[str, Any]:
    """Without the address that it came from."""
    return {
        "author": author_name(writing.author),
        "via": writing.via.label if writing.via else None,
        "kind": writing.kind.label,
        "seq": writing.seq,
        "at": writing.at,
    }


def _with_bounded(answer: dict[str, Any], name: str, value: Any) -> HttpResponse:
    """An answer with a part that is left out where it is larger than READING_BYTES_MAX."""
    part = _encoded(value)
    if len(part) > conf().reading_bytes_max:
        part = b"null"
    # Put together as bytes, so that the large part is written once.
    body = _encoded(answer)[:-1] + b', "%s": ' % name.encode() + part + b"}"
    return HttpResponse(body, content_type="application/json")


def _encoded(value: Any) -> bytes:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False).encode()


def _etag(document: Document, place: Place, what: str) -> str:
    """Weak, as that of the content: an author may have been renamed."""
    return f'W/"{document.key}.{place.epoch}.{place.seq}.{place.head_seq}.{what}"'


def _tagged(response: HttpResponse, etag: str) -> HttpResponse:
    response["ETag"] = etag
    return response
