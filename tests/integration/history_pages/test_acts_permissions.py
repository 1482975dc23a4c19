"""Who may do what on the pages that act on a document's history, on the site and in the admin."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from documents.models import Document, Role
from history.models import Version
from history.pages.frame import HISTORY
from history.pages.table import PAGES
from history.versions import change_version, name_version
from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, page_url, signed_in
from tests.integration.history_pages.test_permissions import client_of

pytestmark = pytest.mark.django_db

DOORS = ("page", "admin")
ACTING = [name for name in PAGES if name != HISTORY]

# Who → the role that they act in on the site and in the admin, or the status that they get there.
WHO: dict[str, tuple[Role | int, Role | int]] = {
    "anonymous": (302, 302),
    "stranger": (404, 302),
    "viewer": (Role.VIEWER, 302),
    "editor": (Role.EDITOR, 302),
    "owner": (Role.OWNER, 302),
    "staff without membership": (404, 404),
    "staff who views": (Role.VIEWER, Role.VIEWER),
    "staff who edits": (Role.EDITOR, Role.EDITOR),
    "superuser": (Role.OWNER, Role.OWNER),
}
NEEDED = {
    "restore": Role.EDITOR,
    "undo": Role.EDITOR,
    "versions": Role.VIEWER,
    "name": Role.EDITOR,
    "version": Role.EDITOR,
    "lock": Role.OWNER,
    "forget": Role.EDITOR,
    "copy": Role.VIEWER,
    "export": Role.OWNER,
}


@pytest.fixture
def shared() -> Shared:
    shared = a_shared_document()
    shared.type(shared.owner, "first ")
    shared.type(shared.editor, "second ")
    return shared


def asked(shared: Shared, version: int) -> dict[str, dict[str, Any]]:
    """What makes each page act."""
    return {
        "restore": {"seq": 1},
        "undo": {"user": "editor", "from": 1, "to": 2},
        "name": {"seq": 1, "name": "Other", "note": ""},
        "version": {"version": version, "name": "Renamed", "note": ""},
        "lock": {"version": version, "locked": 1},
        "forget": {"version": version},
        "copy": {"seq": 1, "title": "Copy"},
        "export": {},
    }


def held(shared: Shared) -> tuple[Any, ...]:
    """All that these pages could have changed."""
    versions = list(Version.objects.order_by("id").values_list("name", "locked"))
    return shared.head_seq, versions, Document.objects.count()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("who", WHO)
def test_each_page_is_had_by_those_with_its_role_and_by_nobody_else(shared: Shared, who: str, door: str) -> None:
    version = name_version(shared.document, name="One", actor=shared.owner).version.id
    client, given = client_of(who, shared), WHO[who][DOORS.index(door)]
    before = held(shared)
    for page, needed in NEEDED.items():
        url, values = page_url(shared, page, door), asked(shared, version).get(page)
        is_allowed = isinstance(given, Role) and given >= needed
        turned_away = 403 if isinstance(given, Role) else given
        if "GET" in PAGES[page].methods:
            assert client.get(url, values or {}).status_code == (200 if is_allowed else turned_away), page
            assert held(shared) == before, f"a GET of {page} changed something"
        if values is not None and not is_allowed:
            assert client.post(url, values).status_code == turned_away, page
            assert held(shared) == before, f"a POST to {page} by {who} changed something"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("page", [page for page in NEEDED if page not in ("versions", "export")])
def test_who_has_the_role_acts(shared: Shared, page: str, door: str) -> None:
    version = name_version(shared.document, name="One", actor=shared.owner).version.id
    before = held(shared)
    client = signed_in(a_user("root", is_staff=True, is_superuser=True))
    answer = client.post(page_url(shared, page, door), asked(shared, version)[page])
    assert answer.status_code == 302
    assert held(shared) != before


def test_every_page_that_acts_is_in_these_tests() -> None:
    assert {name: PAGES[name].role for name in ACTING} == NEEDED


@pytest.mark.parametrize("door", DOORS)
def test_a_get_unlocks_nothing_and_a_post_to_what_only_shows_is_refused(shared: Shared, door: str) -> None:
    version = name_version(shared.document, name="One", actor=shared.owner).version.id
    change_version(shared.document, version, locked=True, actor=shared.owner)
    client = signed_in(a_user("root", is_staff=True, is_superuser=True))
    assert client.get(page_url(shared, "lock", door), {"version": version}).status_code == 405
    assert Version.objects.get().locked
    assert client.post(page_url(shared, "versions", door)).status_code == 405
    assert client.post(shared.urls()[door]).status_code == 405


def test_a_viewer_cannot_take_the_history_along(shared: Shared) -> None:
    values = {"seq": 1, "title": "Copy", "history": "on"}
    for who in (shared.viewer, shared.editor):
        assert signed_in(who).post(page_url(shared, "copy", "page"), values).status_code == 403
    assert Document.objects.count() == 1


@pytest.mark.parametrize("door", DOORS)
def test_no_act_goes_without_a_csrf_token(shared: Shared, door: str) -> None:
    version = name_version(shared.document, name="One", actor=shared.owner).version.id
    client = signed_in(a_user("root", is_staff=True, is_superuser=True), enforce_csrf_checks=True)
    before = held(shared)
    for page, values in asked(shared, version).items():
        assert client.post(page_url(shared, page, door), values).status_code == 403, page
    assert held(shared) == before


def test_a_deleted_document_is_acted_on_by_nobody(shared: Shared) -> None:
    version = name_version(shared.document, name="One", actor=shared.owner).version.id
    client = signed_in(a_user("root", is_staff=True, is_superuser=True))
    Document.objects.filter(pk=shared.document.pk).update(deleted_at=timezone.now())
    for page, values in asked(shared, version).items():
        for door in DOORS:
            assert client.post(page_url(shared, page, door), values).status_code == 404, page


BUTTONS = {
    "viewer": {"versions", "copy"},
    "editor": {"versions", "copy", "name", "restore", "undo"},
    "owner": {"versions", "copy", "name", "restore", "undo", "export"},
}


@pytest.mark.parametrize("who", BUTTONS)
def test_everyone_finds_the_buttons_of_what_they_may_do(shared: Shared, who: str) -> None:
    name_version(shared.document, name="One", seq=1, actor=shared.owner)
    client = signed_in(getattr(shared, who))
    page = client.get(shared.urls()["page"], {"seq": 1}).content.decode()
    assert {name for name in ACTING if page_url(shared, name, "page") in page} == BUTTONS[who]
    listed = client.get(page_url(shared, "versions", "page")).content.decode()
    assert (page_url(shared, "lock", "page") in listed) == (who == "owner")
    assert (page_url(shared, "forget", "page") in listed) == (who != "viewer")


def test_who_reads_an_open_room_without_an_account_is_asked_to_sign_in_before_a_copy(settings: Settings) -> None:
    shared = a_shared_document()
    shared.type(shared.owner, "words")
    Document.objects.filter(pk=shared.document.pk).update(open_to_all=True)
    settings.PALIMPSEST = {**settings.PALIMPSEST, "OPEN_ROOMS": True}
    page = Client().get(shared.urls()["page"])
    assert page.status_code == 200
    assert page_url(shared, "copy", "page") not in page.content.decode()
    answer = Client().post(page_url(shared, "copy", "page"), {"seq": 1, "title": "Mine"})
    assert (answer.status_code, "Sign in first." in answer.content.decode()) == (401, True)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("page", [name for name in ACTING if "POST" in PAGES[name].methods])
def test_a_form_that_is_sent_after_the_session_ended_leads_on_to_the_history(
    shared: Shared, page: str, door: str
) -> None:
    version = name_version(shared.document, name="Draft", actor=shared.owner).version.id
    answer = Client().post(page_url(shared, page, door), asked(shared, version)[page])
    assert answer.status_code == 302
    assert answer["Location"].endswith(f"next={shared.urls()[door]}")
