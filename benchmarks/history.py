"""What a document's past costs: bytes an update, and milliseconds to open it at a random moment.

Of the recorded editing trace, and of documents of one size after 10,000, 100,000 and 1,000,000 updates; beside them the
same editing kept by a Yjs document with `gc: false` and by pycrdt-store. Prints tables in Markdown."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.db import connection
from django.db.models import Sum
from django.db.models.functions import Length
from django.utils import timezone
from pycrdt import Doc

from benchmarks.editing_trace import relation_bytes, updates_of
from benchmarks.keeping_everything import Kept, in_pycrdt_store, in_yjs, some
from benchmarks.past_loading import load
from benchmarks.typists import Typed, typed_and_deleted
from documents.conf import conf
from documents.models import Document
from history.blaming import blame_of
from history.crdt.folding import fold
from history.folds import document_at, make_ydoc
from history.ladder import build_ladder
from history.log import consistent_read, read_log
from history.models import Segment, Snapshot, Update
from history.reading import difference
from history.squash import squash_document
from history.timeline import moment_of, run_page
from history.undoing import Plan, Whose, plan_restore, plan_undo

ROWS_PER_SESSION = 2000
"""Of the trace, which does not tell sessions."""
PEER_MOMENTS = 20
PEER_UPDATES_MAX = 4_000_000
"""Moments that are opened by the others, and updates in all of these: they take seconds for each of a long document."""
CHARACTERS = 20_000
COPIED_UPDATES = 10_000
"""Behind a copy of the longest document: as large as that for Yjs, which keeps what was deleted, and short."""

Opener = Callable[[Document, int], object]

MEASURES: dict[str, Opener] = {
    "the document": lambda document, seq: document_at(document.pk, seq=seq),
    "content, author and time": moment_of,
    "the difference of 1,000 updates": lambda document, seq: difference(
        document, from_seq=max(seq - 1000, 0), to_seq=seq
    ),
    "a page of the list of edits": lambda document, seq: run_page(document, before=seq),
    "all that was ever deleted besides": lambda document, seq: document_at(document.pk, seq=seq, full=True),
    "who wrote each character, warm": lambda document, seq: blame_of(document, seq=seq),
    "a restore, planned": lambda document, seq: plan_restore(document.pk, seq),
    "an undo of 1,000 updates, planned": lambda document, seq: _undone(document, seq),
}
"""What is done at random seqs; another measure is another line. A restore and an undo are tried on a copy of the head,
which is all of them but the gate and the append."""

UNDONE_UPDATES = 1000

PACKED_TABLES = ("history_segment", "history_run", "history_session")
LINE_POINTER_BYTES = 4
INDEX_ENTRY_BYTES = 32
"""Two numbers of 8 bytes, a header and a line pointer, in pages that are nine tenths full."""
OUT_OF_LINE_PERCENT = 3
"""60 bytes of header, line pointer and index for each 1,996 of a segment's payload."""

MOMENTS_OF_SLOW = 20
"""Moments that are enough for what reads a document several times."""

SLOW = {
    "all that was ever deleted besides",
    "who wrote each character, warm",
    "a restore, planned",
    "an undo of 1,000 updates, planned",
}


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds by the clock, and of them those that this process computed."""

    p50: float
    p95: float
    cpu_p95: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} | {self.p95:.1f} | {self.cpu_p95:.1f}"


def run(trace: Path | None, *, sizes: Sequence[int], moments: int, seed: int, peers: bool) -> None:
    """Measure the trace (None: leave it out) and generated documents of `sizes` updates, each by itself."""
    if trace is not None:
        typed = [Typed(update, place // ROWS_PER_SESSION) for place, update in enumerate(updates_of(trace))]
        _measure(trace.name, typed, moments=moments, seed=seed, peers=peers)
    for size in sizes:
        updates = list(typed_and_deleted(size, characters=CHARACTERS, seed=seed))
        _measure(f"{CHARACTERS:,} characters", updates, moments=moments, seed=seed, peers=peers)
    if sizes:
        updates = list(typed_and_deleted(max(sizes) + COPIED_UPDATES, characters=CHARACTERS, seed=seed))
        name = f"a copy of the last, without its history, then {COPIED_UPDATES:,} more of the same"
        _measure(name, _copied(updates, at=max(sizes)), moments=moments, seed=seed, peers=False)


def _measure(name: str, updates: list[Typed], *, moments: int, seed: int, peers: bool) -> None:
    _empty_tables()
    seqs = random.Random(seed).choices(range(1, len(updates) + 1), k=moments)
    print(f"\n## {name}, {len(updates):,} updates, {moments} random moments\n")
    started = time.perf_counter()
    document = load("history", updates)
    print(f"copied into the log in {time.perf_counter() - started:.1f} s")
    make_ydoc(document.pk)
    hot = relation_bytes("history_update", "history_session")
    print(f"hot: {hot / len(updates):.1f} bytes an update; all told: payload, time, session, hash, index")
    listed = _times(lambda seq: run_page(document, before=seq), seqs[:MOMENTS_OF_SLOW])
    print(f"a page of the list of edits, none of them squashed: p50 | p95 | computing, ms: {listed}")
    started = time.perf_counter()
    squash_document(document.pk, older_than=timezone.now())
    squashed = time.perf_counter()
    made = build_ladder(document.pk)
    print(f"squashed in {squashed - started:.1f} s; {made} snapshots made in {time.perf_counter() - squashed:.1f} s")
    _report_bytes(document, len(updates))
    print("\n| opened at a moment, ms | p50 | p95 | computing, p95 |\n|---|---|---|---|")
    for what, opener in MEASURES.items():
        asked = seqs[:MOMENTS_OF_SLOW] if what in SLOW else seqs
        print(f"| {what} | {_times(partial(opener, document), asked)} |")
    if peers:
        count = max(min(PEER_MOMENTS, PEER_UPDATES_MAX // len(updates)), 1)
        _report_peers([typed.update for typed in updates], some(seqs, count))


def _copied(updates: Sequence[Typed], *, at: int) -> list[Typed]:
    """The first `at` updates as one, which a copy of the document begins with, and the others."""
    doc: Doc[Any] = Doc()
    limits = conf()
    fold(
        doc,
        (typed.update for typed in updates[:at]),
        rows_per_transaction=limits.fold_rows_per_transaction,
        bytes_per_transaction=limits.fold_bytes_per_transaction,
    )
    return [Typed(doc.get_update(), 0), *updates[at:]]


def _empty_tables() -> None:
    """Each workload has the tables to itself, so that their sizes are its own."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE documents_document, history_update CASCADE")


