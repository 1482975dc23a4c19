"""What the log did not take is kept for its sender and the document's owners, within bounds, for a while."""

import base64
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from documents.conf import conf
from documents.models import Document, Membership, Role
from history.fates import Reason
from history.models import Refusal
from history.refusals import (
    CLIENTS_NOTED_MAX,
    PART_BYTES_MAX,
    ROW_COST,
    RefusedUpdate,
    keep_refused,
    refusals_for,
    updates_of,
)
from history.sessions import WriteSession
from history.tasks import purge_refused
from tests.builders import admitted_session, in_thread, make_document, make_session, make_user
from tests.integration.history.waiting import backend_waiting_for_a_lock

pytestmark = pytest.mark.django_db


def _refuse(session: WriteSession, *updates: bytes, reason: Reason = Reason.NOT_ALLOWED) -> None:
    keep_refused([RefusedUpdate(session=session, update=update, reason=reason) for update in updates])


def _kept(document: Document) -> list[list[bytes]]:
    return [updates_of(row) for row in Refusal.objects.filter(document=document).order_by("first_at")]


def _shared() -> tuple[Document, Any, Any, Any]:
    ada, bob, eve = make_user(), make_user(), make_user()
    return (
        make_document(ada=(ada, Role.OWNER), bob=(bob, Role.VIEWER), eve=(eve, Role.VIEWER)),
        ada,
        bob,
        eve,
    )


def _browser(user: Any | None) -> Browser:
    browser = Browser()
    if user is not None:
        browser.force_login(user)
    return browser


def test_one_sessions_refused_updates_are_one_row_in_the_order_in_which_they_came() -> None:
    document, _, bob, _ = _shared()
    session = admitted_session(document, bob)
    _refuse(session, b"one", b"two")
    _refuse(session, b"three")
    _refuse(session, b"other", reason=Reason.MISSING)
    assert _kept(document) == [[b"one", b"two", b"three"], [b"other"]]
    assert Refusal.objects.get(document=document, reason="not_allowed").updates == 3


def test_the_oldest_go_when_one_person_has_too_many_and_nobody_elses(settings: Settings) -> None:
    settings.PALIMPSEST = {"REFUSED_BYTES_MAX": ROW_COST + 100}
    document, _, bob, eve = _shared()
    _refuse(admitted_session(document, eve), b"e" * 60)
    for letter in (b"1", b"2", b"3"):
        _refuse(admitted_session(document, bob), letter * 60)
    assert _kept(document) == [[b"e" * 60], [b"3" * 60]]


def test_one_session_has_no_more_than_anybody_else(settings: Settings) -> None:
    settings.PALIMPSEST = {"REFUSED_BYTES_MAX": 2 * (PART_BYTES_MAX + ROW_COST)}
    document, _, bob, _ = _shared()
    session = admitted_session(document, bob)
    for number in range(10):
        _refuse(session, bytes([number]) * (PART_BYTES_MAX - 3))  # and 3 for its length
    kept = [update for part in _kept(document) for update in part]
    assert [update[0] for update in kept] == [8, 9]


def test_what_came_last_is_kept_however_large_it_is(settings: Settings) -> None:
    settings.PALIMPSEST = {"REFUSED_BYTES_MAX": 100}
    document, _, bob, _ = _shared()
    _refuse(admitted_session(document, bob), b"u" * 1000)
    assert _kept(document) == [[b"u" * 1000]]


