"""The append: gapless under any writers, refused one by one, idempotent by request."""

import contextlib
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from psycopg import IsolationLevel
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.roles import Admission, Applicant, RoleRule, access_changed, admit, admit_again, membership_role
from history.append import append
from history.errors import WrongIsolation
from history.fates import Fate, PendingUpdate, Reason, Refused, Stored
from history.models import Head, Request, Session, Update, Via
from history.proof.verify import Verdict, verify_document
from history.sessions import WriteSession
from history.writes import write_session
from tests.builders import (
    admitted_session,
    append_rows,
    in_thread,
    log_of,
    make_document,
    make_session,
    make_user,
    typed,
)
from tests.integration.history.waiting import backend_waiting_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)


def _proven(document: Document) -> bool:
    return isinstance(verify_document(document.pk), Verdict)


def _pending(session: WriteSession, payload: bytes = b"\x00\x00") -> PendingUpdate:
    return PendingUpdate(session=session, payload=payload)


def test_seqs_begin_at_one_and_the_chain_holds() -> None:
    document = make_document()
    session = make_session(document, make_user(), ip="2001:DB8::0001", user_agent="browser\x00 of\u00e9 " * 100)
    assert append_rows(session, typed("abc")) == [1, 2, 3]
    assert append_rows(session, typed("d", client_id=2)) == [4]
    assert Head.objects.get(document=document).seq == 4
    assert Session.objects.filter(document=document).count() == 1
    assert _proven(document)


@pytest.mark.parametrize("ip", [None, "192.0.2.1", "::ffff:192.0.2.1", "2001:DB8::0001", "fe80::1%eth0", "unix:"])
def test_any_address_a_door_may_give_is_stored_and_proven(ip: str | None) -> None:
    document = make_document()
    append_rows(make_session(document, ip=ip, via=Via.WEBSOCKET), typed("a"))
    assert _proven(document)


def test_one_batch_writes_to_many_documents_in_the_order_given() -> None:
    first, second = make_document(), make_document()
    of_first, of_second = make_session(first), make_session(second)
    fates = append([_pending(each) for each in (of_second, of_first, of_second, of_first, of_first)])
    assert [fate.seq for fate in fates if isinstance(fate, Stored)] == [1, 1, 2, 2, 3]
    assert _proven(first)
    assert _proven(second)


def test_racing_writers_leave_no_gap_and_no_duplicate() -> None:
    documents = [make_document() for _ in range(3)]
    writers, rounds = 4, 25

    def write(number: int) -> list[tuple[int, int]]:
        sessions = [make_session(document) for document in documents]
        order = sessions if number % 2 else sessions[::-1]  # heads are locked in one order all the same
        seqs = []
        for _ in range(rounds):
            batch = [_pending(session) for session in order]
            for item, fate in zip(batch, append(batch), strict=True):
                assert isinstance(fate, Stored)
                seqs.append((item.document_id, fate.seq))
        return seqs

    futures = [in_thread(lambda number=number: write(number)) for number in range(writers)]  # type: ignore[misc]
    seqs = Counter(place for future in futures for place in future.result(timeout=60))
    assert seqs == {(document.pk, seq): 1 for document in documents for seq in range(1, writers * rounds + 1)}
    assert all(_proven(document) for document in documents)


def test_heads_are_locked_in_the_order_of_their_documents_wherever_they_lie_in_the_table() -> None:
    """Else two batches of the same documents wait for each other, should Postgres find them in another order."""
    first, second = make_document(), make_document()
    sessions = [make_session(document) for document in (first, second)]
    Head.objects.filter(document=first).delete()
    Head.objects.create(document=first, at=timezone.now())  # behind the second's

    def append_to_both() -> list[Fate]:
        with connection.cursor() as cursor:
            cursor.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
            cursor.execute("SELECT document_id FROM history_head WHERE document_id = ANY(%s)", [[first.pk, second.pk]])
            assert cursor.fetchall() == [(second.pk,), (first.pk,)]
        return append([_pending(session) for session in sessions])

    with transaction.atomic():
        Head.objects.select_for_update().get(document=first)
        appending = in_thread(append_to_both)
        backend_waiting_for_a_lock()
        Head.objects.select_for_update(nowait=True).get(document=second)
    assert all(isinstance(fate, Stored) for fate in appending.result(timeout=30))


