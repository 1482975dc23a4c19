"""Copies: equal to their source at the seq or at every seq, whole or not there, and of nobody who may not have them."""

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import Http404
from pycrdt import Doc, Text
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.opening import NameTaken, NotSignedIn
from history import copies
from history.copies import Copy, SourceDamaged, TooLongToCopy, copy_history, copy_moment
from history.crdt.content import canonical
from history.errors import LogHole, NoSuchSeq
from history.fates import Reason
from history.folds import compact, document_at
from history.gate import Gate, NotTaken
from history.models import Client, Head, Kind, Run, Segment, Session, Snapshot, Split, Update, Version, Via
from history.proof.verify import Verdict, verify_document
from history.runs import runs_of
from history.signals import document_copied
from history.squash import TRY_LOCK, hold_squash, squash_document
from history.versions import change_version, name_version
from history.writes import append_update, write_session
from tests.builders import (
    NEVER_WARM,
    admitted_session,
    append_history,
    append_rows,
    in_thread,
    log_of,
    make_document,
    make_session,
    make_user,
    typed,
)
from tests.emoji_histories import emoji_histories, said_by
from tests.histories import random_history, updates_of
from tests.integration.history.test_splits import write_history
from tests.integration.history.waiting import backend_waiting_for_a_lock, kill_where_it_first_writes

pytestmark = pytest.mark.django_db(transaction=True)

HISTORIES = int(os.environ.get("COPY_HISTORIES", "3"))
"""Random histories that are copied; more than these few take minutes."""


@pytest.fixture
def olga() -> Any:
    return make_user("olga")


def a_written_document(owner: Any, *, edits: int = 36, seed: int = 1) -> Document:
    document = make_document(owner=(owner, Role.OWNER))
    append_history(document, random_history(seed, edits=edits, skip_gc=True))
    return document


def said(document: Document, seq: int) -> str:
    return canonical(document_at(document.pk, seq=seq).doc)


def proven(document: Document) -> Verdict:
    outcome = verify_document(document.pk)
    assert isinstance(outcome, Verdict), outcome
    return outcome


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_copy_with_history_is_equal_at_every_seq_and_is_proven(seed: int, olga: Any) -> None:
    """At the end of a segment, within one, behind all, with and without live rows."""
    rng = random.Random(seed)
    source = a_written_document(olga, seed=seed)
    head = Head.objects.get(document=source).seq
    if seed:
        compact(source.pk)
        squash_document(source.pk, older_than=NEVER_WARM)
    at_every_seq = [said(source, seq) for seq in range(head + 1)]
    for until in {10, rng.randint(11, head), head}:
        copy = copy_history(source, seq=until, actor=olga).document
        assert log_of(copy) == log_of(source)[:until]
        assert [said(copy, seq) for seq in range(until + 1)] == at_every_seq[: until + 1]
        mine, theirs = ([_shown(run) for run in runs_of(each.pk, until=until)] for each in (copy, source))
        assert until < head or mine == theirs
        proof = proven(copy)
        segments = Segment.objects.filter(document=source, last_seq__lte=until).count()
        assert (proof.head_seq, proof.segments) == (until, segments)


def _shown(run: Any) -> tuple[Any, ...]:
    return run.first_seq, run.last_seq, run.first_at, run.session_id, run.user, run.kind, run.updates, run.bytes


