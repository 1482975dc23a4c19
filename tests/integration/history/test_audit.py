"""The audit: every act has its entry in the same transaction, the chain is provable, and nothing waits for it."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings

from documents.acts import Actor, acting
from documents.members import LastOwner, add_member, change_role, remove_member
from documents.models import Document, Membership, Role
from documents.opening import create_document, delete_document, recover_document, rename_document
from documents.tasks import purge_deleted
from history.audit import entries as audit
from history.audit.entries import (
    NO_DOCUMENT,
    Act,
    AuditDifference,
    AuditVerdict,
    record,
    record_once,
    record_opening,
    remove_expired_entries,
    verify_audit,
)
from history.copies import copy_history, copy_moment
from history.crdt.chain import GENESIS, entry_hash
from history.models import Action, AuditEntry, AuditHead, Via
from history.tasks import purge_audit, verify_sample
from history.times import microseconds
from history.versions import change_version, delete_version, name_version
from tests.builders import append_rows, in_thread, make_document, make_session, make_user, typed

pytestmark = pytest.mark.django_db

on_commit = pytest.mark.django_db(transaction=True)
"""For what needs transactions of its own."""


def entries_of(document_id: int) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(document_id=document_id).order_by("n"))


def acts_of(document: Document) -> list[tuple[str, dict[str, Any] | None]]:
    return [(Action(each.action).name, each.detail) for each in entries_of(document.pk)]


def forget(document: Document) -> None:
    """Begin with an empty audit, as a document has that was there before the audit was."""
    AuditEntry.objects.filter(document_id=document.pk).delete()
    AuditHead.objects.filter(document_id=document.pk).delete()


def test_every_act_on_a_document_has_its_entry_with_who_from_where_and_through_which_door() -> None:
    ada, bob = make_user(), make_user()
    with acting(Actor(user=ada, door="page", ip="192.0.2.7")):
        document = create_document(ada, title="Minutes", name="minutes-of-may")
        membership = add_member(document, user=bob, role=Role.VIEWER)
        change_role(membership, role=Role.EDITOR)
        remove_member(membership)
        rename_document(document, title="Notes")
        delete_document(document)
        recover_document(document)
    assert acts_of(document) == [
        ("CREATED", {"name": "minutes-of-may", "title": "Minutes"}),
        ("MEMBER_ADDED", {"member": str(ada.pk), "role": "owner"}),
        ("MEMBER_ADDED", {"member": str(bob.pk), "role": "viewer"}),
        ("ROLE_CHANGED", {"member": str(bob.pk), "role": "editor", "was": "viewer"}),
        ("MEMBER_REMOVED", {"member": str(bob.pk)}),
        ("RENAMED", {"title": "Notes", "was": "Minutes"}),
        ("DELETED", {}),
        ("RECOVERED", {}),
    ]
    assert {(each.user_id, each.via, each.ip) for each in entries_of(document.pk)} == {
        (ada.pk, Via.PAGE.value, "192.0.2.7")
    }
    assert [each.n for each in entries_of(document.pk)] == list(range(1, 9))
    assert verify_audit(document.pk) == AuditVerdict(document.pk, entries=8, removed=0, authors_unknown=0)


def test_what_nobody_is_said_to_do_the_server_does() -> None:
    document = make_document()
    (entry,) = entries_of(document.pk)
    assert (entry.user_id, entry.via, entry.ip) == (None, Via.TASK, None)


def test_ones_own_code_is_audited_however_it_changes_a_membership() -> None:
    ada, bob, document = make_user(), make_user(), make_document()
    forget(document)
    membership = Membership.objects.create(document=document, user=ada, role=Role.EDITOR)
    stale = Membership.objects.get(pk=membership.pk)
    Membership.objects.filter(pk=membership.pk).update(role=Role.OWNER)
    stale.save()  # what it held when it was read is not what it takes away now
    stale.user = bob
    stale.save()
    Membership.objects.filter(document=document).delete()
    told = acts_of(document)
    assert told == [
        ("MEMBER_ADDED", {"member": str(ada.pk), "role": "editor"}),
        ("ROLE_CHANGED", {"member": str(ada.pk), "role": "editor", "was": "owner"}),
        ("MEMBER_REMOVED", {"member": str(ada.pk)}),
        ("MEMBER_ADDED", {"member": str(bob.pk), "role": "editor"}),
        ("MEMBER_REMOVED", {"member": str(bob.pk)}),
    ]


def test_a_save_that_changes_nothing_leaves_no_entry() -> None:
    document = make_document(owner=(make_user(), Role.OWNER))
    forget(document)
    document.save()
    Membership.objects.get(document=document).save()
    rename_document(document, title=document.title)
    delete_document(document)
    delete_document(document)
    assert acts_of(document) == [("DELETED", {})]


@on_commit
def test_an_act_that_is_rolled_back_leaves_no_entry_and_no_gap() -> None:
    document = make_document(owner=(make_user(), Role.OWNER))
    with pytest.raises(LastOwner):
        remove_member(Membership.objects.get(document=document))
    rename_document(document, title="Notes")
    assert [name for name, _ in acts_of(document)] == ["CREATED", "MEMBER_ADDED", "RENAMED"]
    assert isinstance(verify_audit(document.pk), AuditVerdict)


@on_commit
def test_an_act_that_cannot_be_written_down_does_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    document, ada = make_document(), make_user()
    monkeypatch.setattr(audit, "_append", _fail)
    for act in (
        lambda: Membership.objects.create(document=document, user=ada),
        lambda: rename_document(document, title="Notes"),
    ):
        with pytest.raises(RuntimeError):
            act()
    assert not Membership.objects.filter(document=document).exists()
    assert Document.objects.get(pk=document.pk).title != "Notes"


def _fail(*_: Any) -> None:
    raise RuntimeError("no room for an entry")


def test_what_was_erased_is_still_known_to_have_been_and_by_whom(settings: Settings) -> None:
    ada = make_user()
    document = create_document(ada, title="Minutes", name="minutes")
    with acting(Actor(user=ada, door="admin", ip="192.0.2.7")):
        delete_document(document, now=timezone.now() - timedelta(days=31))
    assert purge_deleted() == 1
    assert acts_of(document)[-2:] == [("DELETED", {}), ("ERASED", {"name": "minutes", "title": "Minutes"})]
    assert isinstance(verify_audit(document.pk), AuditVerdict)
    assert document.pk in audit.audits_of_no_document()


def test_a_member_whose_account_is_deleted_is_told_as_that() -> None:
    bob = make_user()
    document = make_document(bob=(bob, Role.EDITOR))
    pk = str(bob.pk)
    bob.delete()
    assert acts_of(document)[-1] == ("MEMBER_REMOVED", {"member": pk, "account_deleted": True})


def test_acts_of_an_account_that_is_gone_stay_proven_and_name_nobody() -> None:
    ada = make_user()
    with acting(Actor(user=ada, door="page")):
        document = create_document(ada, title="Minutes")
    ada.delete()
    assert {each.user_id for each in entries_of(document.pk)} == {None}
    verdict = verify_audit(document.pk)
    assert isinstance(verdict, AuditVerdict)
    assert verdict.authors_unknown == 2


def test_a_detail_that_is_erased_leaves_the_chain_whole() -> None:
    document = make_document()
    rename_document(document, title="A name that must go")
    AuditEntry.objects.filter(document_id=document.pk).update(detail=None)
    assert isinstance(verify_audit(document.pk), AuditVerdict)


def test_details_are_bounded_and_what_the_database_cannot_keep_is_left_out() -> None:
    record(Action.EXPORTED, document=None, detail={"what": "a\x00b\ud83d" + "x" * 5000})
    (entry,) = entries_of(NO_DOCUMENT)
    assert entry.detail is not None
    assert entry.detail["what"].startswith("ab?xx")
    assert len(entry.detail["what"]) <= audit.DETAIL_CHARACTERS_MAX
    assert isinstance(verify_audit(NO_DOCUMENT), AuditVerdict)
    with pytest.raises(ValueError, match="fields"):
        record(Action.EXPORTED, document=None, detail={str(n): n for n in range(100)})


@on_commit
def test_racing_writers_make_one_gapless_chain() -> None:
    document = make_document()
    forget(document)  # they race for the head itself too

    def write() -> None:
        for _ in range(5):
            record(Action.EXPORTED, document=document)

    for future in [in_thread(write) for _ in range(4)]:
        future.result(timeout=30)
    assert [each.n for each in entries_of(document.pk)] == list(range(1, 21))
    assert isinstance(verify_audit(document.pk), AuditVerdict)


@on_commit
def test_an_edit_never_waits_for_the_audit() -> None:
    document = make_document()
    session = make_session(document)
    written, may_end = Event(), Event()

    def hold() -> None:
        with transaction.atomic():
            record(Action.EXPORTED, document=document)
            written.set()
            assert may_end.wait(30)

    holding = in_thread(hold)
    try:
        assert written.wait(30)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '3s'")
        assert append_rows(session, typed("ab")) == [1, 2]
    finally:
        may_end.set()
        holding.result(timeout=30)
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


@on_commit
def test_openings_are_written_once_in_a_while_for_each_person_door_and_document(settings: Settings) -> None:
    ada, bob, minutes, plans = make_user(), make_user(), make_document(), make_document()
    for each in (minutes, plans):
        forget(each)
    visits = [
        (minutes, Actor(user=ada, door="page", ip="192.0.2.7")),
        (minutes, Actor(user=ada, door="page", ip="192.0.2.8")),  # the same person
        (minutes, Actor(user=ada, door="api", ip="192.0.2.7")),
        (minutes, Actor(user=bob, door="page", ip="192.0.2.7")),
        (minutes, Actor(door="page", ip="192.0.2.7")),
        (minutes, Actor(door="page", ip="::ffff:192.0.2.7")),  # the same address
        (minutes, Actor(door="page")),
        (plans, Actor(user=ada, door="page", ip="192.0.2.7")),
    ]
    for _ in range(3):
        for document, actor in visits:
            record_opening(document, actor)
    assert (len(entries_of(minutes.pk)), len(entries_of(plans.pk))) == (5, 1)
    settings.PALIMPSEST = {"AUDIT_OPENED_SECONDS": 0}
    record_opening(*visits[0])
    assert len(entries_of(minutes.pk)) == 6


@on_commit
def test_openings_that_race_are_written_once() -> None:
    document, ada = make_document(), make_user()
    forget(document)
    actor = Actor(user=ada, door="page")
    for future in [in_thread(lambda: record_opening(document, actor)) for _ in range(6)]:
        future.result(timeout=30)
    assert len(entries_of(document.pk)) == 1


@on_commit
def test_an_opening_in_a_long_transaction_holds_up_nobody_who_shares_the_document() -> None:
    document = make_document()
    with transaction.atomic():
        record_opening(document, Actor(user=make_user(), door="page"))
        in_thread(lambda: rename_document(document, title="Notes")).result(timeout=10)
    assert [name for name, _ in acts_of(document)] == ["CREATED", "RENAMED", "OPENED"]


@on_commit
def test_openings_do_not_wait_long_for_an_audit_that_is_held() -> None:
    document = make_document()
    act = Act(action=Action.OPENED, user=None, via=Via.WEBSOCKET, ip=None)
    with transaction.atomic():
        record(Action.EXPORTED, document=document)
        held = in_thread(lambda: record_once([(document.pk, act)])).exception(timeout=20)
    assert type(held).__name__ == "OperationalError"


def test_of_a_document_that_is_gone_and_left_no_audit_nothing_is_written() -> None:
    record_once([(987_654_321, Act(action=Action.OPENED, user=None, via=Via.WEBSOCKET, ip=None))])
    assert not AuditHead.objects.filter(document_id=987_654_321).exists()


def test_what_is_done_with_versions_is_audited() -> None:
    ada = make_user()
    document = make_document(ada=(ada, Role.OWNER))
    forget(document)
    version = name_version(document, name="Draft", actor=ada).version
    change_version(document, version.id, name="Final", note="as sent", actor=ada)
    change_version(document, version.id, locked=True, actor=ada)
    change_version(document, version.id, locked=True, actor=ada)
    change_version(document, version.id, locked=False, actor=ada)
    delete_version(document, version.id, actor=ada)
    final = {"version": version.id, "name": "Final", "seq": 0}
    assert acts_of(document) == [
        ("VERSION_NAMED", {**final, "name": "Draft"}),
        ("VERSION_RENAMED", {**final, "was": "Draft"}),
        ("VERSION_LOCKED", final),
        ("VERSION_UNLOCKED", final),
        ("VERSION_DELETED", final),
    ]
    assert {each.user_id for each in entries_of(document.pk)} == {ada.pk}


# Proof


def dropped(document_id: int, n: int) -> None:
    AuditEntry.objects.filter(document_id=document_id, n=n).delete()


def test_an_audit_cut_off_at_its_end_or_put_under_another_document_is_found() -> None:
    document = make_document()
    rename_document(document, title="Notes")
    head = AuditHead.objects.get(document_id=document.pk)
    dropped(document.pk, 2)
    found = verify_audit(document.pk)
    assert isinstance(found, AuditDifference)
    assert found.n == 2
    AuditHead.objects.filter(document_id=document.pk).delete()
    assert isinstance(verify_audit(document.pk), AuditDifference)
    other = make_document()
    AuditHead.objects.filter(document_id=other.pk).update(key=head.key)
    assert isinstance(verify_audit(other.pk), AuditDifference)


def test_the_command_proves_audits_too_also_of_documents_that_are_gone(capsys: pytest.CaptureFixture[str]) -> None:
    document = make_document()
    call_command("verify_history")
    AuditEntry.objects.filter(document_id=document.pk).update(action=Action.OPENED)
    for names in ([], [document.name]):
        with pytest.raises(CommandError, match="1 of 1 documents differ"):
            call_command("verify_history", *names)
        assert "entry 1 of the audit: the entry was altered" in capsys.readouterr().out
    pk = document.pk
    document.delete()
    with pytest.raises(CommandError):
        call_command("verify_history")
    assert f"audit of document {pk}, which is gone: entry 1" in capsys.readouterr().out


def test_the_nightly_sample_proves_audits_too(caplog: pytest.LogCaptureFixture) -> None:
    document = make_document()
    append_rows(make_session(document), typed("ab"))
    assert verify_sample() == 0
    AuditEntry.objects.filter(document_id=document.pk).update(action=Action.OPENED)
    assert verify_sample() == 1
    assert f"audit differs: document={document.pk} entry=1" in caplog.text


@on_commit
def test_what_is_exported_and_copied_is_audited(capsys: pytest.CaptureFixture[str]) -> None:
    ada = make_user()
    document = make_document(ada=(ada, Role.OWNER))
    forget(document)
    call_command("export_document", document.name)
    copy = copy_history(document, actor=ada).document
    assert acts_of(document) == [
        ("EXPORTED", {"of": "history", "pseudonymous": False}),
        ("COPIED", {"copy": str(copy.key), "seq": 0, "with_history": True}),
    ]
    assert [name for name, _ in acts_of(copy)] == ["CREATED", "MEMBER_ADDED", "COPIED"]
    assert acts_of(copy)[-1][1] == {"source": str(document.key), "seq": 0, "with_history": True}


@on_commit
@pytest.mark.parametrize("copy", [copy_history, partial(copy_moment, via=Via.API)])
def test_a_copy_that_cannot_be_written_down_where_it_is_of_is_not_made(
    copy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = make_user()
    document = make_document(ada=(ada, Role.OWNER))
    append_rows(make_session(document), typed("ab"))
    write = audit._append

    def _append(head: Any, acts: Any) -> None:
        if head.document_id == document.pk:
            _fail()
        write(head, acts)

    monkeypatch.setattr(audit, "_append", _append)
    with pytest.raises(RuntimeError):
        copy(document, actor=ada)
    assert Document.objects.count() == 1


# Retention


def aged(document: Document, *, days: int, through: int) -> None:
    """Make the first entries so old, and hash the chain anew, as if they had been written then."""
    head = AuditHead.objects.get(document_id=document.pk)
    hash_ = bytes(head.removed_hash) or GENESIS
    for entry in entries_of(document.pk):
        if entry.n <= through:
            entry.at -= timedelta(days=days)
        hash_ = entry_hash(
            hash_,
            document_key=document.key.bytes,
            n=entry.n,
            action=entry.action,
            at_microseconds=microseconds(entry.at),
            actor_commitment=bytes(entry.commitment),
            detail_sha256=bytes(entry.detail_sha256),
        )
        AuditEntry.objects.filter(document_id=document.pk, n=entry.n).update(at=entry.at, hash=hash_)
    AuditHead.objects.filter(document_id=document.pk).update(hash=hash_, at=entries_of(document.pk)[-1].at)


def test_old_entries_go_after_audit_days_and_the_rest_stays_proven(settings: Settings) -> None:
    document, young = make_document(), make_document()
    for number in range(4):
        rename_document(document, title=f"Title {number}")
    aged(document, days=100, through=3)
    assert purge_audit() == 0  # for ever, where nothing is set
    settings.PALIMPSEST = {"AUDIT_DAYS": 90}
    assert purge_audit() == 3
    assert purge_audit() == 0
    assert [each.n for each in entries_of(document.pk)] == [4, 5]
    assert verify_audit(document.pk) == AuditVerdict(document.pk, entries=2, removed=3, authors_unknown=0)
    assert len(entries_of(young.pk)) == 1
    rename_document(document, title="Goes on")
    assert isinstance(verify_audit(document.pk), AuditVerdict)


def test_a_run_removes_no_more_than_it_may_and_the_next_goes_on(settings: Settings) -> None:
    document = make_document()
    for number in range(5):
        rename_document(document, title=f"Title {number}")
    aged(document, days=100, through=6)
    settings.PALIMPSEST = {"AUDIT_DAYS": 90}
    assert [remove_expired_entries(now=timezone.now(), limit=4) for _ in range(3)] == [4, 2, 0]
    assert verify_audit(document.pk) == AuditVerdict(document.pk, entries=0, removed=6, authors_unknown=0)
    rename_document(document, title="Goes on")
    assert [each.n for each in entries_of(document.pk)] == [7]
    assert isinstance(verify_audit(document.pk), AuditVerdict)


def test_more_missing_than_was_removed_is_found(settings: Settings) -> None:
    document = make_document()
    for number in range(4):
        rename_document(document, title=f"Title {number}")
    aged(document, days=100, through=2)
    settings.PALIMPSEST = {"AUDIT_DAYS": 90}
    purge_audit()
    dropped(document.pk, 3)
    found = verify_audit(document.pk)
    assert isinstance(found, AuditDifference)
    assert (found.n, found.what) == (3, "the entry is missing; the next is 4")


@on_commit
def test_workers_that_remove_at_the_same_time_remove_each_entry_once(settings: Settings) -> None:
    settings.PALIMPSEST = {"AUDIT_DAYS": 90}
    documents = [make_document() for _ in range(6)]
    for document in documents:
        for number in range(4):
            rename_document(document, title=f"Title {number}")
        aged(document, days=100, through=4)
    for future in [in_thread(purge_audit) for _ in range(3)]:
        future.result(timeout=30)
    purge_audit()
    for document in documents:
        assert [each.n for each in entries_of(document.pk)] == [5]
        assert isinstance(verify_audit(document.pk), AuditVerdict)


def test_the_database_refuses_an_audit_of_which_more_went_than_it_had() -> None:
    make_document()
    with pytest.raises(IntegrityError):
        AuditHead.objects.update(removed_n=F("n") + 1)
