"""Rights are compared under the head's lock: what was committed while an append waited for it counts."""

import pytest
from django.db import transaction
from pytest_django import Settings

from documents.models import Membership, Role
from history.append import append
from history.fates import Fate, PendingUpdate, Reason, Refused, Stored
from tests.builders import admitted_session, in_thread, log_of, make_document, make_user, typed
from tests.integration.history.waiting import backend_waiting_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def patient_append(settings: Settings) -> None:
    """Whoever releases a waiting append may be slow to notice it."""
    settings.PALIMPSEST = {"APPEND_LOCK_TIMEOUT_MS": 60_000}


@pytest.mark.parametrize(("before", "then"), [(Role.EDITOR, Role.VIEWER), (Role.VIEWER, Role.EDITOR)])
def test_a_role_that_changes_while_an_append_waits_for_the_head_is_the_one_that_counts(
    before: Role, then: Role
) -> None:
    user = make_user()
    document = make_document(a=(user, before))
    session = admitted_session(document, user)

    def write() -> list[Fate]:
        return append([PendingUpdate(session=session, payload=typed("a")[0])])

    with transaction.atomic():
        Membership.objects.filter(user=user).update(role=then)  # takes the head's lock, by the triggers
        waiting = in_thread(write)
        backend_waiting_for_a_lock()
    (fate,) = waiting.result(timeout=20)
    if then is Role.VIEWER:
        assert (fate, log_of(document)) == (Refused(Reason.NOT_ALLOWED), [])
    else:
        assert isinstance(fate, Stored)
