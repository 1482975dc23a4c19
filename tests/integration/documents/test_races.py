"""What holds when several processes act on one document at the same moment, on connections of their own."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction

from documents.members import LastOwner, change_role
from documents.models import Document, Membership, Role
from documents.opening import delete_document, open_document
from tests.integration.documents.builders import a_document, a_user

pytestmark = pytest.mark.django_db(transaction=True)

DEADLINE_SECONDS = 30
Result = TypeVar("Result")

OPENER = """
import sys
import django
django.setup()
from django.db import connection
from documents.opening import open_document
connection.settings_dict["NAME"] = sys.argv[1]
connection.ensure_connection()
print("ready", flush=True)
for name in sys.stdin:
    print(open_document(None, name.strip()).document.key, flush=True)
connection.close()
"""


def on_own_connection(act: Callable[[], Result]) -> Callable[[], Result]:
    def run() -> Result:
        try:
            return act()
        finally:
            connection.close()

    return run


def wait_until_it_waits_for_this_connection(act: Future[Any]) -> None:
    """Ask Postgres, until it says so, whether another connection waits for what this one holds."""
    with connection.cursor() as cursor:
        give_up = threading.Event()
        timer = threading.Timer(DEADLINE_SECONDS, give_up.set)
        timer.start()
        try:
            while not give_up.is_set():
                cursor.execute("SELECT pg_stat_clear_snapshot()")  # else one transaction sees one and the same answer
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
                )
                if cursor.fetchone() != (0,):
                    return
                assert not act.done(), act.result()
            raise AssertionError("nobody came to wait for the lock")
        finally:
            timer.cancel()


def test_several_processes_that_open_a_room_first_make_exactly_one_document() -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "for this test",
        "OPEN_ROOMS": "true",
        "OPEN_ROOMS_IN_PRODUCTION": "true",
    }
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, connection.settings_dict["NAME"]],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    names = [f"room {number}" for number in range(40)]
    try:
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "ready\n"
        with ThreadPoolExecutor(len(openers)) as pool:
            answers = list(
                pool.map(lambda each: each.communicate("\n".join(names), timeout=DEADLINE_SECONDS)[0], openers)
            )
    finally:
        for opener in openers:
            opener.kill()
            opener.communicate()

    assert Document.objects.count() == len(names)
    keys = [str(Document.objects.get(name=name).key) for name in names]
    assert [answer.split() for answer in answers] == [keys] * len(openers)


def test_who_comes_second_waits_for_the_first_and_opens_the_same_document(open_rooms: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first = open_document(AnonymousUser(), "room").document
            coming = pool.submit(on_own_connection(lambda: open_document(AnonymousUser(), "room").document))
            wait_until_it_waits_for_this_connection(coming)
        assert coming.result(DEADLINE_SECONDS) == first == Document.objects.get()


def test_a_first_opening_that_rolls_back_leaves_the_room_to_the_next(open_rooms: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            open_document(AnonymousUser(), "room")
            coming = pool.submit(on_own_connection(lambda: open_document(AnonymousUser(), "room").document))
            wait_until_it_waits_for_this_connection(coming)
            transaction.set_rollback(True)
        assert coming.result(DEADLINE_SECONDS) == Document.objects.get()


def test_two_owners_who_demote_each_other_at_once_leave_one() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, bob=(bob, Role.OWNER))
    hers, his = (Membership.objects.get(document=document, user=user) for user in (ada, bob))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            change_role(hers, role=Role.VIEWER)
            second = pool.submit(on_own_connection(lambda: change_role(his, role=Role.VIEWER)))
            wait_until_it_waits_for_this_connection(second)
        with pytest.raises(LastOwner):
            second.result(DEADLINE_SECONDS)
    assert list(Membership.objects.filter(role=Role.OWNER)) == [his]


def test_a_deletion_waits_for_an_append_in_flight_and_never_deadlocks_with_it() -> None:
    document = a_document(a_user("ada"))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(), connection.cursor() as append:
            append.execute("SET LOCAL lock_timeout = '10s'")
            append.execute("SELECT seq FROM history_head WHERE document_id = %s FOR UPDATE", [document.pk])
            deletion = pool.submit(on_own_connection(lambda: delete_document(document)))
            wait_until_it_waits_for_this_connection(deletion)
            # What the foreign key of a new session's row asks for:
            append.execute("SELECT 1 FROM documents_document WHERE id = %s FOR KEY SHARE", [document.pk])
            assert Document.objects.get().deleted_at is None
        deletion.result(DEADLINE_SECONDS)
    assert Document.objects.get().deleted_at is not None
