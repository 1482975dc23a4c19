"""A hundred random tamperings of each kind, on a document of random history that is squashed in part: each is found and
named by its table and its seq. What agrees with itself again is found by what was published before."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from documents.models import Document
from history.crdt.chain import GENESIS, row_hash
from history.crdt.packing import PackedRow, pack, unpack
from history.folds import compact
from history.models import Head, Run, Segment, Session, Snapshot, Update, Version
from history.proof.claims import Claim, PublishedHead
from history.proof.verify import Difference, Verdict, verify_document
from history.snapshots import digest
from history.squash import squash_document
from history.times import microseconds
from tests.builders import NEVER_WARM, append_history, log_of, make_document, make_user
from tests.histories import random_history

pytestmark = pytest.mark.django_db

TAMPERINGS = 100
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ground:
    """A document whose rows 1..20 lie in two segments, with live rows behind them, two snapshots, and the heads that
    manifests published meanwhile."""

    document: Document
    head: int
    claims: tuple[Claim, ...]
    sessions: tuple[int, ...]

    @property
    def live(self) -> range:
        return range(21, self.head + 1)


@dataclass(frozen=True, slots=True)
class Named:
    """Where a tampering may be said to be: at one of these seqs, in one of these tables."""

    seqs: Sequence[int]
    tables: tuple[str, ...]


def _ground(seed: int) -> Ground:
    document = make_document()
    rows = random_history(seed, edits=34, skip_gc=True)
    claims = []
    parts = rows[:12], rows[12:24], rows[24:]
    for day, part in enumerate(parts, 1):
        append_history(document, part)
        claims.append(_claim(document, day))
        if day > 1:
            compact(document.pk)
    assert squash_document(document.pk, older_than=NEVER_WARM, segments_max=2) == 20
    sessions = tuple(Session.objects.filter(document=document).order_by("id").values_list("id", flat=True))
    ground = Ground(document, claims[-1].head.seq, tuple(claims), sessions)
    assert isinstance(verify_document(document.pk, claims=ground.claims), Verdict)
    return ground


def _claim(document: Document, day: int) -> Claim:
    head = Head.objects.get(document=document)
    published = PublishedHead(
        key=document.key,
        epoch=head.epoch,
        seq=head.seq,
        hash=bytes(head.hash),
        at_microseconds=microseconds(head.at),
        is_deleted=False,
    )
    return Claim(f"manifest-{day}.jsonl", timezone.now(), published)


def _other(rng: random.Random, data: bytes) -> bytes:
    """These bytes with one of them changed, added or gone."""
    if not data:
        return rng.randbytes(1)
    place = rng.randrange(len(data))
    changed = bytes([data[place] ^ rng.randrange(1, 256)])
    return data[:place] + rng.choice([changed, changed + data[place : place + 1], b""]) + data[place + 1 :]


def _row(ground: Ground, rng: random.Random) -> Update:
    return Update.objects.get(document=ground.document, seq=rng.choice(ground.live))


def _store(row: Update, **fields: object) -> None:
    Update.objects.filter(document_id=row.document_id, seq=row.seq).update(**fields)


def alter_a_payload(ground: Ground, rng: random.Random) -> Named:
    row = _row(ground, rng)
    _store(row, payload=_other(rng, bytes(row.payload)))
    return Named([row.seq], ("update",))


def alter_a_time(ground: Ground, rng: random.Random) -> Named:
    row = _row(ground, rng)
    _store(row, at=row.at + rng.choice([-1, 1]) * timedelta(microseconds=10 ** rng.randrange(12)))
    return Named([row.seq], ("update",))


def alter_a_kind(ground: Ground, rng: random.Random) -> Named:
    row = _row(ground, rng)
    _store(row, kind=rng.choice([kind for kind in range(9) if kind != row.kind]))
    return Named([row.seq], ("update",))


def alter_a_rows_session(ground: Ground, rng: random.Random) -> Named:
    row = _row(ground, rng)
    others = [each for each in ground.sessions if each != row.session_id]
    _store(row, session_id=rng.choice([*others, rng.getrandbits(52)]))
    return Named([row.seq], ("update", "session"))


def alter_a_hash(ground: Ground, rng: random.Random) -> Named:
    row = _row(ground, rng)
    _store(row, hash=_other(rng, bytes(row.hash)))
    return Named([row.seq], ("update",))


def drop_rows(ground: Ground, rng: random.Random) -> Named:
    gone = sorted(rng.sample(ground.live, rng.choice([1, 1, 2, 3])))
    Update.objects.filter(document=ground.document, seq__in=gone).delete()
    return Named([gone[0]], ("update",))


def swap_rows(ground: Ground, rng: random.Random) -> Named:
    first, second = sorted(rng.sample(ground.live, 2))
    _move(ground, {first: second, second: first})
    return Named([first], ("update",))


def move_a_row(ground: Ground, rng: random.Random) -> Named:
    start, to = rng.sample(ground.live, 2)
    step = 1 if to > start else -1
    _move(ground, {start: to} | {seq: seq - step for seq in range(start + step, to + step, step)})
    return Named([min(start, to)], ("update",))


def _move(ground: Ground, to: dict[int, int]) -> None:
    rows = Update.objects.filter(document=ground.document)
    for seq, place in to.items():
        rows.filter(seq=seq).update(seq=-place)
    rows.filter(seq__lt=0).update(seq=-F("seq"))


def add_a_row(ground: Ground, rng: random.Random) -> Named:
    """Behind the end, chained as it should be."""
    last = Update.objects.get(document=ground.document, seq=ground.head)
    commitment = Session.objects.values_list("commitment", flat=True).get(document=ground.document, id=last.session_id)
    hash_ = row_hash(
        bytes(last.hash),
        document_key=ground.document.key.bytes,
        seq=ground.head + 1,
        kind=last.kind,
        at_microseconds=microseconds(last.at),
        session_commitment=bytes(commitment),
        payload=b"\x00\x00",
    )
    Update.objects.create(
        document=ground.document,
        seq=ground.head + 1,
        session_id=last.session_id,
        kind=last.kind,
        at=last.at,
        payload=b"\x00\x00",
        hash=hash_,
    )
    return Named([ground.head + 1], ("head",))


def alter_a_session(ground: Ground, rng: random.Random) -> Named:
    session = Session.objects.get(document=ground.document, id=rng.choice(ground.sessions))
    changes: list[dict[str, object]] = [
        {"user": make_user()},
        {"via": rng.choice([via for via in range(1, 9) if via != session.via])},
        {"ip": f"192.0.2.{rng.randrange(1, 255)}"},
        {"salt": _other(rng, bytes(session.salt))},
        {"commitment": _other(rng, bytes(session.commitment))},
    ]
    Session.objects.filter(document=ground.document, id=session.id).update(**rng.choice(changes))
    return Named([_first_of(ground, session.id)], ("session",))


def drop_a_session(ground: Ground, rng: random.Random) -> Named:
    session_id = rng.choice(ground.sessions)
    Session.objects.filter(document=ground.document, id=session_id).delete()
    return Named([_first_of(ground, session_id)], ("session",))


def _first_of(ground: Ground, session_id: int) -> int:
    return next(seq for seq, session, *_ in log_of(ground.document) if session == session_id)


def _segment(ground: Ground, rng: random.Random) -> Segment:
    return Segment.objects.get(document=ground.document, first_seq=rng.choice([1, 11]))


def _in(segment: Segment, *tables: str) -> Named:
    return Named(range(segment.first_seq, segment.last_seq + 1), ("segment", *tables))


def _repack(segment: Segment, rows: list[PackedRow]) -> None:
    Segment.objects.filter(document_id=segment.document_id, first_seq=segment.first_seq).update(payload=pack(rows))


def alter_a_row_in_a_segment(ground: Ground, rng: random.Random) -> Named:
    segment = _segment(ground, rng)
    rows = unpack(bytes(segment.payload))
    place = rng.randrange(len(rows))
    row = rows[place]
    rows[place] = rng.choice(
        [
            PackedRow(row.session_id, row.kind, row.at_microseconds, _other(rng, row.payload)),
            PackedRow(row.session_id, row.kind, row.at_microseconds + rng.choice([-1, 1]), row.payload),
            PackedRow(row.session_id, row.kind + 1, row.at_microseconds, row.payload),
            PackedRow(
                rng.choice([each for each in ground.sessions if each != row.session_id]),
                row.kind,
                row.at_microseconds,
                row.payload,
            ),
            PackedRow(rng.getrandbits(52), row.kind, row.at_microseconds, row.payload),
        ]
    )
    _repack(segment, rows)
    return _in(segment, "session")


def reorder_a_segment(ground: Ground, rng: random.Random) -> Named:
    segment = _segment(ground, rng)
    rows = unpack(bytes(segment.payload))
    while rows == unpack(bytes(segment.payload)):
        place = rng.randrange(len(rows))
        rows.insert(rng.randrange(len(rows)), rows.pop(place))
    _repack(segment, rows)
    return _in(segment)


def drop_rows_of_a_segment(ground: Ground, rng: random.Random) -> Named:
    """Or put one in twice."""
    segment = _segment(ground, rng)
    rows = unpack(bytes(segment.payload))
    place = rng.randrange(len(rows))
    kept = rng.choice([rows[:place] + rows[place + 1 :], rows[:place], [*rows[: place + 1], *rows[place:]]])
    if rng.random() < 0.5 and 0 < len(kept) < len(rows):  # said in its columns too
        Segment.objects.filter(document=ground.document, first_seq=segment.first_seq).update(
            last_seq=segment.first_seq + len(kept) - 1
        )
    _repack(segment, kept)
    return _in(segment)


def alter_a_segments_columns(ground: Ground, rng: random.Random) -> Named:
    segment = _segment(ground, rng)
    changes: list[dict[str, object]] = [
        {"first_seq": segment.first_seq + rng.randrange(1, 5)},
        {"last_seq": segment.last_seq + rng.choice([-1, 1])},
        {"first_at": segment.first_at - timedelta(microseconds=rng.randrange(1, 10**9))},
        {"last_at": segment.last_at + timedelta(microseconds=rng.randrange(1, 10**9))},
        {"codec": rng.randrange(2, 9)},
        {"start_hash": _other(rng, bytes(segment.start_hash) or bytes(32))},
        {"end_hash": _other(rng, bytes(segment.end_hash))},
        {"counts": {**segment.counts, rng.choice(["rows", "payload_bytes", "packed_bytes"]): rng.randrange(10)}},
    ]
    Segment.objects.filter(document=ground.document, first_seq=segment.first_seq).update(**rng.choice(changes))
    return _in(segment)


def alter_a_segments_bytes(ground: Ground, rng: random.Random) -> Named:
    segment = _segment(ground, rng)
    payload = _other(rng, bytes(segment.payload))
    Segment.objects.filter(document=ground.document, first_seq=segment.first_seq).update(payload=payload)
    return _in(segment)


def drop_a_segment(ground: Ground, rng: random.Random) -> Named:
    segment = _segment(ground, rng)
    Segment.objects.filter(document=ground.document, first_seq=segment.first_seq).delete()
    return Named([segment.first_seq], ("segment", "update"))


def alter_a_run(ground: Ground, rng: random.Random) -> Named:
    run = rng.choice(list(Run.objects.filter(document=ground.document)))
    changes: list[dict[str, object]] = [
        {"session_id": rng.choice([each for each in ground.sessions if each != run.session_id])},
        {"last_seq": run.last_seq + 1},
        {"first_at": run.first_at - timedelta(seconds=1)},
        {"last_at": run.last_at + timedelta(seconds=1)},
        {"kind": run.kind + 1},
        {"updates": run.updates + 1},
        {"bytes": run.bytes - 1},
        {"inserted": run.inserted + 1},
        {"deleted": run.deleted + 1},
    ]
    runs = Run.objects.filter(document=ground.document, first_seq=run.first_seq)
    if rng.random() < 0.2:
        runs.delete()
    else:
        runs.update(**rng.choice(changes))
    first = 1 if run.first_seq <= 10 else 11
    return Named(range(first, first + 11), ("run",))


def alter_a_snapshot(ground: Ground, rng: random.Random) -> Named:
    one, other = rng.sample(list(Snapshot.objects.filter(document=ground.document)), 2)
    state, full_state = bytes(one.state), bytes(one.full_state)
    changes: list[dict[str, object]] = [
        {"state": _other(rng, state)},
        {"full_state": _other(rng, full_state)},
        {"sha256": _other(rng, bytes(one.sha256))},
        # These load, and their digest is right.
        {"state": bytes(other.state), "sha256": digest(bytes(other.state), full_state)},
        {"state": b"\x00\x00", "full_state": b"\x00\x00", "sha256": digest(b"\x00\x00", b"\x00\x00")},
    ]
    if other.full_state:  # the newest alone has one, and whatever has none is no less a snapshot
        full = bytes(other.full_state)
        changes.append({"full_state": full, "sha256": digest(state, full)})
    Snapshot.objects.filter(document=ground.document, seq=one.seq).update(**rng.choice(changes))
    return Named([one.seq], ("snapshot",))


def move_a_snapshot(ground: Ground, rng: random.Random) -> Named:
    snapshots = Snapshot.objects.filter(document=ground.document)
    seqs = list(snapshots.values_list("seq", flat=True))
    seq, to = rng.choice(seqs), rng.choice([each for each in range(1, ground.head + 9) if each not in seqs])
    snapshots.filter(seq=seq).update(seq=to)
    return Named([to], ("snapshot",))


def alter_the_head(ground: Ground, rng: random.Random) -> Named:
    head = Head.objects.filter(document=ground.document)
    what, near = rng.choice(["seq", "hash", "at"]), ground.head
    if what == "seq":
        seq = max(1, near + rng.choice([-1, 1]) * rng.randrange(1, 30))
        head.update(seq=seq)
        return Named([min(seq, near) + 1], ("head", "update"))
    if what == "hash":
        head.update(hash=_other(rng, bytes(head.get().hash)))
    else:
        head.update(at=head.get().at + rng.choice([-1, 1]) * timedelta(microseconds=rng.randrange(1, 10**9)))
    return Named([near], ("head",))


def cut_the_end_off(ground: Ground, rng: random.Random) -> Named:
    """With or without the head following."""
    last = rng.choice(ground.live[:-1])
    rows = Update.objects.filter(document=ground.document)
    rows.filter(seq__gt=last).delete()
    if rng.random() < 0.5:
        return Named([last + 1], ("update",))
    row = rows.get(seq=last)
    Head.objects.filter(document=ground.document).update(seq=last, hash=row.hash, at=row.at)
    return Named(range(last + 1, ground.head + 1), ("snapshot",))


FOUND_IN_THE_DATABASE = [
    alter_a_payload,
    alter_a_time,
    alter_a_kind,
    alter_a_rows_session,
    alter_a_hash,
    drop_rows,
    swap_rows,
    move_a_row,
    add_a_row,
    alter_a_session,
    drop_a_session,
    alter_a_row_in_a_segment,
    reorder_a_segment,
    drop_rows_of_a_segment,
    alter_a_segments_columns,
    alter_a_segments_bytes,
    drop_a_segment,
    alter_a_run,
    alter_a_snapshot,
    move_a_snapshot,
    alter_the_head,
    cut_the_end_off,
]


def _missed(ground: Ground, rng: random.Random, tamper: Callable[[Ground, random.Random], Named]) -> str | None:
    """Tamper, verify, and take it back; what was expected and found, where that is not the same."""
    with transaction.atomic():
        named = tamper(ground, rng)
        found = verify_document(ground.document.pk, claims=ground.claims)
        transaction.set_rollback(True)
    if isinstance(found, Difference) and found.seq in named.seqs and found.table in named.tables:
        return None
    return f"{named} was found as {found}"


@pytest.mark.parametrize("tamper", FOUND_IN_THE_DATABASE, ids=lambda tamper: tamper.__name__)
def test_every_tampering_is_found_and_named(tamper: Callable[[Ground, random.Random], Named]) -> None:
    ground, rng = _ground(500), random.Random(tamper.__name__)
    missed = [_missed(ground, rng, tamper) for _ in range(TAMPERINGS)]
    assert [each for each in missed if each is not None] == []
    assert isinstance(verify_document(ground.document.pk, claims=ground.claims), Verdict)


def _forge(ground: Ground, rows: list[tuple[int, int, datetime, bytes]]) -> None:
    """Write these rows (session, kind, at, payload) as the document's whole log, as one who can write to all of the
    database: hashed from the genesis, nothing left that says otherwise."""
    document = ground.document
    for model in (Update, Segment, Run, Snapshot, Version):
        model.objects.filter(document=document).delete()
    commitments = dict(Session.objects.filter(document=document).values_list("id", "commitment"))
    hash_, forged = GENESIS, []
    for seq, (session_id, kind, at, payload) in enumerate(rows, 1):
        hash_ = row_hash(
            hash_,
            document_key=document.key.bytes,
            seq=seq,
            kind=kind,
            at_microseconds=microseconds(at),
            session_commitment=bytes(commitments[session_id]),
            payload=payload,
        )
        forged.append(
            Update(document=document, seq=seq, session_id=session_id, kind=kind, at=at, payload=payload, hash=hash_)
        )
    Update.objects.bulk_create(forged)
    Head.objects.filter(document=document).update(seq=len(rows), hash=hash_, at=rows[-1][2])


def rewrite(ground: Ground, rng: random.Random) -> int:
    """Alter, drop, add or move a row anywhere; return the first seq that is another one."""
    rows = [row[1:] for row in log_of(ground.document)]
    before = list(rows)
    while rows == before:
        place = rng.randrange(len(rows))
        session_id, kind, at, payload = rows[place]
        match rng.randrange(5):
            case 0:
                rows[place] = (session_id, kind, at, _other(rng, payload))
            case 1:
                rows[place] = (rng.choice(ground.sessions), kind, at, payload)
            case 2:
                del rows[place]
            case 3:
                rows.insert(place, (session_id, kind, at, b"\x00\x00"))
            case 4:
                other = rng.randrange(len(rows))
                their_session, their_kind, then, theirs = rows[other]
                rows[place] = (their_session, their_kind, at, theirs)
                rows[other] = (session_id, kind, then, payload)
    _forge(ground, rows)
    same = (number for number, (one, other) in enumerate(zip(before, rows, strict=False), 1) if one != other)
    return next(same, min(len(before), len(rows)) + 1)


def truncate(ground: Ground, rng: random.Random) -> int:
    """Cut any number of rows off the end, and let other ones follow or not."""
    rows = [row[1:] for row in log_of(ground.document)]
    last = rng.randrange(1, len(rows))
    session_id, kind, _, _ = rows[0]
    more = rng.choice([0, 0, len(rows) - last, 40])
    _forge(ground, rows[:last] + [(session_id, kind, LATER, b"\x00\x00")] * more)
    return last + 1


@pytest.mark.parametrize("tamper", [rewrite, truncate], ids=lambda tamper: tamper.__name__)
def test_what_was_hashed_anew_is_found_by_the_first_manifest_behind_it(
    tamper: Callable[[Ground, random.Random], int],
) -> None:
    ground, rng = _ground(600), random.Random(tamper.__name__)
    missed = []
    for _ in range(TAMPERINGS):
        with transaction.atomic():
            seq = tamper(ground, rng)
            alone = verify_document(ground.document.pk)
            held = verify_document(ground.document.pk, claims=ground.claims)
            end = Head.objects.get(document=ground.document).seq
            transaction.set_rollback(True)
        assert isinstance(alone, Verdict), "a forgery that does not agree with itself shows nothing"
        published = next(claim.head.seq for claim in ground.claims if claim.head.seq >= seq)
        named = end + 1 if published > end else published
        if not isinstance(held, Difference) or (held.table, held.seq) != ("manifest", named):
            missed.append((seq, published, end, held))
    assert missed == []
