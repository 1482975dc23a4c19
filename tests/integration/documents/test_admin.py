"""Documents in the admin: staff see what they may read, and change what they own."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from documents.acts import acted, current_actor
from documents.models import Document, Membership, Role
from documents.opening import delete_document
from documents.roles import role_for
from tests.integration.documents.builders import a_document, a_user, signed_in

pytestmark = pytest.mark.django_db

LIST = "/admin/documents/document/"


def a_staff_user(name: str) -> User:
    user = a_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="documents"))
    return user


def a_root() -> User:
    return a_user("root", is_staff=True, is_superuser=True)


def titles(client: Client, query: str = "") -> set[str]:
    html = client.get(LIST + query).content.decode()
    return set(re.findall(r'<th class="field-title"><a [^>]*>([^<]*)</a>', html))


def change_url(document: Document, act: str = "change") -> str:
    return reverse(f"admin:documents_document_{act}", args=[document.pk])


def form_of(document: Document, title: str, members: list[tuple[Membership | None, User, int]]) -> dict[str, Any]:
    kept = sum(membership is not None for membership, _, _ in members)
    typed: dict[str, Any] = {
        "title": title,
        "memberships-TOTAL_FORMS": len(members),
        "memberships-INITIAL_FORMS": kept,
    }
    for place, (membership, user, role) in enumerate(members):
        typed |= {f"memberships-{place}-user": user.pk, f"memberships-{place}-role": role}
        typed[f"memberships-{place}-id"] = "" if membership is None else membership.pk
        typed[f"memberships-{place}-document"] = document.pk or ""
    return typed


def test_staff_see_the_documents_they_may_read_and_superusers_all() -> None:
    ada, bob = a_staff_user("ada"), a_staff_user("bob")
    a_document(ada, title="hers")
    a_document(ada, title="shared", bob=(bob, Role.VIEWER))
    delete_document(a_document(ada, title="deleted", bob=(bob, Role.EDITOR)))
    assert titles(signed_in(ada)) == {"hers", "shared", "deleted"}
    assert titles(signed_in(bob)) == {"shared"}
    assert titles(signed_in(a_root())) == {"hers", "shared", "deleted"}


def test_a_document_that_one_may_not_read_cannot_be_reached_by_its_address() -> None:
    document = a_document(a_user("ada"))
    client = signed_in(a_staff_user("stranger"))
    for act in ("change", "delete", "history"):
        assert client.get(change_url(document, act), follow=False).status_code == 302
    assert Document.objects.present().exists()


def test_staff_without_the_permission_of_the_admin_see_nothing() -> None:
    ada = a_user("ada", is_staff=True)
    a_document(ada)
    assert signed_in(ada).get(LIST).status_code == 403


def test_only_an_owner_changes_a_document_and_its_members() -> None:
    ada, bob = a_staff_user("ada"), a_staff_user("bob")
    document = a_document(ada, title="Old", bob=(bob, Role.EDITOR))
    hers, his = (Membership.objects.get(user=user) for user in (ada, bob))
    typed = form_of(document, "New", [(hers, ada, Role.OWNER), (his, bob, Role.VIEWER)])

    assert signed_in(bob).get(change_url(document)).status_code == 200
    assert signed_in(bob).post(change_url(document), typed).status_code == 403
    assert signed_in(ada).post(change_url(document), typed)["Location"] == LIST
    document.refresh_from_db()
    assert (document.title, role_for(bob, document)) == ("New", Role.VIEWER)


def test_the_name_is_chosen_once() -> None:
    ada = a_staff_user("ada")
    document = a_document(ada, name="minutes")
    html = signed_in(ada).get(change_url(document)).content.decode()
    assert 'name="name"' not in html
    assert "minutes" in html
    typed = form_of(document, "New", [(Membership.objects.get(), ada, Role.OWNER)])
    signed_in(ada).post(change_url(document), {**typed, "name": "other"})
    document.refresh_from_db()
    assert (document.title, document.name) == ("New", "minutes")


def test_the_members_of_a_document_keep_an_owner() -> None:
    ada, bob = a_staff_user("ada"), a_staff_user("bob")
    document = a_document(ada)
    hers = Membership.objects.get()
    client = signed_in(ada)
    demoted = form_of(document, "New", [(hers, ada, Role.EDITOR), (None, bob, Role.VIEWER)])
    removed = {**form_of(document, "New", [(hers, ada, Role.OWNER)]), "memberships-0-DELETE": "on"}
    for typed in (demoted, removed):
        response = client.post(change_url(document), typed)
        assert "keeps at least one owner" in response.content.decode()
    assert role_for(ada, document) == Role.OWNER
    assert role_for(bob, document) is None


def test_whoever_adds_a_document_owns_it_unless_an_owner_is_named() -> None:
    ada, bob = a_staff_user("ada"), a_staff_user("bob")
    client = signed_in(ada)
    add = reverse("admin:documents_document_add")
    assert client.get(add).status_code == 200
    client.post(add, {**form_of(Document(), "Mine", [(None, bob, Role.EDITOR)]), "name": "mine"})
    client.post(add, {**form_of(Document(), "His", [(None, bob, Role.OWNER)]), "name": "his"})

    mine, his = Document.objects.get(name="mine"), Document.objects.get(name="his")
    assert (role_for(ada, mine), role_for(bob, mine)) == (Role.OWNER, Role.EDITOR)
    assert (role_for(ada, his), role_for(bob, his)) == (None, Role.OWNER)
    assert mine.created_by == his.created_by == ada


def test_a_name_that_no_room_can_have_is_refused() -> None:
    ada = a_staff_user("ada")
    response = signed_in(ada).post(
        reverse("admin:documents_document_add"), {**form_of(Document(), "Mine", []), "name": "rooms/1"}
    )
    assert "does not start with" in response.content.decode()
    assert not Document.objects.exists()


def test_deleting_in_the_admin_can_be_undone_there() -> None:
    ada = a_staff_user("ada")
    document = a_document(ada, title="Gone")
    client = signed_in(ada)
    assert "recovered" in client.get(change_url(document, "delete")).content.decode()
    client.post(change_url(document, "delete"), {"post": "yes"})
    assert not Document.objects.present().exists()
    assert titles(client, "?state=deleted") == {"Gone"}
    assert titles(client, "?state=present") == set()

    client.post(LIST, {"action": "recover", "_selected_action": [document.pk]})
    assert Document.objects.present().get() == document


def test_deleting_many_deletes_recoverably_and_only_what_one_owns() -> None:
    ada, bob = a_staff_user("ada"), a_staff_user("bob")
    first, second = a_document(ada), a_document(ada, bob=(bob, Role.EDITOR))
    chosen = {"action": "delete_selected", "_selected_action": [first.pk, second.pk]}

    assert "only documents that you own" in signed_in(bob).post(LIST, chosen).content.decode()
    assert signed_in(bob).post(LIST, {**chosen, "post": "yes"}).status_code == 403
    assert Document.objects.present().count() == 2

    assert "recovered" in signed_in(ada).post(LIST, chosen).content.decode()
    signed_in(ada).post(LIST, {**chosen, "post": "yes"})
    assert (Document.objects.present().count(), Document.objects.count()) == (0, 2)


def test_confirming_a_deletion_does_not_read_the_history() -> None:
    ada = a_staff_user("ada")
    document = a_document(ada)
    client = signed_in(ada)
    asked: list[str] = []

    def listen(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        asked.append(sql)
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(listen):
        client.get(change_url(document, "delete"))
        client.post(LIST, {"action": "delete_selected", "_selected_action": [document.pk]})
    assert asked
    assert not [sql for sql in asked if '"history_' in sql]


def test_recovering_takes_an_owner() -> None:
    ada, root = a_staff_user("ada"), a_root()
    document = a_document(a_user("other"), ada=(ada, Role.EDITOR))
    delete_document(document)
    chosen = {"action": "recover", "_selected_action": [document.pk]}
    signed_in(ada).post(LIST, chosen)
    assert not Document.objects.present().exists()
    signed_in(root).post(LIST, chosen)
    assert Document.objects.present().exists()


def test_documents_are_found_by_title_name_key_and_member() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    first = a_document(ada, title="Alpha", name="one")
    a_document(ada, title="Beta", name="two", bob=(bob, Role.VIEWER))
    client = signed_in(a_root())
    assert titles(client, "?q=alph") == {"Alpha"}
    assert titles(client, "?q=two") == {"Beta"}
    assert titles(client, f"?q={first.key}") == {"Alpha"}
    assert titles(client, "?q=bob") == {"Beta"}
    assert titles(client, "?q=ada") == {"Alpha", "Beta"}


def test_each_document_links_to_its_one_history() -> None:
    ada = a_staff_user("ada")
    document = a_document(ada)
    history = reverse("admin:history_documenthistory_change", args=[document.pk])
    for url in (LIST, reverse("admin:documents_document_change", args=[document.pk])):
        page = signed_in(ada).get(url).content.decode()
        found = re.findall(r'href="([^"]*(?:documenthistory/\d+|\d+/history|/d/[^"]+/history)/[^"]*)"', page)
        assert found == [history]


def test_what_is_done_in_the_admin_is_done_by_whoever_is_signed_in() -> None:
    root, document = a_root(), a_document(a_user("ada"))
    membership = Membership.objects.get(document=document)
    told: list[tuple[str, Any, str, Any]] = []

    def hear(act: str, detail: Any, **_: Any) -> None:
        told.append((act, current_actor().user, current_actor().door, detail.get("role")))

    acted.connect(hear)
    try:
        client = signed_in(root)
        form = {
            "title": "Notes",
            "memberships-TOTAL_FORMS": 2,
            "memberships-INITIAL_FORMS": 1,
            "memberships-0-id": membership.pk,
            "memberships-0-document": document.pk,
            "memberships-0-user": membership.user_id,
            "memberships-0-role": Role.OWNER.value,
            "memberships-1-document": document.pk,
            "memberships-1-user": root.pk,
            "memberships-1-role": Role.VIEWER.value,
        }
        assert client.post(change_url(document), form).status_code == 302
        selected = {"action": "delete_selected", "_selected_action": [document.pk], "post": "yes"}
        assert client.post(LIST, selected).status_code == 302
    finally:
        acted.disconnect(hear)
    assert told == [
        ("renamed", root, "admin", None),
        ("member_added", root, "admin", "viewer"),
        ("deleted", root, "admin", None),
    ]
