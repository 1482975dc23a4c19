"""The strip: a document's whole life in at most COLUMNS_MAX columns. Who wrote how much of each, and where versions,
restores and undos stand.

Whatever the log holds, this reads a bounded number of rows and runs, by their keys, and no payload."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection

from documents.models import Document
from history.authors import Author, author_of
from history.log import consistent_read, head_of
from history.models import ACT_KINDS, Kind, Segment

COLUMNS_MAX = 200

RUNS_PER_COLUMN_MAX = 50
"""Of a column of squashed rows in which more runs begin, the first ones speak for all."""

ROWS_PER_COLUMN_MAX = 16
"""Of a column of live rows, so many at most are asked for their author, as far apart as each other."""

AUTHORS_PER_COLUMN_MAX = 4
AUTHORS_MAX = 12
"""Authors that the strip names; the others share one colour."""

ACTS_MAX = 1000
"""The newest restores and undos, as many of the live rows and of the squashed ones."""

# Each run, spread over the columns that it reaches into by its share of seqs there; so are its times.
SQUASHED_COLUMNS = """
SELECT n, session.user_id,
       SUM(run.updates * (LEAST(run.last_seq, (n + 1) * %(width)s) - GREATEST(run.first_seq, n * %(width)s + 1) + 1)
           / (run.last_seq - run.first_seq + 1)::float),
       MIN(run.first_at + (run.last_at - run.first_at) * GREATEST(n * %(width)s + 1 - run.first_seq, 0)
           / (run.last_seq - run.first_seq + 1)::float)
