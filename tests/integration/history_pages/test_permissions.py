"""Who sees a document's history, and who may bring a moment back: the same people everywhere."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from documents.models import Document, Membership, Role
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, post_restore, signed_in

pytestmark = pytest.mark.django_db

# Who → (status of page, content, runs, admin page), then of (page, api, admin) on restore. 302 asks to sign in.
MATRIX: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "anonymous": ((302, 401, 401, 302), (302, 401, 302)),
    "stranger": ((404, 404, 404, 302), (404, 404, 302)),
    "viewer": ((200, 200, 200, 302), (403, 403, 302)),
    "editor": ((200, 200, 200, 302), (302, 201, 302)),
    "owner": ((200, 200, 200, 302), (302, 201, 302)),
    "staff without membership": ((404, 404, 404, 404), (404, 404, 404)),
    "staff who views": ((200, 200, 200, 200), (403, 403, 403)),
    "staff who edits": ((200, 200, 200, 200), (302, 201, 302)),
    "superuser": ((200, 200, 200, 200), (302, 201, 302)),
}
MAY_RESTORE = {
    ("editor", "page"), ("editor", "api"), ("owner", "page"), ("owner", "api"),
    *((who, door) for who in ("staff who edits", "superuser") for door in ("page", "api", "admin")),
}  # fmt: skip


@pytest.fixture
def shared() -> Shared:
    shared = a_shared_document()
    shared.type(shared.owner, "first ")
    shared.type(shared.editor, "second ")
    return shared


def client_of(who: str, shared: Shared) -> Client:
    if who == "anonymous":
        return Client()
    user: User
    match who:
        case "viewer" | "editor" | "owner":
            user = getattr(shared, who)
        case "superuser":
            user = a_user(who, is_staff=True, is_superuser=True)
        case _:
            user = a_user(who, is_staff=who.startswith("staff"))
            roles = {"staff who views": Role.VIEWER, "staff who edits": Role.EDITOR}
            if who in roles:
                Membership.objects.create(document=shared.document, user=user, role=roles[who])
    return signed_in(user)


@pytest.mark.parametrize("who", MATRIX)
def test_history_is_read_by_those_who_may_read_the_document(shared: Shared, who: str) -> None:
    client = client_of(who, shared)
    statuses = tuple(client.get(url).status_code for url in shared.urls().values())
    assert statuses == MATRIX[who][0]


@pytest.mark.parametrize("who", MATRIX)
@pytest.mark.parametrize(("place", "door"), list(enumerate(("page", "api", "admin"))))
def test_a_moment_is_restored_by_editors_and_owners_alone(shared: Shared, who: str, place: int, door: str) -> None:
    response = post_restore(client_of(who, shared), shared, door, 1)
    assert response.status_code == MATRIX[who][1][place]
    assert shared.head_seq == (3 if (who, door) in MAY_RESTORE else 2)


@pytest.mark.parametrize("who", ["anonymous", "stranger", "staff without membership"])
def test_a_document_that_may_not_be_seen_answers_as_one_that_does_not_exist(shared: Shared, who: str) -> None:
    client = client_of(who, shared)
    nowhere = Shared(Document(pk=10**9), shared.owner, shared.editor, shared.viewer)
    for name in ("content", "runs"):
        seen, unseen = client.get(shared.urls()[name]), client.get(nowhere.urls()[name])
        assert (seen.status_code, seen.content) == (unseen.status_code, unseen.content)
    for name in ("page", "admin"):
        assert client.get(shared.urls()[name]).status_code == client.get(nowhere.urls()[name]).status_code


def test_a_deleted_document_shows_no_history_to_anyone(shared: Shared) -> None:
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    Document.objects.filter(pk=shared.document.pk).update(deleted_at=timezone.now())
    assert {root.get(url).status_code for url in shared.urls().values()} == {404}
    assert {post_restore(root, shared, door, 1).status_code for door in ("page", "api", "admin")} == {404}


def test_viewers_find_no_button_to_restore(shared: Shared) -> None:
    page = f"{shared.urls()['page']}?seq=1"
    assert shared.restore_urls()["page"] not in signed_in(shared.viewer).get(page).content.decode()
    assert shared.restore_urls()["page"] in signed_in(shared.editor).get(page).content.decode()


@pytest.mark.parametrize("door", ["page", "api", "admin"])
def test_viewers_are_turned_away_before_anything_is_folded(shared: Shared, door: str) -> None:
    """Also from a restore that would change nothing, which no append is there to refuse."""
    client = client_of("staff who views", shared)
    assert post_restore(client, shared, door, shared.head_seq).status_code == 403
    if door != "api":
        assert client.get(shared.restore_urls()[door], {"seq": 1}).status_code == 403


@pytest.mark.parametrize("door", ["page", "api", "admin"])
def test_a_restore_without_a_csrf_token_is_refused(shared: Shared, door: str) -> None:
    root = a_user("root", is_staff=True, is_superuser=True)
    assert post_restore(signed_in(root, enforce_csrf_checks=True), shared, door, 1).status_code == 403
    assert shared.head_seq == 2


def test_a_get_restores_nothing(shared: Shared) -> None:
    client = signed_in(shared.owner)
    for url in shared.restore_urls().values():
        client.get(f"{url}?seq=1")
    assert shared.head_seq == 2


def test_a_role_rule_of_the_host_project_decides_here_too(shared: Shared, settings: Settings) -> None:
    rule = "tests.integration.history_pages.test_permissions.nobody_but_the_viewer"
    settings.PALIMPSEST = {**settings.PALIMPSEST, "ROLE_FOR": rule}
    assert signed_in(shared.owner).get(shared.urls()["page"]).status_code == 404
    assert signed_in(shared.viewer).get(shared.urls()["page"]).status_code == 200


def nobody_but_the_viewer(user: Any, document: Document) -> Role | None:
    return Role.VIEWER if user.get_username() == "viewer" else None


def test_the_lists_of_the_admin_hold_what_the_staff_member_may_read(shared: Shared) -> None:
    hidden = a_shared_document("Hidden", prefix="other-")
    hidden.type(hidden.owner, "secret")
    staff = a_user("staff", is_staff=True)
    Membership.objects.create(document=shared.document, user=staff, role=Role.VIEWER)
    client = signed_in(staff)
    for name in ("admin:history_documenthistory_changelist", "admin:history_edit_changelist"):
        listed = client.get(reverse(name)).content.decode()
        assert "Minutes" in listed
        assert "Hidden" not in listed
        assert "other-owner" not in listed


def test_the_admin_leads_staff_to_both_lists_and_from_a_document_to_its_history(shared: Shared) -> None:
    index = signed_in(a_user("staff", is_staff=True)).get(reverse("admin:index")).content.decode()
    assert reverse("admin:history_documenthistory_changelist") in index
    assert reverse("admin:history_edit_changelist") in index
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    change = root.get(reverse("admin:documents_document_change", args=[shared.document.pk])).content.decode()
    assert shared.urls()["admin"] in change


def test_nothing_can_be_added_or_deleted_through_the_history_of_the_admin(shared: Shared) -> None:
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    assert root.get(reverse("admin:history_documenthistory_add")).status_code == 403
    delete = reverse("admin:history_documenthistory_delete", args=[shared.document.pk])
    assert root.post(delete, {"post": "yes"}).status_code == 403
    assert Document.objects.filter(pk=shared.document.pk).exists()
