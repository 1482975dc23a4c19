"""What a document's past costs: bytes an update, and milliseconds to open it at a random moment.

Of the recorded editing trace, and of documents of one size after 10,000, 100,000 and 1,000,000 updates; beside them the
same editing kept by a Yjs document with `gc: false` and by pycrdt-store. Prints tables in Markdown."""

import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

from django.db import connection
from django.db.models import Sum
from django.db.models.functions import Length
from django.utils import timezone

from benchmarks.editing_trace import relation_bytes, updates_of
from benchmarks.keeping_everything import Kept, in_pycrdt_store, in_yjs, some
from benchmarks.typists import typed_and_deleted
from documents.models import Document
from history.append import append
from history.blaming import blame_of
from history.crdt.chain import GENESIS, row_hash
from history.fates import PendingUpdate
from history.folds import document_at, make_ydoc
from history.ladder import build_ladder
from history.log import consistent_read, read_log
from history.models import Head, Segment, Session, Snapshot, Update, Via
from history.reading import difference
from history.sessions import WriteSession
from history.squash import squash_document
from history.timeline import moment_of
from history.times import microseconds
from history.undoing import Plan, Whose, plan_restore, plan_undo

ROWS_PER_APPEND = 1000
ROWS_PER_SESSION = 2000
PEER_MOMENTS = 20
"""Moments that are opened by the others, which take seconds for each of a long document."""
CHARACTERS = 20_000

Opener = Callable[[Document, int], object]

MEASURES: dict[str, Opener] = {
    "the document": lambda document, seq: document_at(document.pk, seq=seq),
    "content, author and time": moment_of,
    "the difference of 1,000 updates": lambda document, seq: difference(
        document, from_seq=max(seq - 1000, 0), to_seq=seq
    ),
    "who wrote each character, warm": lambda document, seq: blame_of(document, seq=seq),
    "a restore, planned": lambda document, seq: plan_restore(document.pk, seq),
    "an undo of 1,000 updates, planned": lambda document, seq: _undone(document, seq),
}
"""What is done at random seqs; another measure is another line. A restore and an undo are tried on a copy of the head,
which is all of them but the gate and the append."""

UNDONE_UPDATES = 1000

MOMENTS_OF_SLOW = 20
"""Moments that are enough for what reads a document several times."""

SLOW = ("who wrote each character, warm", "a restore, planned", "an undo of 1,000 updates, planned")


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
        _measure(trace.name, list(updates_of(trace)), moments=moments, seed=seed, peers=peers)
    for size in sizes:
        updates = list(typed_and_deleted(size, characters=CHARACTERS, seed=seed))
        _measure(f"{CHARACTERS:,} characters", updates, moments=moments, seed=seed, peers=peers)


def _measure(name: str, updates: list[bytes], *, moments: int, seed: int, peers: bool) -> None:
    _empty_tables()
    seqs = random.Random(seed).choices(range(1, len(updates) + 1), k=moments)
    print(f"\n## {name}, {len(updates):,} updates, {moments} random moments\n")
    document = _load(updates, seed=seed)
    make_ydoc(document.pk)
    hot = relation_bytes("history_update", "history_session")
    print(f"hot: {hot / len(updates):.1f} bytes an update; all told: payload, time, session, hash, index")
    _age(document)
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
        _report_peers(updates, some(seqs, PEER_MOMENTS))


def _empty_tables() -> None:
    """Each workload has the tables to itself, so that their sizes are its own."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE documents_document, history_update CASCADE")


def _load(updates: Sequence[bytes], *, seed: int) -> Document:
    """Append each update as a row, three people by turns for some two thousand updates each."""
    document = Document.objects.create(name=f"history-{uuid.uuid4().hex}", title="History", open_to_all=True)
    started = time.perf_counter()
    rest = iter(updates)
    while rows := list(islice(rest, ROWS_PER_SESSION)):
        session = WriteSession(
            document_id=document.pk, user=None, via=Via.IMPORT, opened_at=timezone.now(), requires_role=False
        )
        for start in range(0, len(rows), ROWS_PER_APPEND):
            append([PendingUpdate(session=session, payload=update) for update in rows[start : start + ROWS_PER_APPEND]])
    print(f"appended in {time.perf_counter() - started:.1f} s")
    return document


def _age(document: Document) -> None:
    """Give the rows the times of somebody who types, up to two days ago, and their hashes."""
    head = Head.objects.get(document=document)
    gaps = _human_gaps(head.seq)
    at = timezone.now() - timedelta(days=2) - timedelta(microseconds=sum(gaps))
    commitments = dict(Session.objects.filter(document=document).values_list("id", "commitment"))
    hash_ = GENESIS
    for start in range(1, head.seq + 1, ROWS_PER_SESSION):
        rows = Update.objects.filter(document=document, seq__gte=start, seq__lt=start + ROWS_PER_SESSION)
        changed: list[tuple[int, datetime, bytes]] = []
        for seq, session_id, kind, payload in rows.order_by("seq").values_list("seq", "session_id", "kind", "payload"):
            at += timedelta(microseconds=gaps[seq - 1])
            hash_ = row_hash(
                hash_,
                document_key=document.key.bytes,
                seq=seq,
                kind=kind,
                at_microseconds=microseconds(at),
                session_commitment=bytes(commitments[session_id]),
                payload=bytes(payload),
            )
            changed.append((seq, at, hash_))
        _rewrite(document, changed)
    Head.objects.filter(document=document).update(at=at, hash=hash_)


def _human_gaps(count: int) -> list[int]:
    """Microseconds between keystrokes, with a pause now and then and a night after some."""
    rng = random.Random(count)
    pauses = ((0.98, 60_000, 400_000), (0.9995, 1_000_000, 60_000_000), (1.0, 600_000_000, 40_000_000_000))
    gaps = []
    for _ in range(count):
        chance = rng.random()
        low, high = next((low, high) for below, low, high in pauses if chance <= below)
        gaps.append(rng.randrange(low, high))
    return gaps


def _rewrite(document: Document, rows: Iterable[tuple[int, datetime, bytes]]) -> None:
    seqs, times, hashes = (list(column) for column in zip(*rows, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE history_update SET at = changed.at, hash = changed.hash "
            "FROM unnest(%s::bigint[], %s::timestamptz[], %s::bytea[]) AS changed (seq, at, hash) "
            "WHERE document_id = %s AND history_update.seq = changed.seq",
            [seqs, times, hashes, document.pk],
        )


def _report_bytes(document: Document, updates: int) -> None:
    segments = Segment.objects.filter(document=document)
    packed = segments.aggregate(bytes=Sum(Length("payload")))["bytes"] or 0
    snapshots = Snapshot.objects.filter(document=document)
    taken = snapshots.aggregate(bytes=Sum(Length("state")) + Sum(Length("full_state")))["bytes"] or 0
    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL history_segment, history_run, history_session")
    told = relation_bytes("history_segment", "history_run", "history_session") / updates
    live = Update.objects.filter(document=document).count()
    log = packed + (Update.objects.filter(document=document).aggregate(bytes=Sum(Length("payload")))["bytes"] or 0)
    print(
        f"packed: {packed / max(updates - live, 1):.2f} bytes an update, {told:.2f} all told (payload, time, session, "
        f"runs, indexes), {live} rows still hot\n"
        f"snapshots: {snapshots.count()}, {taken:,} bytes = {100 * taken / log:.0f}% of the log's {log:,}; "
        f"the newest opens with {snapshots.order_by('-seq')[0].state_bytes:,}"
    )


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
