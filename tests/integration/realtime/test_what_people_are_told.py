"""What notifications come by themselves: in the transaction of their cause, and never to whoever it is of."""

from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import Settings

from documents.acts import Actor, acting
from documents.members import LastOwner, add_member, change_role, remove_member
from documents.models import Document, Membership, Role
from documents.opening import create_document, delete_document
from history.models import Kind, Update, Via
from history.signals import restored
from history.writes import append_update, restore, write_session
from realtime.chat.signals import chat_message_stored
from realtime.models import ChatMessage, ChatRoom, Notification
from realtime.notifications.mentions import MENTIONS_MAX
from tests.builders import make_document, make_user, typed

pytestmark = pytest.mark.django_db

on_commit = pytest.mark.django_db(transaction=True)
"""For what needs transactions of its own."""


def told(user: Any) -> list[dict[str, Any]]:
    return [each.message for each in Notification.objects.filter(user=user).order_by("id")]


def kinds(user: Any) -> list[str]:
    return [each["kind"] for each in told(user)]


def test_whom_a_document_is_shared_with_hears_of_it_and_of_each_change_of_that() -> None:
    ada, bob = make_user("ada"), make_user("bob")
    with acting(Actor(user=ada, door="page")):
        document = create_document(ada, title="Minutes")
        membership = add_member(document, user=bob, role=Role.VIEWER)
        change_role(membership, role=Role.EDITOR)
        change_role(membership, role=Role.EDITOR)
        remove_member(membership)
    about = {"document": str(document.key), "title": "Minutes", "by": "ada"}
    assert told(bob) == [
        {"kind": "shared", "role": "viewer", **about},
        {"kind": "role_changed", "role": "editor", "was": "viewer", **about},
        {"kind": "removed", **about},
    ]
    assert told(ada) == []


def test_nobody_is_told_of_what_they_did_or_may_not_see() -> None:
    ada, bob, root = make_user(), make_user(), make_user(is_superuser=True)
    create_document(ada, title="made by the server's own code")
    document = make_document(ada=(ada, Role.OWNER), bob=(bob, Role.OWNER))
    Notification.objects.all().delete()
    with acting(Actor(user=bob, door="page")):
        remove_member(Membership.objects.get(document=document, user=bob))
    membership = add_member(document, user=root, role=Role.VIEWER)
    remove_member(membership)  # a superuser sees it all the same
    delete_document(document)
    add_member(document, user=bob, role=Role.VIEWER)
    assert (told(ada), told(bob), kinds(root)) == ([], [], ["shared"])


def test_members_whom_an_import_brings_along_hear_nothing_new() -> None:
    ada, bob = make_user(), make_user()
    with acting(Actor(user=ada, door="import")):
        add_member(make_document(ada=(ada, Role.OWNER)), user=bob, role=Role.EDITOR)
    assert told(bob) == []


def test_an_account_or_a_document_that_goes_tells_nobody() -> None:
    ada, bob = make_user(), make_user()
    document = make_document(ada=(ada, Role.OWNER), bob=(bob, Role.EDITOR))
    Notification.objects.all().delete()
    bob.delete()
    document.delete()
    assert not Notification.objects.exists()


def test_what_did_not_happen_is_told_to_nobody() -> None:
    ada, bob = make_user(), make_user()
    document = make_document(ada=(ada, Role.OWNER))
    with acting(Actor(user=bob, door="admin")), pytest.raises(LastOwner):
        change_role(Membership.objects.get(document=document, user=ada), role=Role.VIEWER)
    assert kinds(ada) == ["shared"]


def restored_document(*, by: Any) -> tuple[Document, Any, Any]:
    """A document of Ada's and Olga's, in which two rows were written."""
    ada, olga = make_user(), make_user()
    document = make_document(ada=(ada, Role.OWNER), olga=(olga, Role.OWNER), by=(by, Role.EDITOR))
    for update in typed("xy"):
        append_update(write_session(document, actor=by, via=Via.API), update)
    Notification.objects.all().delete()
    return document, ada, olga


@on_commit
def test_owners_hear_once_of_a_restore_in_their_document() -> None:
    ed = make_user("ed")
    document, ada, olga = restored_document(by=ed)
    for _ in range(2):
        stored = restore(write_session(document, actor=ed, via=Via.API), 1, request_key="back")
        assert stored is not None
        assert stored.seq == 3
    said = {"kind": "restored", "by": "ed", "document": str(document.key), "title": document.title}
    assert told(ada) == told(olga) == [{**said, "seq": 3, "source_seq": 1}]
    restore(write_session(document, actor=ada, via=Via.API), 3)
    assert len(told(ada)) == 1  # it says that already
    restore(write_session(document, actor=ada, via=Via.API), 2)
    assert (len(told(ada)), len(told(olga)), told(ed)) == (1, 2, [])


