import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import Http404
from pytest_django import Settings

from documents.models import Document, Role
from documents.opening import NotSignedIn, delete_document, open_document
from documents.roles import admit, document_for, listed_for, readable_by, role_for
from tests.integration.documents.builders import a_document, a_user

pytestmark = pytest.mark.django_db


def test_a_member_has_the_role_of_the_membership_and_others_have_none() -> None:
    ada, bob, eve = a_user("ada"), a_user("bob"), a_user("eve")
    document = a_document(ada, bob=(bob, Role.EDITOR), eve=(eve, Role.VIEWER))
    people = [ada, bob, eve, a_user("stranger"), AnonymousUser(), a_user("root", is_superuser=True)]
    held = [role_for(each, document) for each in people]
    assert held == [Role.OWNER, Role.EDITOR, Role.VIEWER, None, None, Role.OWNER]


def test_an_admission_carries_the_version_of_rights_it_was_given_under() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    admission = admit(ada, document)
    assert (admission.role, admission.access_version) == (Role.OWNER, document.access_version)
    assert admit(a_user("stranger"), document).role is None


def test_the_gate_answers_404_for_the_unseen_and_refuses_too_low_a_role() -> None:
    ada, eve = a_user("ada"), a_user("eve")
    document = a_document(ada, eve=(eve, Role.VIEWER))
    assert document_for(eve, key=document.key) == document
    with pytest.raises(PermissionDenied):
        document_for(eve, role=Role.EDITOR, key=document.key)
    with pytest.raises(Http404) as unseen:
        document_for(a_user("stranger"), key=document.key)
    with pytest.raises(Http404) as missing:
        document_for(ada, name="nobody's")
    assert str(unseen.value) == str(missing.value)
    delete_document(document)
    with pytest.raises(Http404):
        document_for(ada, key=document.key)


def test_a_document_whose_people_are_gone_does_not_become_everyones(settings: Settings) -> None:
    ada = a_user("ada")
    document = a_document(ada, name="hers")
    ada.delete()
    settings.PALIMPSEST = {"OPEN_ROOMS": True}
    document.refresh_from_db()
    assert document.members.count() == 0
    assert role_for(a_user("stranger"), document) is None
    with pytest.raises(NotSignedIn):
        open_document(None, "hers")


def visible_titles(user: object) -> set[str]:
    return {document.title for document in readable_by(user)}


def test_lists_show_what_the_gate_would_open(settings: Settings) -> None:
    ada, bob = a_user("ada"), a_user("bob")
    a_document(ada, title="hers")
    a_document(ada, title="shared", bob=(bob, Role.VIEWER))
    delete_document(a_document(bob, title="deleted"))
    settings.PALIMPSEST = {"OPEN_ROOMS": True}
    open_document(None, "open")

    people = [ada, bob, a_user("stranger"), AnonymousUser(), a_user("root", is_superuser=True)]
    for open_rooms in (False, True):
        settings.PALIMPSEST = {"OPEN_ROOMS": open_rooms}
        for person in people:
            opened = {each.title for each in Document.objects.all() if role_for(person, each) is not None}
            assert visible_titles(person) == opened
    assert visible_titles(bob) == {"shared", "open"}
    assert [each.title for each in listed_for(bob).present()] == ["shared"]
    assert not listed_for(AnonymousUser()).exists()


def only_titles_in_ones_name(user: User, document: Document) -> Role | None:
    return Role.VIEWER if document.title == user.get_username() else None


def test_a_rule_of_the_hosts_own_replaces_the_membership_everywhere(settings: Settings) -> None:
    settings.PALIMPSEST = {"ROLE_FOR": f"{__name__}.only_titles_in_ones_name"}
    ada, bob = a_user("ada"), a_user("bob")
    hers, named = a_document(ada, title="hers", name="hers"), a_document(ada, title="bob", name="named")

    assert role_for(ada, hers) is None
    assert role_for(bob, named) == Role.VIEWER
    assert visible_titles(bob) == {"bob"}
    assert visible_titles(ada) == set()
    assert open_document(bob, "named").admission.role == Role.VIEWER
