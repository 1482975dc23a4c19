from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.utils import timezone
from pytest_django import Settings

from documents.models import Document, Membership, Role
from documents.opening import (
    NameTaken,
    NoSuchDocument,
    NotRecoverable,
    NotSignedIn,
    create_document,
    delete_document,
    open_document,
    recover_document,
    rename_document,
)
from documents.roles import role_for
from tests.integration.documents.builders import a_document, a_user

pytestmark = pytest.mark.django_db


def test_a_member_opens_a_document_by_its_room_name_with_his_role() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, name="team/minutes", bob=(bob, Role.VIEWER))

    opened = open_document(bob, "team/minutes")

    assert opened.document == document
    assert opened.admission.role == Role.VIEWER
    assert opened.admission.access_version == document.access_version


def test_what_one_may_not_see_and_what_does_not_exist_are_told_apart_by_nothing() -> None:
    a_document(a_user("ada"), name="hers")
    stranger = a_user("stranger")

    with pytest.raises(NoSuchDocument) as unseen:
        open_document(stranger, "hers")
    with pytest.raises(NoSuchDocument) as missing:
        open_document(stranger, "nobody's")
    assert (str(unseen.value), unseen.value.args) == (str(missing.value), missing.value.args)


@pytest.mark.parametrize("name", ["hers", "nobody's"])
def test_whoever_is_not_signed_in_is_told_so_for_any_name(name: str) -> None:
    a_document(a_user("ada"), name="hers")
    with pytest.raises(NotSignedIn):
        open_document(AnonymousUser(), name)
    with pytest.raises(NotSignedIn):
        open_document(None, name)


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "rooms/1", "a//b", " a", "x" * 201])
def test_a_name_that_no_room_can_have_is_no_document(name: str, open_rooms: None) -> None:
    with pytest.raises(NoSuchDocument):
        open_document(a_user("ada"), name)
    with pytest.raises(NoSuchDocument):
        open_document(AnonymousUser(), name)
    assert not Document.objects.exists()


def test_without_open_rooms_a_missing_document_is_not_created() -> None:
    with pytest.raises(NoSuchDocument):
        open_document(a_user("ada"), "new")
    assert not Document.objects.exists()


def test_an_open_room_is_created_on_first_use_and_owned_by_nobody(open_rooms: None) -> None:
    opened = open_document(AnonymousUser(), "scratch/pad")
    again = open_document(a_user("ada"), "scratch/pad")

    assert opened.document == again.document == Document.objects.get()
    assert opened.document.title == "scratch/pad"
    assert opened.document.created_by is None
    assert not Membership.objects.exists()
    assert opened.admission.role == again.admission.role == Role.EDITOR


def test_open_rooms_do_not_open_documents_that_have_members(open_rooms: None) -> None:
    a_document(a_user("ada"), name="hers")
    with pytest.raises(NotSignedIn):
        open_document(AnonymousUser(), "hers")
    with pytest.raises(NoSuchDocument):
        open_document(a_user("stranger"), "hers")


def test_the_name_of_a_deleted_document_opens_nothing_even_as_an_open_room(open_rooms: None) -> None:
    ada = a_user("ada")
    delete_document(a_document(ada, name="gone"))
    with pytest.raises(NoSuchDocument):
        open_document(ada, "gone")
    assert Document.objects.count() == 1


def refuse_everyone(user: object, document: Document) -> Role | None:
    return None


def test_a_room_that_the_hosts_rule_then_refuses_is_not_created(settings: Settings) -> None:
    settings.PALIMPSEST = {"OPEN_ROOMS": True, "ROLE_FOR": f"{__name__}.refuse_everyone"}
    with pytest.raises(NoSuchDocument):
        open_document(a_user("ada"), "new")
    assert not Document.objects.exists()


def test_a_created_document_belongs_to_its_creator_and_has_a_name_that_nobody_guesses() -> None:
    ada = a_user("ada")
    first, second = create_document(ada, title="  One\n title "), create_document(ada, title="Two")

    assert first.title == "One title"
    assert first.created_by == ada
    assert role_for(ada, first) == Role.OWNER
    assert first.name != second.name
    assert len(first.name) == 16


def test_a_name_is_given_once_and_a_deleted_document_keeps_it() -> None:
    ada = a_user("ada")
    document = create_document(ada, title="One", name="minutes")
    with pytest.raises(NameTaken):
        create_document(ada, title="Two", name="minutes")
    delete_document(document)
    with pytest.raises(NameTaken):
        create_document(ada, title="Two", name="minutes")
    assert Membership.objects.count() == 1


@pytest.mark.parametrize("title", ["", "   ", "x" * 201, "a\0b", "a\u202etxt.exe", "a\u2067b"])
def test_a_title_has_1_to_200_characters_and_no_control_characters(title: str) -> None:
    ada = a_user("ada")
    with pytest.raises(ValidationError):
        create_document(ada, title=title)
    with pytest.raises(ValidationError):
        rename_document(a_document(ada), title=title)


def test_renaming_changes_the_title_alone() -> None:
    document = a_document(a_user("ada"), name="minutes")
    version = document.access_version

    rename_document(document, title="👩‍👩‍👧 and more")

    document.refresh_from_db()
    assert (document.title, document.name) == ("👩‍👩‍👧 and more", "minutes")
    assert document.access_version == version


def test_nobody_has_a_role_on_a_deleted_document_until_it_is_recovered() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    root = a_user("root", is_superuser=True)
    document = a_document(ada, bob=(bob, Role.EDITOR))

    delete_document(document)
    assert [role_for(user, document) for user in (ada, bob, root)] == [None, None, None]

    recover_document(document)
    assert [role_for(user, document) for user in (ada, bob)] == [Role.OWNER, Role.EDITOR]


def test_deleting_twice_keeps_the_first_moment() -> None:
    document = a_document(a_user("ada"))
    moment = timezone.now() - timedelta(days=3)
    delete_document(document, now=moment)
    delete_document(Document.objects.get())
    assert Document.objects.get().deleted_at == moment


def test_a_document_can_be_recovered_for_the_days_of_the_setting_and_no_longer(settings: Settings) -> None:
    settings.PALIMPSEST = {"DELETED_DOCUMENT_DAYS": 7}
    document = a_document(a_user("ada"))
    deleted_at = timezone.now()
    delete_document(document, now=deleted_at)

    with pytest.raises(NotRecoverable):
        recover_document(document, now=deleted_at + timedelta(days=7, seconds=1))
    recover_document(document, now=deleted_at + timedelta(days=7))
    with pytest.raises(NotRecoverable):
        recover_document(document)