def test_an_account_is_looked_for_once_however_much_its_new_session_brings() -> None:
    document = make_document()
    session = make_session(document, make_user())
    with CaptureQueriesContext(connection) as captured:
        append_rows(session, typed("many edits"))
    assert sum("FOR KEY SHARE" in query["sql"] for query in captured) == 1


def test_times_never_fall() -> None:
    document = make_document()
    session = make_session(document)
    append_rows(session, typed("ab"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE history_head SET at = at + interval '1 hour' WHERE document_id = %s", [document.pk])
    later = Head.objects.get(document=document).at
    append_rows(session, typed("c", client_id=2))
    assert Update.objects.get(document=document, seq=3).at == later


def test_a_rollback_leaves_no_gap() -> None:
    document = make_document()
    session = make_session(document, make_user())
    with contextlib.suppress(KeyError), transaction.atomic():
        assert append_rows(session, typed("ab")) == [1, 2]
        raise KeyError
    assert append_rows(session, typed("ab")) == [1, 2]  # the session, too, is stored only now
    assert _proven(document)


def test_an_append_inside_atomic_is_durable_with_the_callers_commit() -> None:
    document = make_document()
    with transaction.atomic():
        append_rows(make_session(document), typed("a"))
        assert in_thread(lambda: log_of(document)).result(timeout=10) == []
    assert len(log_of(document)) == 1


def test_a_session_appends_more_than_once_inside_atomic() -> None:
    document = make_document()
    session = make_session(document)
    with transaction.atomic():
        assert [append_rows(session, typed(letter, client_id=ord(letter))) for letter in "ab"] == [[1], [2]]
    assert _proven(document)


def test_an_append_inside_atomic_leaves_the_callers_lock_timeout_as_it_was() -> None:
    session = make_session(make_document())
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '77s'")
        append([PendingUpdate(session=session, payload=typed("a")[0])])
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("77s",)


def test_an_append_that_would_not_see_a_right_that_was_just_taken_is_not_made() -> None:
    user = make_user()
    document = make_document(a=(user, Role.EDITOR))
    session = admitted_session(document, user)
    with pytest.raises(WrongIsolation), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert Document.objects.exists()  # from here on the transaction sees nothing newer
        in_thread(lambda: Membership.objects.filter(user=user).delete()).result(timeout=10)
        append([_pending(session)])
    assert log_of(document) == []


def test_the_same_request_is_stored_once() -> None:
    document = make_document()
    session = make_session(document, make_user())
    item = PendingUpdate(session=session, payload=b"\x00\x00", request_key="restore-1")
    first, second = append([item, item])
    (third,) = append([item])
    assert [(fate.seq, fate.repeated) for fate in (first, second, third) if isinstance(fate, Stored)] == [
        (1, False),
        (1, True),
        (1, True),
    ]
    assert Update.objects.count() == Request.objects.count() == 1
    stranger = PendingUpdate(session=make_session(document, make_user()), payload=b"\x00\x00", request_key="restore-1")
    assert append([stranger])[0].seq == 2  # type: ignore[union-attr]


def test_an_append_that_expects_another_head_is_refused() -> None:
    document = make_document()
    session = make_session(document)
    expecting = PendingUpdate(session=session, payload=b"\x00\x00", expected_seq=0)
    assert isinstance(append([expecting])[0], Stored)
    assert append([expecting]) == [Refused(Reason.MOVED_ON)]


def test_a_refused_session_does_not_fail_anothers_edits() -> None:
    editor, viewer = make_user(), make_user()
    document = make_document(a=(editor, Role.EDITOR), b=(viewer, Role.VIEWER))
    may, may_not = admitted_session(document, editor), admitted_session(document, viewer)
    gone = make_session(Document(pk=10**12))
    large = make_session(document)
    fates = append(
        [_pending(may), _pending(may_not), _pending(gone), _pending(large, bytes(17 * 1024 * 1024)), _pending(may)]
    )
    assert [fate.seq if isinstance(fate, Stored) else fate.reason for fate in fates] == [
        1,
        Reason.NOT_ALLOWED,
        Reason.GONE,
        Reason.TOO_LARGE,
        2,
    ]
    assert Session.objects.filter(document=document).count() == 1
    assert _proven(document)


def test_what_stands_behind_a_refused_update_of_its_chain_is_refused_with_it() -> None:
    editor, viewer = make_user(), make_user()
    document = make_document(a=(editor, Role.EDITOR), b=(viewer, Role.VIEWER))
    may, may_not = admitted_session(document, editor), admitted_session(document, viewer)
    chained = [PendingUpdate(session=each, payload=b"\x00\x00", chain="a") for each in (may, may_not, may)]
    fates = append([*chained, _pending(may), PendingUpdate(session=may, payload=b"\x00\x00", chain="another")])
    assert [fate.seq if isinstance(fate, Stored) else fate.reason for fate in fates] == [
        1,
        Reason.NOT_ALLOWED,
        Reason.BEHIND,
        2,
        3,
    ]
    assert _proven(document)


def test_a_new_session_of_a_deleted_account_is_refused_and_nobody_else() -> None:
    owner, editor = make_user(is_superuser=True), make_user()
    document = make_document(a=(editor, Role.EDITOR))
    of_owner, of_editor = admitted_session(document, owner), admitted_session(document, editor)
    task = make_session(document, owner)
    get_user_model().objects.filter(pk=owner.pk).delete()
    fates = append([_pending(of_owner), _pending(task), _pending(of_editor)])
    assert fates[:2] == [Refused(Reason.NOT_ALLOWED)] * 2
    assert isinstance(fates[2], Stored)


def test_an_account_that_is_deleted_between_an_append_and_its_commit_fails_nobodys_edits() -> None:
    user = make_user()
    document = make_document()

    def delete() -> None:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM auth_user WHERE id = %s", [user.pk])

    with transaction.atomic():
        append_rows(make_session(document, user), typed("a"))
        append_rows(make_session(document), typed("b", client_id=2))
        deleting = in_thread(delete)
        backend_waiting_for_a_lock()
    with pytest.raises(IntegrityError):  # whoever deletes it has to begin with what is its own
        deleting.result(timeout=30)
    assert len(log_of(document)) == 2


def test_a_right_taken_by_raw_sql_stops_the_next_append() -> None:
    user = make_user()
    document = make_document(a=(user, Role.EDITOR))
    session = admitted_session(document, user)
    assert isinstance(append([_pending(session)])[0], Stored)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE documents_membership SET role = %s WHERE user_id = %s", [Role.VIEWER, user.pk])
    assert append([_pending(session)]) == [Refused(Reason.NOT_ALLOWED)]
    Membership.objects.filter(user=user).update(role=Role.OWNER)
    assert isinstance(append([_pending(session)])[0], Stored)


def rule_with_a_savepoint(user: Any, document: Document) -> Role | None:
    with transaction.atomic():
        return membership_role(user, document)


def rule_with_a_server_side_cursor(user: Any, document: Document) -> Role | None:
    return next((Role(each.role) for each in Membership.objects.filter(document=document, user=user).iterator()), None)


@pytest.mark.parametrize("rule", [rule_with_a_savepoint, rule_with_a_server_side_cursor])
def test_a_rule_of_a_host_may_ask_the_database_however_it_likes(settings: Settings, rule: Any) -> None:
    user = make_user()
    document = make_document(a=(user, Role.EDITOR))
    session = admitted_session(document, user)
    settings.PALIMPSEST = {"ROLE_FOR": f"{__name__}.{rule.__name__}"}
    access_changed(document)
    assert isinstance(append([_pending(session)])[0], Stored)
    Membership.objects.filter(user=user).update(role=Role.VIEWER)
    with transaction.atomic():
        assert append([_pending(session)]) == [Refused(Reason.NOT_ALLOWED)]
    assert _proven(document)


def rule_that_fails_for_eve(user: Any, document: Document) -> Role | None:
    if user.username == "eve":
        raise RuntimeError("a fault of the host's")
    return membership_role(user, document)


def test_a_rule_that_fails_turns_back_one_session_and_nobody_elses_edits(settings: Settings) -> None:
    eve, owner = make_user("eve"), make_user()
    document = make_document(a=(eve, Role.EDITOR), b=(owner, Role.OWNER))
    of_eve, of_owner = admitted_session(document, eve), admitted_session(document, owner)
    settings.PALIMPSEST = {"ROLE_FOR": f"{__name__}.{rule_that_fails_for_eve.__name__}"}
    access_changed(document)
    assert append([_pending(of_eve)]) == [Refused(Reason.NOT_ALLOWED)]
    fates = append([_pending(of_eve), _pending(of_owner)])
    assert fates[0] == Refused(Reason.NOT_ALLOWED) and isinstance(fates[1], Stored)
    settings.PALIMPSEST = {}
    assert isinstance(append([_pending(of_eve)])[0], Stored)  # what failed once is not remembered


def session_by(rule: RoleRule, document: Document, user: Any) -> WriteSession:
    """As a socket has one whose door has a rule of its own."""
    return write_session(document, actor=user, via=Via.WEBSOCKET, rule=rule)


def test_a_doors_own_rule_narrows_and_widens_for_its_sessions_alone_and_is_asked_again_in_the_append() -> None:
    editor, stranger = make_user(), make_user()
    document = make_document(a=(editor, Role.EDITOR))
    roles: dict[Any, Role | None] = {editor.pk: Role.VIEWER, stranger.pk: Role.EDITOR}

    def rule(user: Any, document: Document) -> Role | None:
        return roles[user.pk]

    narrowed, widened = session_by(rule, document, editor), session_by(rule, document, stranger)
    elsewhere = admitted_session(document, editor)

    def who_may() -> list[bool]:
        fates = append([_pending(each) for each in (narrowed, widened, elsewhere)])
        return [isinstance(fate, Stored) for fate in fates]

    assert who_may() == [False, True, True]
    access_changed(document)  # who was let in before is asked about anew, by the same rules
    assert who_may() == [False, True, True]
    roles |= {editor.pk: Role.EDITOR, stranger.pk: None}
    access_changed(document)
    assert who_may() == [True, False, True]
    assert _proven(document)


def test_what_a_doors_own_rule_gives_ends_with_the_account_the_document_and_the_rules_own_fault() -> None:
    ada, bob, eve = make_user(), make_user(), make_user("eve")
    document = make_document()

    def rule(user: Any, document: Document) -> Role | None:
        return rule_that_fails_for_eve(user, document) or Role.OWNER

    assert isinstance(append([_pending(session_by(rule, document, bob))])[0], Stored)
    of_ada, of_bob = session_by(rule, document, ada), session_by(rule, document, bob)
    of_eve = session_by(lambda *_: Role.OWNER, document, eve)
    of_eve.rule = rule
    get_user_model().objects.filter(pk=ada.pk).update(is_active=False)
    access_changed(document)
    fates = append([_pending(of_ada), _pending(of_eve), _pending(of_bob)])
    assert fates[:2] == [Refused(Reason.NOT_ALLOWED)] * 2 and isinstance(fates[2], Stored)
    Document.objects.filter(pk=document.pk).update(deleted_at=timezone.now())
    assert append([_pending(of_bob)]) == [Refused(Reason.GONE)]
    assert admit(bob, document, rule=rule).role is None


def rule_that_changes_the_rights_it_is_asked_for(user: Any, document: Document) -> Role | None:
    access_changed(document)
    return Role.EDITOR


def test_where_rights_change_faster_than_they_can_be_read_nothing_is_stored(settings: Settings) -> None:
    user = make_user()
    document = make_document(a=(user, Role.EDITOR))
    session = admitted_session(document, user)
    settings.PALIMPSEST = {"ROLE_FOR": f"{__name__}.{rule_that_changes_the_rights_it_is_asked_for.__name__}"}
    access_changed(document)
    assert append([_pending(session), _pending(make_session(document))])[0] == Refused(Reason.UNAVAILABLE)
    assert len(log_of(document)) == 1  # the server's own, which no rights limit
    settings.PALIMPSEST = {}
    assert isinstance(append([_pending(session)])[0], Stored)


def test_roles_that_cannot_be_read_just_now_are_read_again_and_nobody_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = make_user()
    document = make_document(a=(user, Role.EDITOR))
    session = admitted_session(document, user)
    faults = [OperationalError()]

    def away_once(users: Mapping[Applicant, Any], document: Document) -> dict[Applicant, Admission]:
        if faults:
            raise faults.pop()
        return admit_again(users, document)

    monkeypatch.setattr("history.append.admit_again", away_once)
    access_changed(document)
    assert isinstance(append([_pending(session)])[0], Stored)
    assert not faults


def test_a_rule_sees_the_account_as_it_is_now_and_not_as_it_was_on_connecting(settings: Settings) -> None:
    user = make_user(is_superuser=True)
    document = make_document()
    session = admitted_session(document, user)
    get_user_model().objects.filter(pk=user.pk).update(is_superuser=False)
    access_changed(document)
    assert append([_pending(session)]) == [Refused(Reason.NOT_ALLOWED)]


def test_a_deleted_document_takes_no_more_updates() -> None:
    document = make_document()
    session = make_session(document)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE documents_document SET deleted_at = now() WHERE id = %s", [document.pk])
    assert append([_pending(session)]) == [Refused(Reason.GONE)]


def test_one_documents_lock_timeout_does_not_fail_anothers_rows(settings: Settings) -> None:
    settings.PALIMPSEST = {"APPEND_LOCK_TIMEOUT_MS": 50}
    held, free = make_document(), make_document()
    with transaction.atomic():
        Head.objects.select_for_update().get(document=held)
        batch = [_pending(make_session(document)) for document in (held, free)]
        fates = in_thread(lambda: append(batch)).result(timeout=30)
    assert fates[0] == Refused(Reason.BUSY)
    assert isinstance(fates[1], Stored)
    assert append([_pending(make_session(held))])[0].seq == 1  # type: ignore[union-attr]
    assert _proven(held)
    assert _proven(free)


def test_a_document_whose_rows_the_database_does_not_take_fails_no_other() -> None:
    broken, sound = make_document(), make_document()
    append_rows(make_session(broken), typed("a"))
    Head.objects.filter(document=broken).update(seq=0)  # the next row will find its place taken
    batch = [_pending(make_session(document)) for document in (broken, sound)]
    with pytest.raises(IntegrityError), transaction.atomic():
        append(batch)
    assert log_of(sound) == []
    fates = append(batch)
    assert fates[0] == Refused(Reason.UNAVAILABLE)
    assert isinstance(fates[1], Stored)
    assert _proven(sound)


def test_an_accounts_row_that_another_transaction_holds_is_not_waited_for_for_ever(settings: Settings) -> None:
    settings.PALIMPSEST = {"APPEND_LOCK_TIMEOUT_MS": 300}
    user = make_user()
    document = make_document(a=(user, Role.EDITOR))
    session = admitted_session(document, user)
    with transaction.atomic():
        get_user_model().objects.select_for_update().get(pk=user.pk)
        fates = in_thread(lambda: append([_pending(session)], lock_timeout_ms=50)).result(timeout=30)
    assert fates == [Refused(Reason.BUSY)]
    assert isinstance(append([_pending(session)])[0], Stored)


def test_a_held_head_is_busy_inside_the_callers_transaction_too() -> None:
    document = make_document()
    session = make_session(document)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Head.objects.select_for_update().get(document=document)
            held.set()
            release.wait(60)

    holding = in_thread(hold)
    held.wait(60)
    try:
        with transaction.atomic():
            fates = append([_pending(session)], lock_timeout_ms=50)
            with connection.cursor() as cursor:
                cursor.execute("SHOW lock_timeout")
                assert cursor.fetchone() == ("0",)
    finally:
        release.set()
    holding.result(timeout=30)
    assert fates == [Refused(Reason.BUSY)]


def test_a_connection_above_read_committed_stores_nothing() -> None:
    document = make_document()
    session = make_session(document)

    def write() -> None:
        connection.ensure_connection()
        connection.connection.isolation_level = IsolationLevel.REPEATABLE_READ
        append([_pending(session)])

    with pytest.raises(WrongIsolation, match="REPEATABLE READ"):
        in_thread(write).result(timeout=30)
    assert log_of(document) == []
