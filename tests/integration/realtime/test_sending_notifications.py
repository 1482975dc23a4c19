"""Notifications from one's own code: rows of the caller's transaction, told on its commit."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings

from documents.models import Chore
from realtime.groups import notifications_group
from realtime.hub import Hub
from realtime.models import Notification
from realtime.notifications.changes import Change, changes_since, floor_now, mark_read, unread_ids
from realtime.notifications.messages import NotificationInvalid
from realtime.notifications.sending import NoSuchUser, asend_notification_to_user, notify, send_notification_to_user
from realtime.tasks import purge_notifications
from tests.builders import in_thread, make_user

pytestmark = pytest.mark.django_db

on_commit = pytest.mark.django_db(transaction=True)
"""For what needs transactions of its own."""


def unread_of(user: Any) -> list[Any]:
    return [each.message for each in Notification.objects.filter(user=user, read_at=None).order_by("id")]


def test_a_notification_is_stored_unread_for_one_account() -> None:
    ada, bob = make_user(), make_user()
    id_ = send_notification_to_user(ada.pk, {"text": "hello", "at": timezone.now().date(), "of": uuid.UUID(int=1)})
    assert unread_ids(ada.pk) == [id_]
    assert unread_of(ada)[0]["of"] == str(uuid.UUID(int=1))
    assert unread_of(bob) == []
    assert send_notification_to_user(str(ada.pk), "a text does too")


@pytest.mark.parametrize("key", [0, 2**80, "nobody", None, b"\x00", "\x00", object()], ids=repr)
def test_an_account_that_is_not_there_is_a_clear_error(key: Any) -> None:
    with pytest.raises(NoSuchUser, match="There is no account of the key"):
        send_notification_to_user(key, "hello")
    assert not Notification.objects.exists()


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "message",
    [None, {1, 2}, float("nan"), "\ud800", {"text": "nul \x00"}, "x" * 16_384, nested(5000), object()],
    ids=["null", "set", "nan", "surrogate", "nul", "large", "deep", "object"],
)
def test_what_is_no_json_or_too_large_is_refused_and_stores_nothing(message: Any) -> None:
    with pytest.raises(NotificationInvalid):
        send_notification_to_user(make_user().pk, message)
    assert not Notification.objects.exists()


def test_what_only_looks_like_a_nul_is_kept_as_it_is() -> None:
    ada = make_user()
    for message in ("\\u0000", "\\\\u0000", {"\\": "\\u0000"}, "x" * 16_382, False, 0, ""):
        send_notification_to_user(ada.pk, message)
        assert unread_of(ada)[-1] == message


def test_one_cause_is_told_once_and_anybody_elses_is_another() -> None:
    ada, bob = make_user(), make_user()
    first = send_notification_to_user(ada.pk, "once", request_key="order 7")
    assert send_notification_to_user(ada.pk, "twice", request_key="order 7") == first
    send_notification_to_user(bob.pk, "once", request_key="order 7")
    assert unread_of(ada) == unread_of(bob) == ["once"]
    with pytest.raises(ValueError, match="request key"):
        send_notification_to_user(ada.pk, "once", request_key="k" * 201)


def test_more_unread_ones_than_the_limit_count_as_read_the_oldest_first(
    settings: Settings, django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "UNREAD_NOTIFICATIONS_MAX": 3}
    ada = make_user()
    for number in range(5):
        with django_capture_on_commit_callbacks(execute=True):
            send_notification_to_user(ada.pk, number)
    assert unread_of(ada) == [2, 3, 4]
    assert Notification.objects.filter(user=ada).count() == 5


def test_many_people_are_told_in_as_many_queries_as_one(
    django_capture_on_commit_callbacks: Callable[..., Any], django_assert_num_queries: Callable[..., Any]
) -> None:
    for people in ([make_user()], [make_user() for _ in range(10)]):
        with django_assert_num_queries(4), django_capture_on_commit_callbacks(execute=True):
            notify([each.pk for each in people], "hello")


def test_reading_is_for_ones_own_and_twice_is_once() -> None:
    ada, bob = make_user(), make_user()
    mine, also_mine, theirs = (send_notification_to_user(user.pk, "hello") for user in (ada, ada, bob))
    marked = mark_read(ada.pk, [mine, theirs, 10**9])
    assert (marked.read, marked.newly) == ([mine], [mine])
    at = Notification.objects.get(pk=mine).read_at
    again = mark_read(ada.pk, [mine, also_mine])
    assert (again.read, again.newly) == ([mine, also_mine], [also_mine])
    assert Notification.objects.get(pk=mine).read_at == at
    assert unread_of(bob) == ["hello"]


def test_read_ones_are_purged_after_their_days_and_unread_ones_stay(settings: Settings) -> None:
    ada = make_user()
    old, young, _ = (send_notification_to_user(ada.pk, number) for number in range(3))
    mark_read(ada.pk, [old, young])
    Notification.objects.filter(pk=old).update(read_at=timezone.now() - timedelta(days=31))
    Notification.objects.update(created_at=timezone.now() - timedelta(days=365))
    settings.PALIMPSEST = {**settings.PALIMPSEST, "READ_NOTIFICATION_DAYS": 0}
    assert purge_notifications() == 0
    settings.PALIMPSEST = {**settings.PALIMPSEST, "READ_NOTIFICATION_DAYS": 30}
    assert purge_notifications() == 1
    assert [each.message for each in Notification.objects.order_by("id")] == [1, 2]
    turn = Chore.objects.filter(task="realtime.tasks.purge_notifications").latest("id")
    assert (turn.outcome, turn.made) == ("done", 1)


def test_notifications_go_with_their_account() -> None:
    ada = make_user()
    send_notification_to_user(ada.pk, "hello")
    ada.delete()
    assert not Notification.objects.exists()


@on_commit
def test_it_is_part_of_the_callers_transaction() -> None:
    ada = make_user()
    with pytest.raises(RuntimeError), transaction.atomic():
        send_notification_to_user(ada.pk, "hello")
        raise RuntimeError
    assert not Notification.objects.exists()
    with transaction.atomic():
        send_notification_to_user(ada.pk, "hello")
        assert in_thread(lambda: Notification.objects.count()).result() == 0
    assert unread_of(ada) == ["hello"]


@on_commit
def test_what_is_committed_late_is_found_by_whoever_looked_before() -> None:
    """Its id is smaller than one that was seen already, and its time earlier."""
    ada = make_user()
    with transaction.atomic():
        late = send_notification_to_user(ada.pk, "begun first")
        in_thread(lambda: send_notification_to_user(ada.pk, "committed first")).result()
        floor, seen = in_thread(lambda: (floor_now(), unread_ids(ada.pk))).result()
        assert late not in seen
    (soon,) = seen
    assert late < soon
    assert Change(late, ada.pk, is_read=False) in list(changes_since(floor, ada.pk))
    after = floor_now()
    assert list(changes_since(after)) == []
    mark_read(ada.pk, [soon])
    assert list(changes_since(after)) == [Change(soon, ada.pk, is_read=True)]


@on_commit
def test_rows_of_a_cluster_that_was_ahead_are_not_found_again_and_again() -> None:
    ada = make_user()
    send_notification_to_user(ada.pk, "restored from a backup")
    Notification.objects.update(changed_in=10**15)
    floor = floor_now()
    assert list(changes_since(floor)) == []
    id_ = send_notification_to_user(ada.pk, "new")
    assert list(changes_since(floor)) == [Change(id_, ada.pk, is_read=False)]
    assert len(unread_ids(ada.pk)) == 2


def rolled_back(user: Any) -> None:
    with transaction.atomic():
        send_notification_to_user(user.pk, "never")
        transaction.set_rollback(True)


@on_commit
async def test_its_group_hears_of_it_on_commit(hub: Hub) -> None:
    ada = await sync_to_async(make_user)()
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(notifications_group(ada.pk), channel)
    await sync_to_async(rolled_back)(ada)
    id_ = await asend_notification_to_user(ada.pk, {"text": "hello"})
    event = await layer.receive(channel)
    assert (event["type"], event["id"], event["message"]) == ("send_notification", id_, {"text": "hello"})
