"""What a browser gets where a page cannot be had: sentences in the frame of the other pages, and a way back."""

from typing import Any

import pytest
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse
from django.views.defaults import bad_request, page_not_found, permission_denied, server_error
from pytest_django import Settings

from documents.models import Role
from tests.integration.documents.builders import a_document, a_user, signed_in


@pytest.fixture(autouse=True)
def _no_whitenoise(settings: Settings) -> None:
    # It warns at each start of a client that no static files are collected.
    static = ("whitenoise", "static_files")
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if not any(word in each for word in static)]


def the_page(response: Any, status: int) -> str:
    page: str = response.content.decode()
    assert response.status_code == status
    assert f'<a class="brand" href="{reverse("document-list")}">' in page
    assert f'<a href="{reverse("document-list")}">To the documents</a>' in page
    return page


@pytest.mark.django_db
def test_a_document_that_one_may_not_see_is_a_404_in_words() -> None:
    document = a_document(a_user("ada"))
    page = the_page(signed_in(a_user("bob")).get(reverse("document-page", args=[document.key])), 404)
    assert "There is no such document, or you may not see it." in page


def test_an_address_that_leads_nowhere_is_a_404_in_words() -> None:
    page = the_page(Client().get("/nowhere/"), 404)
    assert "There is no page at this address." in page
    assert "Resolver404" not in page


@pytest.mark.django_db
def test_what_takes_a_higher_role_is_a_403_in_words() -> None:
    bob = a_user("bob")
    document = a_document(a_user("ada"), bob=(bob, Role.EDITOR))
    page = the_page(signed_in(bob).get(reverse("document-members", args=[document.key])), 403)
    assert "You are editor of this document; this takes owner." in page


@pytest.mark.django_db
def test_a_form_without_its_token_is_a_403_that_says_what_to_do() -> None:
    client = signed_in(a_user("ada"), enforce_csrf_checks=True)
    page = the_page(client.post(reverse("document-create"), {"title": "Minutes"}), 403)
    assert "reload the page" in page


def a_request() -> HttpRequest:
    return RequestFactory().get("/")


@pytest.mark.parametrize(("view", "status"), [(page_not_found, 404), (permission_denied, 403)])
def test_what_an_exception_says_never_becomes_markup(view: Any, status: int) -> None:
    page = the_page(view(a_request(), Exception("<script>alert(1)</script>")), status)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_of_a_failure_needs_no_database() -> None:
    the_page(server_error(a_request()), 500)
    the_page(bad_request(a_request(), Exception("secret")), 400)


def test_a_browser_that_asks_for_an_icon_where_no_page_names_one_is_led_to_it() -> None:
    response = Client().get("/favicon.ico")
    assert (response.status_code, response["Location"]) == (302, "/static/documents/icon.svg")


@pytest.mark.django_db
def test_every_page_of_the_site_names_the_icon() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    client = signed_in(ada)
    for name, given in (("document-list", []), ("document-page", [document.key]), ("document-history", [document.key])):
        page = client.get(reverse(name, args=given)).content.decode()
        assert '<link rel="icon" href="/static/documents/icon.svg"' in page