def test_small_ones_share_a_row_until_it_is_large() -> None:
    document, _, bob, _ = _shared()
    session = admitted_session(document, bob)
    third = b"u" * (PART_BYTES_MAX // 3)
    for _ in range(5):
        _refuse(session, third)
    assert [len(part) for part in _kept(document)] == [3, 2]


def test_a_row_names_the_clients_because_of_whom_it_is_there_within_bounds() -> None:
    document, _, bob, _ = _shared()
    session = admitted_session(document, bob)

    def named(clients: Iterable[int]) -> list[int]:
        """The clients of the row once these are refused too."""
        refused = RefusedUpdate(session=session, update=b"u", reason=Reason.NOT_YOURS, clients=frozenset(clients))
        keep_refused([refused])
        return list(Refusal.objects.get(document=document).clients)

    assert named([2, 1]) == [1, 2]
    assert named([2]) == [1, 2]
    full = [1, 2, *range(1000, 1000 + CLIENTS_NOTED_MAX)]
    assert named(range(1000, 5000)) == full
    assert named([7]) == full


def test_what_a_deleted_account_sent_is_the_owners_and_nobody_elses_trouble() -> None:
    document, _, bob, eve = _shared()
    bobs, eves = admitted_session(document, bob), admitted_session(document, eve)
    get_user_model().objects.filter(pk=bob.pk).delete()
    keep_refused([RefusedUpdate(session=each, update=b"u", reason=Reason.NOT_ALLOWED) for each in (bobs, eves)])
    assert set(Refusal.objects.values_list("session_id", "user")) == {(bobs.id, None), (eves.id, eve.pk)}


def test_an_update_of_a_document_that_was_purged_meanwhile_is_nobodys_trouble() -> None:
    document, _, bob, _ = _shared()
    other = make_document(bob=(bob, Role.VIEWER))
    gone, stays = admitted_session(document, bob), admitted_session(other, bob)
    document.delete()
    keep_refused([RefusedUpdate(session=each, update=b"u", reason=Reason.NOT_ALLOWED) for each in (gone, stays)])
    assert _kept(other) == [[b"u"]]


def test_it_is_kept_for_so_many_days(settings: Settings) -> None:
    settings.PALIMPSEST = {"REFUSED_DAYS": 10}
    document, _, bob, _ = _shared()
    for days in (9, 11):
        _refuse_days_ago(days, admitted_session(document, bob))
    assert purge_refused() == 1
    assert _kept(document) == [[b"9"]]


def test_one_run_purges_a_bounded_number_the_oldest_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("history.tasks.PURGE_ROWS_MAX", 2)
    settings.PALIMPSEST = {"REFUSED_DAYS": 10}
    document, _, bob, _ = _shared()
    for days in (11, 13, 12):
        _refuse_days_ago(days, admitted_session(document, bob))
    assert purge_refused() == 2
    assert _kept(document) == [[b"11"]]
    assert purge_refused() == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_added_to_while_it_is_purged_stays() -> None:
    document, _, bob, _ = _shared()
    session = admitted_session(document, bob)
    _refuse_days_ago(conf().refused_days + 1, session)
    with transaction.atomic():
        _refuse(session, b"new")
        purging = in_thread(purge_refused)
        backend_waiting_for_a_lock()
    purging.result(30)
    assert _kept(document) == [[str(conf().refused_days + 1).encode(), b"new"]]


def _refuse_days_ago(days: int, session: WriteSession) -> None:
    _refuse(session, str(days).encode())
    Refusal.objects.filter(session_id=session.id).update(last_at=timezone.now() - timedelta(days=days))


def test_a_sender_fetches_their_own_and_an_owner_everybodys() -> None:
    document, ada, bob, eve = _shared()
    _refuse(admitted_session(document, bob), b"bob's", b"work")
    _refuse(admitted_session(document, eve), b"eve's")
    address = reverse("document-refused", args=[document.key])
    listed = {
        who: [row["author"] for row in _browser(user).get(address).json()["refused"]]
        for who, user in (("ada", ada), ("bob", bob), ("eve", eve))
    }
    assert listed == {"ada": [eve.username, bob.username], "bob": [bob.username], "eve": [eve.username]}
    (row,) = _browser(bob).get(address).json()["refused"]
    assert (row["reason"], row["updates"]) == ("not_allowed", 2)
    updates = _browser(bob).get(f"{address}/{row['id']}").json()["updates"]
    assert [base64.b64decode(update) for update in updates] == [b"bob's", b"work"]
    assert _browser(eve).get(f"{address}/{row['id']}").status_code == 404
    assert _browser(ada).get(f"{address}/{row['id']}").status_code == 200


def test_who_has_lost_the_right_still_fetches_what_was_not_taken_because_of_it() -> None:
    document, _, bob, eve = _shared()
    _refuse(admitted_session(document, bob), b"offline work")
    Membership.objects.filter(document=document, user__in=[bob, eve]).delete()
    address = reverse("document-refused", args=[document.key])
    assert len(_browser(bob).get(address).json()["refused"]) == 1
    assert _browser(eve).get(address).status_code == 404
    assert _browser(make_user()).get(address).status_code == 404
    assert _browser(None).get(address).status_code == 401


def test_what_nobodys_account_sent_is_for_the_owners_alone() -> None:
    document, ada, bob, _ = _shared()
    nobody = make_session(document)
    _refuse(nobody, b"anonymous")
    address = reverse("document-refused", args=[document.key])
    assert [row["author"] for row in _browser(ada).get(address).json()["refused"]] == [None]
    assert _browser(bob).get(address).json()["refused"] == []
    assert not refusals_for(AnonymousUser(), document).exists()