FROM generate_series(0, (%(squashed)s - 1) / %(width)s) AS opened
CROSS JOIN LATERAL (
    SELECT session_id, first_seq, last_seq, first_at, last_at, updates FROM history_run
    WHERE document_id = %(document_id)s
      AND first_seq BETWEEN opened * %(width)s + 1 AND (opened + 1) * %(width)s
    ORDER BY first_seq LIMIT %(runs_max)s
) run
LEFT JOIN history_session session ON session.document_id = %(document_id)s AND session.id = run.session_id
CROSS JOIN LATERAL generate_series((run.first_seq - 1) / %(width)s, (run.last_seq - 1) / %(width)s) AS n
GROUP BY n, session.user_id
"""
# The limit says nothing, but keeps the database from looking through all rows for those that are asked for.
LIVE_COLUMNS = """
SELECT (row.seq - 1) / %(width)s, session.user_id, COUNT(*) * %(apart)s::float, MIN(row.at)
FROM generate_series(%(squashed)s + 1, %(head_seq)s, %(apart)s) AS asked
CROSS JOIN LATERAL (
    SELECT seq, session_id, at FROM history_update WHERE document_id = %(document_id)s AND seq = asked LIMIT 1
) row
LEFT JOIN history_session session ON session.document_id = %(document_id)s AND session.id = row.session_id
GROUP BY 1, 2
"""
VERSIONS = """
SELECT (GREATEST(seq, 1) - 1) / %(width)s, automatic, MAX(seq), COUNT(*), (ARRAY_AGG(name ORDER BY seq DESC, id))[1]
FROM history_version WHERE document_id = %(document_id)s AND seq <= %(head_seq)s GROUP BY 1, 2
"""
_ACT_KINDS = ", ".join(str(kind.value) for kind in ACT_KINDS)
ACTS = f"""
SELECT (seq - 1) / %(width)s, kind, MAX(seq), COUNT(*) FROM (
    (SELECT seq, kind FROM history_update WHERE document_id = %(document_id)s AND kind IN ({_ACT_KINDS})
     ORDER BY seq DESC LIMIT %(acts_max)s)
    UNION ALL
    (SELECT last_seq, kind FROM history_run WHERE document_id = %(document_id)s AND kind IN ({_ACT_KINDS})
     ORDER BY last_seq DESC LIMIT %(acts_max)s)
) act WHERE seq <= %(head_seq)s GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one author wrote of a column: from `start` to `stop`, of 1. `author` is None for all the others together."""

    author: Author | None
    start: float
    stop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Seqs first_seq..last_seq, both inclusive; `at` is about when the first was written."""

    first_seq: int
    last_seq: int
    at: datetime | None
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Versions or acts of one column, of which `seq` is the last; `count` says how many. `what` is `named` or
    `automatic` for versions, of which `name` is one's name, or the kind of an act."""

    what: str
    seq: int
    count: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of the whole is an author's: 0 to 1; None for all who are not named."""

    author: Author | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Columns by seq, gapless; marks by seq; shares, the largest first. All empty while nobody has written."""

    head_seq: int
    columns: Sequence[Column]
    marks: Sequence[Mark]
    shares: Sequence[Share]


_Weights = dict[int, dict[int | None, float]]


def strip_of(document: Document) -> Strip:
    """Seven queries, whatever the document is. Who wrote how much is told of columns, not of rows: where rows or
    runs are many, by some of them."""
    with consistent_read():
        head_seq = head_of(document.pk).seq
        if not head_seq:
            return Strip(head_seq=0, columns=(), marks=(), shares=())
        width = -(-head_seq // COLUMNS_MAX)
        squashed = Segment.objects.filter(document=document).order_by("-first_seq").values_list("last_seq", flat=True)
        asked = {
            "document_id": document.pk,
            "head_seq": head_seq,
            "width": width,
            "squashed": squashed.first() or 0,
            "apart": -(-width // ROWS_PER_COLUMN_MAX),
            "runs_max": RUNS_PER_COLUMN_MAX,
            "acts_max": ACTS_MAX,
        }
        weights: _Weights = defaultdict(lambda: defaultdict(float))
        times: dict[int, datetime] = {}
        for query in (SQUASHED_COLUMNS, LIVE_COLUMNS):
            for number, user_id, weight, at in _rows(query, asked):
                weights[number][user_id] += weight
                times[number] = min(at, times.get(number, at))
        marks = [
            *(
                Mark(what="automatic" if automatic else "named", seq=seq, count=count, name=name)
                for _, automatic, seq, count, name in _rows(VERSIONS, asked)
            ),
            *(Mark(what=Kind(kind).label, seq=seq, count=count) for _, kind, seq, count in _rows(ACTS, asked)),
        ]
        shares, named = _shares(weights)
        columns = [
            Column(
                first_seq=number * width + 1,
                last_seq=min((number + 1) * width, head_seq),
                at=times.get(number),
                parts=_parts(weights.get(number, {}), named),
            )
            for number in range(-(-head_seq // width))
        ]
    return Strip(head_seq=head_seq, columns=columns, marks=sorted(marks, key=lambda mark: mark.seq), shares=shares)


def _rows(query: str, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, asked)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _shares(weights: _Weights) -> tuple[list[Share], dict[int | None, Author]]:
    """The shares of the whole, and the authors that are named, by user id, in the same order."""
    totals: dict[int | None, float] = defaultdict(float)
    for column in weights.values():
        for user_id, weight in column.items():
            totals[user_id] += weight
    whole = sum(totals.values())
    # By their text: keys of a host's accounts may be of any type, and nobody's is None.
    largest = sorted(totals, key=lambda user_id: (-totals[user_id], str(user_id)))[:AUTHORS_MAX]
    users = get_user_model().objects.in_bulk([user_id for user_id in largest if user_id is not None])
    named = {user_id: author_of(users.get(user_id)) for user_id in largest}
    shares = [Share(author=author, share=totals[user_id] / whole) for user_id, author in named.items()]
    if len(totals) > len(largest):
        shares.append(Share(author=None, share=1 - sum(share.share for share in shares)))
    return shares, named


def _parts(column: Mapping[int | None, float], named: Mapping[int | None, Author]) -> list[Part]:
    """The largest authors of a column in the order of the whole strip, so that a colour keeps its height."""
    whole = sum(column.values())
    largest = sorted(set(column) & set(named), key=lambda user_id: -column[user_id])[:AUTHORS_PER_COLUMN_MAX]
    parts: list[Part] = []
    start = 0.0
    for user_id, author in named.items():
        if user_id in largest:
            stop = start + column[user_id] / whole
            parts.append(Part(author=author, start=start, stop=stop))
            start = stop
    if len(column) > len(largest):
        parts.append(Part(author=None, start=start, stop=1.0))
    return parts
