"""The audit as a file: how long a million lines take, and how much memory. The database itself makes the lines."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

from django.db import connection
from django.utils import timezone

from documents.models import Document
from history.audit.export import FORMS
from history.audit.trail import TrailFilter, trail
from history.models import Action, Head, Kind, Via

DOCUMENTS = 100
RUNS_PER_SEGMENT = 1000
WARM_UP_LINES = 4000

# One hash for all: an export proves nothing.
MAKE_ENTRIES = """
INSERT INTO history_auditentry
    (document_id, n, action, at, user_id, via, ip, salt, commitment, detail, detail_sha256, hash)
SELECT %(first)s + number %% %(documents)s, 1000 + number / %(documents)s, %(action)s,
       %(at)s - make_interval(secs => number), NULL, %(via)s, '192.0.2.7', '', '', '{"of": "audit"}', '', ''
FROM generate_series(1, %(entries)s) number
"""
MAKE_SEGMENTS = """
INSERT INTO history_segment
    (document_id, first_seq, last_seq, first_at, last_at, codec, payload, start_hash, end_hash, counts)
SELECT %(document)s, number * %(size)s + 1, (number + 1) * %(size)s, %(at)s, %(at)s, 1, '', '', '', '{}'
FROM generate_series(0, %(runs)s / %(size)s - 1) number
"""
MAKE_RUNS = """
INSERT INTO history_run
    (document_id, session_id, first_seq, last_seq, first_at, last_at, kind, updates, bytes, inserted, deleted)
SELECT %(document)s, number, number, number, moment, moment, %(kind)s, 1, 30, 1, 0
FROM generate_series(1, %(runs)s) number,
     LATERAL (SELECT %(at)s - make_interval(secs => 10 * (%(runs)s - number)) AS moment) moments
"""


def run(*, lines: int) -> None:
    """Nine lines of ten are acts, on many documents; one of ten is an edit, each by somebody else, all on one."""
    runs = max(lines // 10 // RUNS_PER_SEGMENT, 1) * RUNS_PER_SEGMENT
    _make(entries=lines, runs=runs)
    wanted = TrailFilter(documents=Document.objects.all(), beyond=True)
    for form, (_, chunks_of) in FORMS.items():
        sum(map(len, chunks_of(islice(trail(wanted), WARM_UP_LINES))))  # what stays in memory once it was used
        before, began, size = _own_kilobytes(), time.perf_counter(), 0
        most = before
        for chunk in chunks_of(trail(wanted)):
            size += len(chunk)
            most = max(most, _own_kilobytes())
        seconds = time.perf_counter() - began
        grown = most - before
        print(
            f"{form}: {lines + runs:,} lines and more, {size:,} bytes in {seconds:.1f} s, "
            f"{(lines + runs) / seconds:,.0f} lines/s, memory grew by {grown / 1024:.1f} MiB at most"
        )


def _make(*, entries: int, runs: int) -> None:
    documents = [Document.objects.create(name=f"audited-{number}", title="Audited") for number in range(DOCUMENTS)]
    at = timezone.now()
    shared: dict[str, Any] = {"at": at, "runs": runs, "size": RUNS_PER_SEGMENT, "document": documents[0].pk}
    with connection.cursor() as cursor:
        acts: dict[str, Any] = {"at": at, "action": Action.EXPORTED, "via": Via.API, "entries": entries}
        cursor.execute(MAKE_ENTRIES, {**acts, "first": documents[0].pk, "documents": DOCUMENTS})
        cursor.execute(MAKE_SEGMENTS, shared)
        cursor.execute(MAKE_RUNS, {**shared, "kind": Kind.EDIT})
    Head.objects.filter(document=documents[0]).update(seq=runs, at=at)


def _own_kilobytes() -> int:
    """What this process has allocated, wherever Linux keeps it at the moment: pages of libraries come and go."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
