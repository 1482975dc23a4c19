"""The page of one's notifications."""

from typing import Any

import pytest
from django.test import Client

from documents.acts import Actor, acting
from documents.members import add_member, remove_member
from documents.models import Role
from documents.opening import create_document
from realtime.models import Notification
from realtime.notifications.pages import NOTIFICATIONS_PER_PAGE, words_of
from realtime.notifications.sending import send_notification_to_user
from tests.builders import make_user

pytestmark = pytest.mark.django_db


def browser_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_page_says_what_happened_and_links_to_what_one_may_read_still() -> None:
    ada, bob = make_user("ada"), make_user("bob")
    with acting(Actor(user=ada, door="page")):
        kept, lost = (create_document(ada, title=title) for title in ("Kept <b>", "Lost"))
        add_member(kept, user=bob, role=Role.VIEWER)
        remove_member(add_member(lost, user=bob, role=Role.EDITOR))
    send_notification_to_user(bob.pk, {"text": "Lunch <i>", "document": "none"})
    send_notification_to_user(ada.pk, "for ada alone")
    page = browser_of(bob).get("/notifications/").content.decode()
    assert "ada made you viewer of “Kept &lt;b&gt;”." in page
    assert f'href="/d/{kept.key}/"' in page
    assert "ada took you out of “Lost”." in page
    assert str(lost.key) not in page
    assert "Lunch &lt;i&gt;" in page
    assert "for ada alone" not in page
    assert 'href="/notifications/"' in browser_of(bob).get("/").content.decode()


def test_what_the_page_shows_can_be_marked_as_read() -> None:
    ada, bob = make_user(), make_user()
    ids = [send_notification_to_user(ada.pk, number) for number in range(NOTIFICATIONS_PER_PAGE + 2)]
    theirs = send_notification_to_user(bob.pk, "hello")
    browser = browser_of(ada)
    page = browser.get("/notifications/")
    assert page.context["unread"] == ids[:1:-1]
    answer = browser.post("/notifications/read/", {"id": [*page.context["unread"], theirs, "no id", "9" * 40]})
    assert (answer.status_code, answer["Location"]) == (302, "/notifications/")
    unread = set(Notification.objects.filter(read_at=None).values_list("pk", flat=True))
    assert unread == {*ids[:2], theirs}
    assert browser.get("/notifications/?page=2").context["unread"] == ids[1::-1]


def test_it_is_for_those_who_are_signed_in() -> None:
    for answer in (Client().get("/notifications/"), Client().post("/notifications/read/", {"id": 1})):
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login/")
    assert browser_of(make_user()).get("/notifications/read/").status_code == 405


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hello", "hello"),
        ({"text": "hello"}, "hello"),
        ({"order": 7}, "{'order': 7}"),
        (7, "7"),
        ("x" * 501, "x" * 500),
        ({"kind": "shared"}, "{'kind': 'shared'}"),
        ({"kind": ["shared"]}, "{'kind': ['shared']}"),
        ({"kind": "removed", "by": None, "title": "{by} {0}"}, "The server took you out of “{by} {0}”."),
    ],
)
def test_what_ones_own_code_says_is_shown_as_it_is(message: Any, words: str) -> None:
    assert words_of(message) == words


def test_the_admin_shows_them_to_whoever_was_given_the_permission_and_changes_none() -> None:
    root, staff = make_user(is_superuser=True, is_staff=True), make_user(is_staff=True)
    id_ = send_notification_to_user(staff.pk, "hello")
    address = f"/admin/realtime/notification/{id_}/change/"
    assert "hello" in browser_of(root).get(address).content.decode()
    assert browser_of(root).get("/admin/realtime/notification/").status_code == 200
    assert browser_of(root).post(address, {"message": "other"}).status_code == 403
    assert browser_of(staff).get(address).status_code == 403
