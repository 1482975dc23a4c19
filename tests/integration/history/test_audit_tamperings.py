"""A hundred random tamperings of each kind with an audit whose oldest entries retention took: each is found and named
by its entry. What agrees with itself again is found by what was published before."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from documents.acts import Actor, acting
from documents.models import Document, Role
from documents.opening import rename_document
from history.audit.entries import AuditDifference, AuditVerdict, record, remove_expired_entries, verify_audit
from history.crdt.chain import entry_hash
from history.models import Action, AuditEntry, AuditHead, Via
from history.proof.claims import AuditClaim, PublishedAudit
from history.proof.published_audits import contradictions
from history.times import microseconds
from tests.builders import make_document, make_user

pytestmark = pytest.mark.django_db

TAMPERINGS = 100
REMOVED = 5
LAST = 25


@dataclass(frozen=True, slots=True)
class Ground:
    """A document with entries REMOVED+1..LAST in its audit, by several people through several doors, and what manifests
    published of it meanwhile."""

    document: Document
    users: tuple[Any, ...]
    claims: tuple[AuditClaim, ...]

    def entries(self) -> Any:
        return AuditEntry.objects.filter(document_id=self.document.pk)

    def head(self) -> Any:
        return AuditHead.objects.filter(document_id=self.document.pk)


@pytest.fixture
def ground(settings: Settings) -> Ground:
    users = tuple(make_user() for _ in range(3))
    document = make_document(owner=(users[0], Role.OWNER))
    rng, claims = random.Random(1), []
    while (n := AuditHead.objects.get(document_id=document.pk).n) < LAST:
        actor = Actor(
            user=rng.choice(users), door=rng.choice(["page", "api", "admin"]), ip=f"192.0.2.{rng.randrange(9)}"
        )
        with acting(actor):
            if rng.random() < 0.5:
                rename_document(document, title=f"Title {n}")
            else:
                record(Action.EXPORTED, document=document, detail={"seq": n, "manifest": rng.choice([True, None])})
        if n % 8 == 0:
            claims.append(_claim(document, day=n // 8))
    settings.PALIMPSEST = {"AUDIT_DAYS": 1}
    assert remove_expired_entries(now=_in_two_days(), limit=REMOVED) == REMOVED
    ground = Ground(document, users, tuple(claims))
    assert verify_audit(document.pk) == AuditVerdict(document.pk, LAST - REMOVED, REMOVED, 0)
    assert list(contradictions(ground.claims, now=_in_two_days())) == []
    return ground


def _in_two_days() -> datetime:
    """When retention has taken what is gone."""
    return timezone.now() + timedelta(days=2)


def _claim(document: Document, *, day: int) -> AuditClaim:
    head = AuditHead.objects.get(document_id=document.pk)
    published = PublishedAudit(
        document_id=document.pk,
        key=document.key,
        n=head.n,
        hash=bytes(head.hash),
        at_microseconds=microseconds(head.at),
    )
    return AuditClaim(f"manifest-{day}.jsonl", timezone.now(), published)


def _any(rng: random.Random) -> int:
    return rng.randrange(REMOVED + 1, LAST + 1)


def _other(rng: random.Random, data: bytes) -> bytes:
    """These bytes with one of them changed."""
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ rng.randrange(1, 256)]) + data[place + 1 :]


def _alter(ground: Ground, n: int, **values: object) -> int:
    assert ground.entries().filter(n=n).update(**values) == 1
    return n


def alter_an_act(ground: Ground, rng: random.Random) -> int:
    entry = ground.entries().get(n=_any(rng))
    return _alter(ground, entry.n, action=rng.choice([each for each in Action.values if each != entry.action]))


def alter_a_time(ground: Ground, rng: random.Random) -> int:
    entry = ground.entries().get(n=_any(rng))
    by = rng.choice([-1, 1]) * timedelta(microseconds=10 ** rng.randrange(12))
    return _alter(ground, entry.n, at=entry.at + by)


def alter_a_detail(ground: Ground, rng: random.Random) -> int:
    entry = ground.entries().get(n=_any(rng))
    key = rng.choice(list(entry.detail))
    without = {name: value for name, value in entry.detail.items() if name != key}
    changed = rng.choice([without, entry.detail | {key: "another"}, entry.detail | {"more": rng.randrange(9)}, {}])
    return _alter(ground, entry.n, detail=changed)


def alter_a_digest(ground: Ground, rng: random.Random) -> int:
    """With the detail erased, as one may be."""
    entry = ground.entries().get(n=_any(rng))
    return _alter(ground, entry.n, detail=None, detail_sha256=_other(rng, bytes(entry.detail_sha256)))


def alter_who_did_it(ground: Ground, rng: random.Random) -> int:
    entry = ground.entries().get(n=_any(rng))
    changes: list[dict[str, object]] = [
        {"user": rng.choice([each for each in ground.users if each.pk != entry.user_id])},
        {"via": rng.choice([each for each in Via.values if each != entry.via])},
        {"ip": rng.choice([None, "198.51.100.1"])},
        {"salt": _other(rng, bytes(entry.salt))},
        {"commitment": _other(rng, bytes(entry.commitment))},
    ]
    return _alter(ground, entry.n, **rng.choice(changes))


def alter_a_hash(ground: Ground, rng: random.Random) -> int:
    entry = ground.entries().get(n=_any(rng))
    return _alter(ground, entry.n, hash=_other(rng, bytes(entry.hash)))


def drop_entries(ground: Ground, rng: random.Random) -> int:
    gone = rng.sample(range(REMOVED + 1, LAST + 1), rng.choice([1, 1, 2, 5]))
    ground.entries().filter(n__in=gone).delete()
    return min(gone)


def cut_the_end_off(ground: Ground, rng: random.Random) -> int:
    n = _any(rng)
    ground.entries().filter(n__gte=n).delete()
    return n


def swap_entries(ground: Ground, rng: random.Random) -> int:
    first, second = sorted(rng.sample(range(REMOVED + 1, LAST + 1), 2))
    _move(ground, {first: second, second: first})
    return first


def move_an_entry(ground: Ground, rng: random.Random) -> int:
    start, to = rng.sample(range(REMOVED + 1, LAST + 1), 2)
    step = 1 if to > start else -1
    _move(ground, {start: to} | {n: n - step for n in range(start + step, to + step, step)})
    return min(start, to)


def _move(ground: Ground, to: dict[int, int]) -> None:
    moved = {n: ground.entries().get(n=n) for n in to}
    ground.entries().filter(n__in=to).delete()
    for n, entry in moved.items():
        entry.pk = (ground.document.pk, to[n])
        entry.save(force_insert=True)


def put_one_in(ground: Ground, rng: random.Random) -> int:
    """Behind the end, chained as it should be; or one that retention took is there again."""
    last = ground.entries().get(n=LAST)
    last.pk = (ground.document.pk, rng.choice([LAST + 1, rng.randrange(1, REMOVED + 1)]))
    last.hash = _hash_of(ground, last, bytes(last.hash))
    last.save(force_insert=True)
    return int(last.n) if last.n > LAST else REMOVED + 1


def alter_the_head(ground: Ground, rng: random.Random) -> int:
    head = ground.head().get()
    nearby = rng.choice([-1, 1]) * rng.randrange(1, REMOVED)
    changes: list[tuple[dict[str, object], int]] = [
        ({"n": LAST + nearby}, min(LAST + nearby, LAST) + 1),
        ({"hash": _other(rng, bytes(head.hash))}, LAST),
        ({"at": head.at + nearby * timedelta(microseconds=1)}, LAST),
        ({"removed_n": REMOVED + nearby}, REMOVED + nearby + 1),
        ({"removed_hash": _other(rng, bytes(head.removed_hash))}, REMOVED + 1),
        ({"key": uuid4()}, 0),
    ]
    values, n = rng.choice(changes)
    ground.head().update(**values)
    return n


FOUND_IN_THE_DATABASE = [
    alter_an_act,
    alter_a_time,
    alter_a_detail,
    alter_a_digest,
    alter_who_did_it,
    alter_a_hash,
    drop_entries,
    cut_the_end_off,
    swap_entries,
    move_an_entry,
    put_one_in,
    alter_the_head,
]


@pytest.mark.parametrize("tamper", FOUND_IN_THE_DATABASE, ids=lambda tamper: tamper.__name__)
def test_every_tampering_is_found_and_named(ground: Ground, tamper: Callable[[Ground, random.Random], int]) -> None:
    rng, missed = random.Random(tamper.__name__), []
    for _ in range(TAMPERINGS):
        with transaction.atomic():
            n = tamper(ground, rng)
            found = verify_audit(ground.document.pk)
            transaction.set_rollback(True)
        if not isinstance(found, AuditDifference) or found.n != n:
            missed.append(f"entry {n} was found as {found}")
    assert missed == []
    assert isinstance(verify_audit(ground.document.pk), AuditVerdict)


def test_an_author_who_is_taken_out_is_told_as_unknown(ground: Ground) -> None:
    """As one whose account was deleted: it is proven that it was somebody, and can no longer be who, unless the account
    is still there and nothing else was touched."""
    rng = random.Random(1)
    besides: list[dict[str, Any]] = [{}, {"via": Via.TASK}, {"ip": None}]
    for _ in range(TAMPERINGS):
        gone = rng.sample(range(REMOVED + 1, LAST + 1), rng.randrange(1, 5))
        with transaction.atomic():
            more = rng.choice(besides)
            ground.entries().filter(n__in=gone).update(user=None, **more)
            found = verify_audit(ground.document.pk)
            transaction.set_rollback(True)
        if more:
            assert found == AuditVerdict(ground.document.pk, LAST - REMOVED, REMOVED, len(gone))
        else:
            assert isinstance(found, AuditDifference)
            assert (found.n, "was taken away" in found.what) == (min(gone), True)


def _hash_of(ground: Ground, entry: AuditEntry, previous: bytes) -> bytes:
    return entry_hash(
        previous,
        document_key=ground.document.key.bytes,
        n=entry.n,
        action=entry.action,
        at_microseconds=microseconds(entry.at),
        actor_commitment=bytes(entry.commitment),
        detail_sha256=bytes(entry.detail_sha256),
    )


def _forge(ground: Ground, entries: list[AuditEntry]) -> None:
    """Write these as the audit, as one who can write to all of the database: hashed from where retention ended."""
    head = ground.head().get()
    hash_ = bytes(head.removed_hash)
    for n, entry in enumerate(entries, REMOVED + 1):
        entry.pk = (ground.document.pk, n)
        hash_ = entry.hash = _hash_of(ground, entry, hash_)
    ground.entries().delete()
    AuditEntry.objects.bulk_create(entries)
    ground.head().update(n=REMOVED + len(entries), hash=hash_, at=entries[-1].at if entries else head.at)


def rewrite(ground: Ground, rng: random.Random) -> int:
    """Alter, drop, add or move an entry anywhere; return the first that is another one."""
    entries = list(ground.entries().order_by("n"))
    before = [bytes(entry.hash) for entry in entries]
    place, times = rng.randrange(len(entries)), [entry.at for entry in entries]
    match rng.randrange(4):
        case 0:
            entries[place].action = rng.choice([each for each in Action.values if each != entries[place].action])
        case 1:
            del entries[place]
        case 2:
            entries.insert(place, AuditEntry.objects.get(document_id=ground.document.pk, n=_any(rng)))
            times.insert(place, times[place])
        case 3:
            entries.insert(rng.choice([each for each in range(len(entries)) if each != place]), entries.pop(place))
    for entry, at in zip(entries, times[: len(entries)], strict=True):
        entry.at = at
    _forge(ground, entries)
    after = [bytes(entry.hash) for entry in ground.entries().order_by("n")]
    same = (n for n, (one, other) in enumerate(zip(before, after, strict=False), REMOVED + 1) if one != other)
    return next(same, REMOVED + min(len(before), len(after)) + 1)


def truncate(ground: Ground, rng: random.Random) -> int:
    """Cut any number of entries off the end, and let other ones follow or not."""
    entries = list(ground.entries().order_by("n"))
    kept = entries[: rng.randrange(len(entries))]
    last = entries[-1]
    more = [AuditEntry.objects.get(document_id=ground.document.pk, n=LAST) for _ in range(rng.choice([0, 0, 3, 40]))]
    for entry in more:
        entry.at, entry.action = last.at, Action.OPENED
    _forge(ground, [*kept, *more])
    return REMOVED + len(kept) + 1


@pytest.mark.parametrize("tamper", [rewrite, truncate], ids=lambda tamper: tamper.__name__)
def test_what_was_hashed_anew_is_found_by_the_first_manifest_behind_it(
    ground: Ground, tamper: Callable[[Ground, random.Random], int]
) -> None:
    rng, missed, behind = random.Random(tamper.__name__), [], 0
    for _ in range(TAMPERINGS):
        with transaction.atomic():
            n = tamper(ground, rng)
            alone = verify_audit(ground.document.pk)
            held = [claim.audit.n for claim, _ in contradictions(ground.claims, now=_in_two_days())]
            transaction.set_rollback(True)
        assert isinstance(alone, AuditVerdict), "a forgery that does not agree with itself shows nothing"
        published = [claim.audit.n for claim in ground.claims if claim.audit.n >= n]
        behind += not published
        if held != published:
            missed.append((n, held))
    assert missed == []
    assert behind < TAMPERINGS / 4, "what no manifest has published yet cannot be held to one"
