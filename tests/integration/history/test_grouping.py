"""Groups are what people think of as one edit: an author's, through all tabs, up to a pause, a version or a restore."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from documents.models import Document
from history import grouping, log
from history.append import append
from history.errors import LogHole
from history.fates import PendingUpdate
from history.grouping import Group, groups_of
from history.log import LogRow, head_of
from history.models import Kind, Run, Session
from history.runs import runs_of
from history.squash import squash_document
from history.timeline import PLAIN_KINDS
from history.versions import name_version
from tests.builders import (
    NEVER_WARM,
    append_rows,
    log_of,
    make_document,
    make_session,
    make_user,
    rechain,
    seconds_apart,
)

pytestmark = pytest.mark.django_db(transaction=True)

GAP = timedelta(seconds=300)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "BLOCK_SEQS", 4)
    monkeypatch.setattr(grouping, "BLOCKS_KEPT_MAX", 2)


def random_document(seed: int, *, rows: int = 90) -> Document:
    """Two people with two tabs each, and somebody without an account, with pauses around the gap and some restores."""
    rng = random.Random(seed)
    document = make_document()
    ada, bob = make_user(), make_user()
    sessions = [make_session(document, user) for user in (ada, ada, bob, bob, None)]
    kinds = [Kind.SYNC] * 20 + [Kind.EDIT] * 4 + [Kind.RESTORE]
    append([PendingUpdate(session=rng.choice(sessions), payload=b"\0\0", kind=rng.choice(kinds)) for _ in range(rows)])
    rechain(document, at=seconds_apart(*(rng.choice([1, 60, 299, 300, 301, 900]) for _ in range(rows - 1))))
    return document


def by_hand(document: Document, cuts: set[int]) -> list[tuple[Any, ...]]:
    """(author, first seq, last seq): of edits from the rows themselves, each other act for itself."""
    acts = [run for run in runs_of(document.pk, limit=1000) if run.kind not in PLAIN_KINDS]
    cuts = cuts | {seq for act in acts for seq in (act.first_seq - 1, act.last_seq)}
    users = dict(Session.objects.filter(document=document).values_list("id", "user_id"))
    groups = [[users[act.session_id] or ("session", act.session_id), act.first_seq, act.last_seq] for act in acts]
    last: dict[Any, tuple[list[Any], datetime]] = {}
    for seq, session_id, kind, at, _ in log_of(document):
        if kind not in PLAIN_KINDS:
            continue
        author = users[session_id] or ("session", session_id)
        group, last_at = last.get(author, ([author, seq, seq], at - 2 * GAP))
        if at - last_at > GAP or any(group[2] <= cut < seq for cut in cuts):
            group = [author, seq, seq]
            groups.append(group)
        group[2] = seq
        last[author] = group, at
    return sorted((tuple(group) for group in groups), key=lambda line: -line[2])


def told(groups: list[Group]) -> list[tuple[Any, ...]]:
    return [
        (group.user.pk if group.user else ("session", *group.session_ids), group.first_seq, group.last_seq)
        for group in groups
    ]


@pytest.mark.parametrize("seed", range(6))
def test_groups_are_those_that_the_rows_tell_before_and_after_squash(seed: int) -> None:
    document = random_document(seed)
    cuts = set(random.Random(seed).sample(range(1, 90), 4))
    want = by_hand(document, cuts)
    assert told(groups_of(document.pk, limit=1000, cuts=cuts)) == want
    squash_document(document.pk, older_than=NEVER_WARM)
    assert told(groups_of(document.pk, limit=1000, cuts=cuts)) == want


@pytest.mark.parametrize("seed", range(3))
def test_pages_of_groups_leave_nothing_out_and_tell_nothing_twice(seed: int) -> None:
    document = random_document(seed)
    cuts = {20, 50}
    whole = groups_of(document.pk, limit=1000, cuts=cuts)
    paged: list[Group] = []
    until: int | None = None
    while page := groups_of(document.pk, until=until, limit=3, cuts=cuts):
        paged += page
        until = page[-1].last_seq - 1
    assert paged == whole


def test_two_tabs_of_one_person_are_one_group_and_two_people_are_not() -> None:
    document, ada, bob = make_document(), make_user(), make_user()
    for person in (ada, ada, bob, ada):
        append_rows(make_session(document, person), [b"\0\0"])
    rechain(document, at=seconds_apart(1, 1, 1))
    first, second = groups_of(document.pk)
    assert (first.user, first.first_seq, first.last_seq, len(first.session_ids)) == (ada, 1, 4, 3)
    assert (second.user, second.first_seq, second.last_seq) == (bob, 3, 3)


def test_a_pause_ends_a_group() -> None:
    document, ada = make_document(), make_user()
    for _ in range(3):
        append_rows(make_session(document, ada), [b"\0\0"])
    rechain(document, at=seconds_apart(300, 301))
    assert [(group.first_seq, group.last_seq) for group in groups_of(document.pk)] == [(3, 3), (1, 2)]


def test_a_named_version_ends_the_groups_before_it() -> None:
    document, ada = make_document(), make_user()
    append_rows(make_session(document, ada), [b"\0\0"] * 4)
    assert [(group.first_seq, group.last_seq) for group in groups_of(document.pk)] == [(1, 4)]
    name_version(document, name="draft", seq=2, actor=None)
    assert [(group.first_seq, group.last_seq) for group in groups_of(document.pk)] == [(3, 4), (1, 2)]


def test_a_restore_is_a_group_of_its_own_and_parts_what_others_did() -> None:
    document, ada = make_document(), make_user()
    session = make_session(document, ada)
    append_rows(session, [b"\0\0"] * 2)
    append_rows(make_session(document, make_user()), [b"\0\0"], kind=Kind.RESTORE)
    append_rows(session, [b"\0\0"] * 2)
    groups = groups_of(document.pk)
    assert [(group.kind, group.first_seq, group.last_seq) for group in groups] == [
        (Kind.SYNC, 4, 5),
        (Kind.RESTORE, 3, 3),
        (Kind.SYNC, 1, 2),
    ]
    assert head_of(document.pk).seq == 5


def test_however_many_restores_part_it_a_time_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    document, people = make_document(), [make_user() for _ in range(3)]
    sessions = [make_session(document, person) for person in people]
    for _ in range(20):
        for session in sessions:
            append_rows(session, [b"\0\0"])
        append_rows(make_session(document, people[0]), [b"\0\0"], kind=Kind.RESTORE)
    squash_document(document.pk, older_than=NEVER_WARM)
    seen: list[int] = []

    def read_log(document_id: int, *, after: int = 0, until: int) -> Iterator[LogRow]:
        for row in log.read_log(document_id, after=after, until=until):
            seen.append(row.seq)
            yield row

    monkeypatch.setattr(grouping, "read_log", read_log)
    assert len(groups_of(document.pk, limit=1000)) == 80
    assert sorted(seen) == list(range(1, 81))


def test_a_run_that_tells_of_rows_that_are_not_there_is_a_hole() -> None:
    document = make_document()
    session = make_session(document, make_user())
    for kind in (Kind.SYNC, Kind.RESTORE, Kind.SYNC, Kind.SYNC):
        append_rows(make_session(document) if kind == Kind.RESTORE else session, [b"\0\0"], kind=kind)
    squash_document(document.pk, older_than=NEVER_WARM)
    append_rows(make_session(document), [b"\0\0"])
    other = Session.objects.filter(document=document).exclude(id=session.id).latest("opened_at").id
    Run.objects.filter(document=document, session_id=session.id).update(session_id=other)
    with pytest.raises(LogHole):
        groups_of(document.pk)