@on_commit
def test_a_restore_and_what_is_told_of_it_are_one_transaction() -> None:
    ed = make_user()
    document, ada, _ = restored_document(by=ed)

    def fail(**_: Any) -> None:
        raise RuntimeError

    restored.connect(fail)
    try:
        with pytest.raises(RuntimeError):
            restore(write_session(document, actor=ed, via=Via.API), 1)
    finally:
        restored.disconnect(fail)
    assert not Update.objects.filter(document=document, kind=Kind.RESTORE).exists()
    assert told(ada) == []
    with transaction.atomic():
        restore(write_session(document, actor=ed, via=Via.API), 1)
        transaction.set_rollback(True)
    assert told(ada) == []
    restore(write_session(document, actor=ed, via=Via.API), 1)
    assert kinds(ada) == ["restored"]
    assert not connection.in_atomic_block


def said(text: str, *, by: Any, document: Document | None = None, name: str = "") -> ChatMessage:
    """Store a message and tell of it, as the chat does."""
    room, _ = ChatRoom.objects.get_or_create(document=document, name=name)
    message = ChatMessage.objects.create(room=room, author=by, text=text)
    about = document.name if document else name
    chat_message_stored.send(sender=ChatMessage, room=about, message=message, author=by, document=document)
    return message


def test_members_who_are_mentioned_in_a_documents_chat_hear_of_it() -> None:
    ada, bob, stranger = make_user("ada.lovelace"), make_user("Bob"), make_user("stranger")
    document = make_document(ada=(ada, Role.OWNER), bob=(bob, Role.VIEWER))
    Notification.objects.all().delete()
    message = said("@bob, @ADA.Lovelace. @Bob! @stranger @nobody @ada.lovelace", by=ada, document=document)
    about = {"document": str(document.key), "title": document.title, "room": document.name, "message": message.pk}
    assert told(bob) == [{"kind": "mentioned", "by": "ada.lovelace", **about}]
    assert (told(ada), told(stranger)) == ([], [])
    said("@ADA.lovelace... look", by=None, document=document)
    assert [(each["kind"], each["by"]) for each in told(ada)] == [("mentioned", None)]


def test_a_name_that_is_somebodys_exactly_is_nobody_elses() -> None:
    small, large, dotted = make_user("ada"), make_user("Ada"), make_user("ada.")
    document = make_document(a=(small, Role.VIEWER), b=(large, Role.VIEWER), c=(dotted, Role.VIEWER))
    Notification.objects.all().delete()
    said("@Ada", by=None, document=document)
    assert [len(told(user)) for user in (small, large, dotted)] == [0, 1, 0]
    said("@ada.", by=None, document=document)
    assert [len(told(user)) for user in (small, large, dotted)] == [0, 1, 1]
    said("@ADA", by=None, document=document)
    assert [len(told(user)) for user in (small, large, dotted)] == [1, 2, 1]


def test_a_message_that_mentions_many_tells_so_many_and_costs_few_queries(
    django_assert_max_num_queries: Any,
) -> None:
    people = [make_user(f"reader{number}") for number in range(30)]
    gone = make_user("gone", is_active=False)
    said("first", by=None, name="lobby")
    with django_assert_max_num_queries(10):
        said(" ".join(f"@{user.username}" for user in [gone, *people] * 50), by=None, name="lobby")
    assert [len(told(user)) for user in [gone, *people]] == [0] + [1] * (MENTIONS_MAX - 1) + [0] * 11


def only_editors(user: Any, document: Document) -> Role | None:
    return Role.EDITOR if user.is_authenticated and user.get_username() == "guest" else None


def test_under_a_rule_of_ones_own_the_rule_says_who_may_hear_of_it(settings: Settings) -> None:
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROLE_FOR": f"{__name__}.only_editors"}
    guest, other = make_user("guest"), make_user("other")
    document = make_document(guest=(guest, Role.VIEWER), other=(other, Role.VIEWER))
    assert (kinds(guest), kinds(other)) == (["shared"], [])
    assert told(guest)[0]["by"] is None
    assert document.title