def test_rows_come_along_in_batches_of_bounded_size(olga: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr(copies, "BATCH_BYTES_MAX", 200)
    monkeypatch.setattr(copies, "SESSIONS_KEPT_MAX", 1)
    source = a_written_document(olga)
    copy = copy_history(source, actor=olga).document
    assert log_of(copy) == log_of(source)
    proven(copy)


def test_sessions_clients_and_versions_up_to_there_come_along_and_nothing_later(olga: Any) -> None:
    ann, ben = make_user("ann"), make_user("ben")
    source = make_document(owner=(olga, Role.OWNER), ann=(ann, Role.EDITOR), ben=(ben, Role.EDITOR))
    for user, client_id in ((ann, 1), (ben, 2)):
        session = admitted_session(source, user)
        for update in typed("abc", client_id=client_id):
            append_update(session, update)
    early = name_version(source, name="Early", seq=2, actor=ann).version
    change_version(source, early.id, locked=True, actor=olga)
    name_version(source, name="Late", seq=5, actor=ben)
    copy = copy_history(source, seq=3, actor=olga, title="From Ann", name="from-ann").document
    assert (copy.title, copy.name, copy.created_by) == ("From Ann", "from-ann", olga)
    assert Client.objects.filter(document=copy).values_list("client_id", "actor").get() == (1, str(ann.pk))
    mine, theirs = (Session.objects.filter(document=each).order_by("opened_at").first() for each in (copy, source))
    assert mine is not None and theirs is not None
    fields = [field.attname for field in Session._meta.concrete_fields if field.attname != "document_id"]
    assert [getattr(mine, name) for name in fields] == [getattr(theirs, name) for name in fields]
    version = Version.objects.get(document=copy)
    assert (version.name, version.seq, version.locked, version.created_by) == ("Early", 2, True, ann)
    with pytest.raises(NotTaken) as refused:
        Gate.load(copy.pk).take(typed("abcd", client_id=1)[3], admitted_session(copy, olga))
    assert refused.value.reason is Reason.NOT_YOURS


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_copy_without_history_says_what_the_source_said_in_one_row(seed: int, olga: Any) -> None:
    source = a_written_document(olga, seed=seed)
    squash_document(source.pk, older_than=NEVER_WARM)
    for until in (1, 15, Head.objects.get(document=source).seq):
        copy = copy_moment(source, seq=until, actor=olga, via=Via.API).document
        assert said(copy, 1) == said(source, until)
        row = Update.objects.get(document=copy)
        session = Session.objects.get(document=copy)
        assert (row.seq, row.kind, row.session_id) == (1, Kind.IMPORT, session.id)
        assert (session.user, session.via) == (olga, Via.API)
        assert session.detail == {"source_document": str(source.key), "source_seq": until}
        proven(copy)


def test_a_copy_without_history_holds_nothing_that_had_been_deleted(olga: Any) -> None:
    ann = make_user()
    source = make_document(owner=(olga, Role.OWNER), ann=(ann, Role.EDITOR))
    doc: Doc[Any] = Doc(client_id=7)
    text = doc.get("text", type=Text)
    session = admitted_session(source, ann)
    for edit in (lambda: text.insert(0, "secret and known"), lambda: text.__delitem__(slice(0, 11))):
        for update in updates_of(doc, edit):
            append_update(session, update)
    compact(source.pk)
    copy = copy_moment(source, actor=olga, via=Via.API).document
    payload = bytes(Update.objects.get(document=copy).payload)
    assert (b"known" in payload, b"secret" in payload) == (True, False)
    assert Client.objects.filter(document=copy).values_list("client_id", "actor").get() == (7, str(ann.pk))


def test_the_copy_of_an_empty_document_is_empty(olga: Any) -> None:
    source = make_document(owner=(olga, Role.OWNER))
    for copy in (copy_moment(source, actor=olga, via=Via.API), copy_history(source, actor=olga)):
        assert copy.seq == 0
        assert proven(copy.document).head_seq == 0


def test_a_copy_goes_its_own_way(olga: Any) -> None:
    source = a_written_document(olga)
    before = log_of(source)
    for copy in (copy_moment(source, actor=olga, via=Via.API), copy_history(source, actor=olga)):
        stored = append_update(write_session(copy.document, actor=olga, via=Via.API), typed("x", client_id=99)[0])
        assert stored is not None
        assert said(copy.document, stored.seq) != said(source, before[-1][0])
        proven(copy.document)
    assert log_of(source) == before


def test_emoji_that_were_cut_are_cut_in_the_copy(olga: Any) -> None:
    for rows in emoji_histories(1, 1).values():
        source = make_document(owner=(olga, Role.OWNER))
        yjs = write_history(source, rows)
        squash_document(source.pk, older_than=NEVER_WARM)
        copy = copy_history(source, actor=olga).document
        assert [said_by(document_at(copy.pk, seq=seq).doc) for seq in range(len(yjs))] == yjs
        assert Split.objects.filter(document=copy).count() == Split.objects.filter(document=source).count()
        proven(copy)
        plain = copy_moment(source, seq=len(yjs) - 1, actor=olga, via=Via.API).document
        assert said_by(document_at(plain.pk).doc) == yjs[-1]
        proven(plain)


RIGHTS: dict[str, tuple[Any, Any]] = {
    "nobody": (NotSignedIn, NotSignedIn),
    "stranger": (Http404, Http404),
    "viewer": (True, PermissionDenied),
    "editor": (True, PermissionDenied),
    "owner": (True, True),
}


@pytest.mark.parametrize("who", RIGHTS)
def test_readers_copy_a_moment_and_owners_the_history(who: str, olga: Any) -> None:
    source = a_written_document(olga, edits=3)
    user: Any = AnonymousUser() if who == "nobody" else make_user(who)
    role = {"viewer": Role.VIEWER, "editor": Role.EDITOR, "owner": Role.OWNER}.get(who)
    if role is not None:
        Membership.objects.create(document=source, user=user, role=role)
    acts: tuple[Callable[[], Copy], ...] = (
        lambda: copy_moment(source, actor=user, via=Via.API),
        lambda: copy_history(source, actor=user),
    )
    for act, outcome in zip(acts, RIGHTS[who], strict=True):
        if outcome is True:
            copy = act().document
            assert Membership.objects.filter(document=copy).values_list("user", "role").get() == (user.pk, Role.OWNER)
        else:
            with pytest.raises(outcome):
                act()


def test_a_log_that_was_altered_is_not_given_a_new_chain(olga: Any) -> None:
    source = make_document(owner=(olga, Role.OWNER))
    append_rows(make_session(source), typed("abcdefghijklm"))
    squash_document(source.pk, older_than=NEVER_WARM)
    last = Segment.objects.filter(document=source).order_by("-last_seq").first()
    assert last is not None
    live = last.last_seq + 1
    Update.objects.filter(document=source, seq=live).update(kind=Kind.IMPORT)
    for until in (live, live + 1):
        with pytest.raises(SourceDamaged):
            copy_history(source, seq=until, actor=olga)
    copy_history(source, seq=last.last_seq, actor=olga)
    Session.objects.filter(document=source).update(commitment=b"\0" * 32)
    for until in (last.last_seq, last.last_seq - 3):
        with pytest.raises(SourceDamaged):
            copy_history(source, seq=until, actor=olga)
    assert set(Document.objects.exclude(pk=source.pk).values_list("title", flat=True)) == {f"Copy of {source.title}"}


def test_a_copy_that_fails_is_not_there(olga: Any) -> None:
    source = a_written_document(olga)
    make_document("taken")
    before = Document.objects.count(), Session.objects.count(), Snapshot.objects.count(), Run.objects.count()
    for copy in (copy_history, lambda *args, **options: copy_moment(*args, **options, via=Via.API)):
        with pytest.raises(NameTaken):
            copy(source, name="taken", actor=olga)
        with pytest.raises(NoSuchSeq):
            copy(source, seq=10**9, actor=olga)
    Update.objects.filter(document=source, seq=20).delete()
    with pytest.raises(LogHole):
        copy_history(source, actor=olga)
    assert before == (
        Document.objects.count(), Session.objects.count(), Snapshot.objects.count(), Run.objects.count()
    )  # fmt: skip


COPY = """
import sys, django
django.setup()
from documents.models import Document
from django.contrib.auth.models import User
from history.copies import copy_history
copy_history(Document.objects.get(pk=int(sys.argv[1])), actor=User.objects.get(username="olga"))
"""


def test_a_copy_that_is_killed_is_not_there(olga: Any) -> None:
    source = a_written_document(olga)
    kill_where_it_first_writes(COPY, source.pk, table="history_split")  # what comes after the rows
    assert Document.objects.get() == source
    assert set(Update.objects.values_list("document", flat=True)) == {source.pk}
    assert squash_document(source.pk, older_than=NEVER_WARM) > 0  # nothing holds it any more


def test_more_history_than_a_copy_may_bring_is_left_where_it_is(olga: Any, settings: Settings) -> None:
    source = a_written_document(olga)
    settings.PALIMPSEST = {"COPY_ROWS_MAX": 20}
    copy_history(source, seq=20, actor=olga)
    with pytest.raises(TooLongToCopy):
        copy_history(source, seq=21, actor=olga)


def test_a_squash_and_a_copy_of_one_document_do_not_meet(olga: Any) -> None:
    source = a_written_document(olga)
    with transaction.atomic():
        hold_squash(source.pk)  # as a copy does that is under way
        squashed = in_thread(lambda: squash_document(source.pk, older_than=NEVER_WARM))
        assert squashed.result(timeout=30) == 0
        other = in_thread(lambda: copy_history(source, actor=olga).document)
        proven(other.result(timeout=30))  # a second copy does not wait
        append_rows(make_session(source), typed("x", client_id=99))  # live appends go on
    assert squash_document(source.pk, older_than=NEVER_WARM) > 0


def test_a_copy_waits_for_the_segment_that_is_under_way(olga: Any) -> None:
    source = a_written_document(olga)
    before = log_of(source)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(TRY_LOCK, [source.pk])  # as the squash takes it
        copying = in_thread(lambda: copy_history(source, actor=olga).document)
        backend_waiting_for_a_lock()
    assert log_of(copying.result(timeout=30)) == before


def test_an_author_whose_account_is_gone_stays_nobody_in_the_copy(olga: Any) -> None:
    source = a_written_document(olga)
    someone = Session.objects.filter(document=source).first()
    assert someone is not None and someone.user is not None
    someone.user.delete()
    assert proven(copy_history(source, actor=olga).document).authors_unknown == 1


def test_who_copied_what_is_told_on_commit(olga: Any) -> None:
    heard: list[tuple[Any, ...]] = []

    def hear(*, source: Document, copy: Document, seq: int, actor: Any, with_history: bool, **_: Any) -> None:
        heard.append((source.pk, copy.pk, seq, actor, with_history))

    source = a_written_document(olga)
    document_copied.connect(hear)
    try:
        moment = copy_moment(source, seq=3, actor=olga, via=Via.API).document
        history = copy_history(source, seq=4, actor=olga).document
    finally:
        document_copied.disconnect(hear)
    assert heard == [(source.pk, moment.pk, 3, olga, False), (source.pk, history.pk, 4, olga, True)]


def a_copier(source: Document, actor: Any, *, with_history: bool) -> Callable[..., Copy]:
    """Copies, each time it is called, under the options given."""
    if with_history:
        return lambda **options: copy_history(source, actor=actor, **options)
    return lambda **options: copy_moment(source, actor=actor, via=Via.API, **options)


@pytest.mark.parametrize("with_history", [False, True], ids=["without history", "with history"])
@pytest.mark.parametrize("name", [None, "of my own"])
def test_one_request_is_answered_with_one_copy(olga: Any, with_history: bool, name: str | None) -> None:
    source = a_written_document(olga)
    copied = a_copier(source, olga, with_history=with_history)
    first = copied(seq=5, name=name, request_key="copy:k")
    again = copied(seq=5, name=name, request_key="copy:k")
    assert (first.repeated, again.repeated) == (False, True)
    assert (again.document, again.seq) == (first.document, 5)
    proven(first.document)
    proven(source)
    if name is not None:
        with pytest.raises(NameTaken):
            copied(name=name, request_key="copy:another")
        return
    others = make_user("other owner")
    Membership.objects.create(document=source, user=others, role=Role.OWNER)
    keys = [copied(request_key="copy:another"), a_copier(source, others, with_history=True)(request_key="copy:k")]
    assert len({each.document.name for each in [first, *keys]}) == 3
    elsewhere = a_copier(a_written_document(olga), olga, with_history=True)(request_key="copy:k")
    assert not elsewhere.repeated


def test_two_at_once_of_one_request_make_one_copy(olga: Any) -> None:
    source = a_written_document(olga)
    with transaction.atomic():
        first = copy_history(source, actor=olga, request_key="copy:k")
        second = in_thread(lambda: copy_history(source, actor=olga, request_key="copy:k"))
        backend_waiting_for_a_lock()  # for the room name of the first
    assert second.result(timeout=30) == Copy(document=first.document, seq=first.seq, repeated=True)
    assert Document.objects.count() == 2


def test_a_request_that_failed_is_made_good_when_it_is_sent_again(olga: Any, settings: Settings) -> None:
    source = a_written_document(olga)
    settings.PALIMPSEST = {"COPY_ROWS_MAX": 5}
    with pytest.raises(TooLongToCopy):
        copy_history(source, actor=olga, request_key="copy:k")
    settings.PALIMPSEST = {}
    assert not copy_history(source, actor=olga, request_key="copy:k").repeated
