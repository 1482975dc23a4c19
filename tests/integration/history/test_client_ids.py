"""Under the lock of the head, the append says whose a Yjs client id is; the first who wrote under it."""

from dataclasses import replace

import pytest
from django.contrib.auth.models import AnonymousUser
from pytest_django import Settings

from documents.models import Document, Role
from history.append import append, raise_epoch
from history.fates import Base, PendingUpdate, Reason, Refused, Stored
from history.models import Client, Head, Update, Via
from history.sessions import WriteSession
from history.writes import write_session
from tests.builders import admitted_session, in_thread, make_document, make_session, make_user

pytestmark = pytest.mark.django_db(transaction=True)


def _pending(session: WriteSession, *clients: int, base: Base | None = None) -> PendingUpdate:
    return PendingUpdate(session=session, payload=b"\x00\x00", clients=frozenset(clients), base=base)


def _shared() -> tuple[Document, WriteSession, WriteSession]:
    ada, bob = make_user(), make_user()
    document = make_document(ada=(ada, Role.OWNER), bob=(bob, Role.EDITOR))
    return document, admitted_session(document, ada), admitted_session(document, bob)


def _owners(document: Document) -> dict[int, str]:
    return dict(Client.objects.filter(document=document).values_list("client_id", "actor"))


def test_the_first_who_writes_under_a_client_id_owns_it_in_that_document() -> None:
    document, ada, bob = _shared()
    first, forged, others = append([_pending(ada, 7), _pending(bob, 7), _pending(bob, 8)])
    assert isinstance(first, Stored)
    assert forged == Refused(Reason.NOT_YOURS)
    assert isinstance(others, Stored)
    assert append([_pending(bob, 7, 8)]) == [Refused(Reason.NOT_YOURS)]
    assert _owners(document) == {7: ada.actor, 8: bob.actor}
    elsewhere, _, bob_elsewhere = _shared()
    assert isinstance(append([_pending(bob_elsewhere, 7)])[0], Stored)
    assert _owners(elsewhere) == {7: bob_elsewhere.actor}


def test_a_client_id_of_nobodys_passes_to_somebody_and_not_back_to_the_session_that_wrote_first(
    settings: Settings,
) -> None:
    settings.PALIMPSEST = {"OPEN_ROOMS": True}
    document, ada, _ = _shared()
    Document.objects.filter(pk=document.pk).update(open_to_all=True)
    document.refresh_from_db()
    nobody = write_session(document, actor=AnonymousUser(), via=Via.WEBSOCKET)
    assert isinstance(append([_pending(nobody, 7)])[0], Stored)
    assert isinstance(append([_pending(ada, 7)])[0], Stored)
    assert append([_pending(nobody, 7)]) == [Refused(Reason.NOT_YOURS)]
    assert _owners(document) == {7: ada.actor}


def test_a_refused_update_binds_nothing() -> None:
    document, ada, bob = _shared()
    append([_pending(ada, 7)])
    append([_pending(bob, 7, 9)])
    assert _owners(document) == {7: ada.actor}


def test_of_two_processes_at_the_same_moment_one_gets_the_client_id() -> None:
    document, ada, bob = _shared()
    futures = [in_thread(lambda session=session: append([_pending(session, 7)])) for session in (ada, bob)]  # type: ignore[misc]
    fates = [future.result(timeout=30)[0] for future in futures]
    assert sorted(isinstance(fate, Stored) for fate in fates) == [False, True]
    winner = ada if isinstance(fates[0], Stored) else bob
    assert _owners(document) == {7: winner.actor}


def test_what_the_server_itself_brings_binds_nobody() -> None:
    document, ada, _ = _shared()
    append([_pending(ada, 7)])
    assert isinstance(append([_pending(make_session(document), 7, 8)])[0], Stored)
    assert _owners(document) == {7: ada.actor}


def test_nothing_is_stored_that_was_judged_on_a_log_that_has_been_set_back() -> None:
    document, ada, bob = _shared()
    epoch = Head.objects.get(document=document).epoch
    assert isinstance(append([_pending(ada, 7, base=Base(epoch, 0))])[0], Stored)
    assert append([_pending(ada, 7, base=Base(epoch, 5))]) == [Refused(Reason.ROLLED_BACK)]
    # From then on everybody knows: also who stands on a seq that the log has reached again.
    assert Head.objects.get(document=document).epoch == epoch + 1
    assert append([_pending(bob, 8, base=Base(epoch, 1))]) == [Refused(Reason.ROLLED_BACK)]
    assert isinstance(append([_pending(bob, 8, base=Base(epoch + 1, 1))])[0], Stored)
    assert Head.objects.get(document=document).seq == 2


def test_a_log_that_has_grown_again_since_it_was_set_back_is_another_one() -> None:
    document, ada, bob = _shared()
    (seen,) = append([_pending(ada, 7)])
    assert isinstance(seen, Stored)
    base = Base(seen.epoch, seen.seq, seen.hash)
    assert isinstance(append([_pending(bob, 8, base=base)])[0], Stored)  # others have written since
    Update.objects.filter(document=document).delete()
    Head.objects.filter(document=document).update(seq=0, hash=b"")
    append([_pending(bob, 8)])
    assert append([_pending(ada, 7, base=base)]) == [Refused(Reason.ROLLED_BACK)]  # at the same seq
    append([_pending(bob, 8)])
    assert append([_pending(ada, 7, base=replace(base, epoch=2))]) == [Refused(Reason.ROLLED_BACK)]  # beyond it
    assert Head.objects.get(document=document).epoch == 3


def test_many_who_notice_a_backup_begin_one_epoch() -> None:
    document, ada, _ = _shared()
    append([_pending(ada, 7)])
    for _ in range(3):
        raise_epoch(document.pk, epoch=1)
    assert Head.objects.get(document=document).epoch == 2