def _report_bytes(document: Document, updates: int) -> None:
    segments = Segment.objects.filter(document=document)
    packed = segments.aggregate(bytes=Sum(Length("payload")))["bytes"] or 0
    snapshots = Snapshot.objects.filter(document=document)
    taken = snapshots.aggregate(bytes=Sum(Length("state")) + Sum(Length("full_state")))["bytes"] or 0
    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL history_segment, history_run, history_session")
    on_disk = relation_bytes(*PACKED_TABLES) / updates
    told = sum(map(_kept_bytes, PACKED_TABLES)) / updates
    live = Update.objects.filter(document=document).count()
    log = packed + (Update.objects.filter(document=document).aggregate(bytes=Sum(Length("payload")))["bytes"] or 0)
    print(
        f"packed: {packed / max(updates - live, 1):.2f} bytes an update, {told:.2f} all told (payload, time, session, "
        f"runs, indexes), {on_disk:.2f} with what is empty of their pages, {live} rows still hot\n"
        f"snapshots: {snapshots.count()}, {taken:,} bytes = {100 * taken / log:.0f}% of the log's {log:,}; "
        f"the newest opens with {snapshots.order_by('-seq')[0].state_bytes:,}"
    )


def _kept_bytes(table: str) -> int:
    """What the rows of a table and their places in its indexes take, without what is empty of pages: a short document
    has pages nearly to itself."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*), coalesce(sum(pg_column_size(each.*)), 0),"
            f" (SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass) FROM {table} each",
            [table],
        )
        rows, bytes_, indexes = map(int, cursor.fetchone())
    return rows * (LINE_POINTER_BYTES + indexes * INDEX_ENTRY_BYTES) + bytes_ * (100 + OUT_OF_LINE_PERCENT) // 100


def _undone(document: Document, seq: int) -> Plan:
    """Undo what the session of a seq did in the updates up to it."""
    with consistent_read():
        row = next(read_log(document.pk, after=seq - 1, until=seq))
    first_seq = max(seq - UNDONE_UPDATES + 1, 1)
    return plan_undo(document.pk, Whose(session_id=row.session_id), first_seq=first_seq, last_seq=seq)


def _times(open_at: Callable[[int], object], seqs: Sequence[int]) -> Times:
    open_at(seqs[0])
    clock, cpu = [], []
    for seq in seqs:
        started, computed = time.perf_counter(), time.thread_time()
        open_at(seq)
        clock.append((time.perf_counter() - started) * 1e3)
        cpu.append((time.thread_time() - computed) * 1e3)
    return Times(statistics.median(clock), _p95(clock), _p95(cpu))


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[max(len(values) * 95 // 100 - 1, 0)]


def _report_peers(updates: Sequence[bytes], seqs: Sequence[int]) -> None:
    print(f"\n| kept by, {len(seqs)} moments | bytes an update | p50, ms | p95, ms | |\n|---|---|---|---|---|")
    _report_peer("Yjs, `gc: false`", in_yjs(updates, seqs), len(updates))
    kept = in_pycrdt_store(updates, seqs)
    if kept is None:
        print("| pycrdt-store, SQLite | not installed | | | |")
    else:
        _report_peer("pycrdt-store, SQLite", kept, len(updates))


def _report_peer(name: str, kept: Kept, updates: int) -> None:
    opened = f"{statistics.median(kept.opened_ms):.1f} | {_p95(kept.opened_ms):.1f}"
    print(f"| {name} | {kept.bytes / updates:.1f} | {opened} | {kept.note} |")
