"""The plain pages, as a browser without scripts uses them."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from documents.acts import acted, current_actor
from documents.models import Document, Membership, Role
from documents.opening import delete_document
from documents.roles import role_for
from tests.integration.documents.builders import PASSWORD, a_document, a_user, signed_in

pytestmark = pytest.mark.django_db


def text_of(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def test_the_list_sends_whoever_is_not_signed_in_to_the_login_and_back() -> None:
    a_user("ada")
    client = Client()
    response = client.get("/")
    assert response.status_code == 302
    assert response["Location"] == "/login/?next=/"

    response = client.post(response["Location"], {"username": "ada", "password": PASSWORD, "next": "/"})
    assert (response.status_code, response["Location"]) == (302, "/")
    assert client.get("/").status_code == 200


def test_a_wrong_password_is_said_and_signs_nobody_in() -> None:
    a_user("ada")
    client = Client()
    response = client.post("/login/", {"username": "ada", "password": "wrong"})
    assert "correct username and password" in text_of(response)
    assert client.get("/").status_code == 302


def test_signing_out_takes_a_post_and_ends_the_session() -> None:
    client = signed_in(a_user("ada"))
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/").status_code == 302


def test_only_staff_are_shown_the_way_to_the_admin() -> None:
    shown = [
        'href="/admin/"' in signed_in(user).get("/").content.decode()
        for user in (a_user("ada"), a_user("bo", is_staff=True))
    ]
    assert shown == [False, True]


@pytest.mark.parametrize("name", ["rename", "delete", "recover", "members"])
def test_every_page_of_a_document_asks_to_sign_in(name: str) -> None:
    document = a_document(a_user("ada"))
    url = reverse(f"document-{name}", args=[document.key])
    method = Client().post if name == "recover" else Client().get
    assert method(url)["Location"] == f"/login/?next={url}"


def test_the_list_shows_ones_documents_with_role_and_company_and_no_others() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    a_document(ada, title="Shared <plan>", bob=(bob, Role.VIEWER))
    a_document(ada, title="Private")
    page = text_of(signed_in(bob).get("/"))
    assert "Shared &lt;plan&gt;" in page
    assert "viewer with ada" in page
    assert "Private" not in page


def test_the_list_offers_what_the_role_allows() -> None:
    ada, bob, eve = a_user("ada"), a_user("bob"), a_user("eve")
    document = a_document(ada, bob=(bob, Role.EDITOR), eve=(eve, Role.VIEWER))
    offered = {}
    for user in (ada, bob, eve):
        html = signed_in(user).get("/").content.decode()
        assert f'href="{document.get_absolute_url()}"' in html
        names = ("history", "members", "rename", "delete")
        offered[user.username] = [each for each in names if reverse(f"document-{each}", args=[document.key]) in html]
    assert offered == {
        "ada": ["history", "members", "rename", "delete"],
        "bob": ["history", "rename"],
        "eve": ["history"],
    }


def test_a_long_list_comes_in_pages_with_few_queries_for_each_document(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    ada = a_user("ada")
    for number in range(60):
        a_document(ada, title=f"Number {number:02}")
    client = signed_in(ada)
    with django_assert_max_num_queries(60):
        first = text_of(client.get("/"))
    second = text_of(client.get("/?page=2"))
    assert ("Number 59" in first, "Number 09" in first, "Page 1 of 2" in first) == (True, False, True)
    assert ("Number 59" in second, "Number 09" in second) == (False, True)


def test_creating_makes_an_owned_document_and_opens_it() -> None:
    ada = a_user("ada")
    client = signed_in(ada)
    response = client.post(reverse("document-create"), {"title": "Plan", "name": "team/plan"})
    document = Document.objects.get()
    assert response["Location"] == document.get_absolute_url()
    assert (document.title, document.name, role_for(ada, document)) == ("Plan", "team/plan", Role.OWNER)

    client.post(reverse("document-create"), {"title": "No name given"})
    assert len(Document.objects.get(title="No name given").name) == 16


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"title": " "}, "This field is required"),
        ({"title": "x" * 201}, "at most 200 characters"),
        ({"title": "a\x01b"}, "control character"),
        ({"title": "Plan", "name": "a//b"}, "no empty"),
        ({"title": "Plan", "name": "taken"}, "This room name is taken"),
    ],
)
def test_creating_says_what_is_wrong_and_creates_nothing(typed: dict[str, str], said: str) -> None:
    a_document(a_user("bob"), name="taken")
    response = signed_in(a_user("ada")).post(reverse("document-create"), typed)
    assert said in text_of(response)
    assert Document.objects.count() == 1


def test_an_editor_renames_and_a_viewer_may_not() -> None:
    ada, bob, eve = a_user("ada"), a_user("bob"), a_user("eve")
    document = a_document(ada, title="Old", bob=(bob, Role.EDITOR), eve=(eve, Role.VIEWER))
    url = reverse("document-rename", args=[document.key])
    assert 'value="Old"' in signed_in(bob).get(url).content.decode()
    assert signed_in(bob).post(url, {"title": "New"})["Location"] == "/"
    assert signed_in(eve).post(url, {"title": "Newer"}).status_code == 403
    assert signed_in(a_user("stranger")).post(url, {"title": "Newer"}).status_code == 404
    document.refresh_from_db()
    assert document.title == "New"


def test_only_an_owner_deletes_and_only_by_post() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, bob=(bob, Role.EDITOR))
    url = reverse("document-delete", args=[document.key])
    assert signed_in(bob).post(url).status_code == 403
    assert signed_in(ada).get(url).status_code == 200
    assert Document.objects.present().exists()
    assert signed_in(ada).post(url)["Location"] == "/"
    assert not Document.objects.present().exists()


def test_a_deleted_document_is_offered_to_its_owners_and_comes_back() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, title="Gone", bob=(bob, Role.EDITOR))
    delete_document(document)
    url = reverse("document-recover", args=[document.key])

    assert "Recently deleted" in text_of(signed_in(ada).get("/"))
    assert url in signed_in(ada).get("/").content.decode()
    assert "Gone" not in text_of(signed_in(bob).get("/"))
    assert signed_in(bob).post(url).status_code == 404
    assert signed_in(ada).get(url).status_code == 405

    response = signed_in(ada).post(url, follow=True)
    assert "“Gone” is back." in text_of(response)
    assert role_for(bob, Document.objects.get()) == Role.EDITOR
    assert signed_in(ada).post(url).status_code == 404


def test_what_was_deleted_too_long_ago_is_neither_offered_nor_recovered(settings: Settings) -> None:
    settings.PALIMPSEST = {"DELETED_DOCUMENT_DAYS": 2}
    ada = a_user("ada")
    document = a_document(ada, title="Gone")
    delete_document(document, now=timezone.now() - timedelta(days=3))
    client = signed_in(ada)
    assert "Gone" not in text_of(client.get("/"))
    response = client.post(reverse("document-recover", args=[document.key]), follow=True)
    assert "deleted too long ago" in text_of(response)
    assert not Document.objects.present().exists()


def members_url(document: Document) -> str:
    return reverse("document-members", args=[document.key])


def test_an_owner_adds_changes_and_removes_members() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada)
    client = signed_in(ada)

    client.post(members_url(document), {"username": "bob", "role": Role.VIEWER})
    assert role_for(bob, document) == Role.VIEWER
    membership = Membership.objects.get(user=bob)
    client.post(reverse("document-member-role", args=[document.key, membership.pk]), {"role": Role.EDITOR})
    assert role_for(bob, document) == Role.EDITOR
    assert "bob is editor now." in text_of(client.get(members_url(document)))
    client.post(reverse("document-member-remove", args=[document.key, membership.pk]))
    assert role_for(bob, document) is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"username": "nobody", "role": Role.VIEWER}, "There is no user of that name."),
        ({"username": "left", "role": Role.VIEWER}, "There is no user of that name."),
        ({"username": "ada", "role": Role.VIEWER}, "ada is a member already."),
        ({"username": "bob", "role": 99}, "Select a valid choice."),
        ({"username": "bob"}, "This field is required."),
    ],
)
def test_adding_a_member_says_what_is_wrong(typed: dict[str, Any], said: str) -> None:
    ada = a_user("ada")
    a_user("bob")
    a_user("left", is_active=False)
    document = a_document(ada)
    assert said in text_of(signed_in(ada).post(members_url(document), typed))
    assert document.memberships.count() == 1


def test_members_are_the_owners_business_alone() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, bob=(bob, Role.EDITOR))
    hers = Membership.objects.get(user=ada)
    client = signed_in(bob)
    assert client.get(members_url(document)).status_code == 403
    assert client.post(reverse("document-member-remove", args=[document.key, hers.pk])).status_code == 403
    assert signed_in(a_user("stranger")).get(members_url(document)).status_code == 404


def test_a_membership_is_reached_through_its_own_document_only() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    mine, theirs = a_document(bob), a_document(ada, bob=(bob, Role.EDITOR))
    hers = Membership.objects.get(document=theirs, user=ada)
    client = signed_in(bob)
    assert client.post(reverse("document-member-remove", args=[mine.key, hers.pk])).status_code == 404
    assert Membership.objects.filter(pk=hers.pk).exists()


def test_the_last_owner_stays_and_is_told_why() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    hers = Membership.objects.get()
    client = signed_in(ada)
    for act, typed in (("remove", {}), ("role", {"role": Role.EDITOR})):
        url = reverse(f"document-member-{act}", args=[document.key, hers.pk])
        assert "keeps at least one owner" in text_of(client.post(url, typed, follow=True))
    assert role_for(ada, document) == Role.OWNER


def test_an_owner_who_steps_down_goes_back_to_the_list() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, bob=(bob, Role.OWNER))
    hers = Membership.objects.get(user=ada)
    response = signed_in(ada).post(
        reverse("document-member-role", args=[document.key, hers.pk]), {"role": Role.VIEWER}, follow=True
    )
    assert response.redirect_chain == [("/", 302)]


def test_forms_are_protected_against_forgery() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    client = signed_in(ada, enforce_csrf_checks=True)
    assert client.post(reverse("document-delete", args=[document.key])).status_code == 403
    assert Document.objects.present().exists()


def test_no_page_needs_inline_script_or_style_or_another_host() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    delete_document(a_document(ada))
    client = signed_in(ada)
    urls = ["/", reverse("document-create")]
    urls += [reverse(f"document-{name}", args=[document.key]) for name in ("rename", "delete", "members")]
    pages = [client.get(url).content.decode() for url in urls] + [Client().get("/login/").content.decode()]
    for html in pages:
        assert "<script" not in html
        assert "<style" not in html
        assert not re.search(r"\sstyle=|\son[a-z]+=|https?://", html)


def test_what_is_done_on_the_pages_is_done_by_whoever_is_signed_in() -> None:
    ada, _ = a_user("ada"), a_user("bob")
    told: list[tuple[str, Any, str]] = []

    def hear(act: str, **_: Any) -> None:
        actor = current_actor()
        told.append((act, actor.user, actor.door))

    acted.connect(hear)
    try:
        client = signed_in(ada)
        client.post(reverse("document-create"), {"title": "Minutes", "name": "minutes"})
        document = Document.objects.get(name="minutes")
        client.post(reverse("document-members", args=[document.key]), {"username": "bob", "role": Role.VIEWER.value})
        client.post(reverse("document-delete", args=[document.key]))
    finally:
        acted.disconnect(hear)
    assert told == [(act, ada, "page") for act in ("created", "member_added", "member_added", "deleted")]
