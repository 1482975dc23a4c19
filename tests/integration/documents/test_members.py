import pytest
from django.db import IntegrityError, transaction

from documents.members import AlreadyMember, LastOwner, add_member, change_role, remove_member
from documents.models import Membership, Role
from documents.roles import role_for
from tests.integration.documents.builders import a_document, a_user

pytestmark = pytest.mark.django_db


def test_a_member_is_added_once_with_the_role_given() -> None:
    document, bob = a_document(a_user("ada")), a_user("bob")
    add_member(document, user=bob, role=Role.VIEWER)
    assert role_for(bob, document) == Role.VIEWER
    with pytest.raises(AlreadyMember):
        add_member(document, user=bob, role=Role.OWNER)
    assert role_for(bob, document) == Role.VIEWER


def test_the_database_holds_nobody_twice() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(document=document, user=ada, role=Role.VIEWER)


def test_the_last_owner_is_neither_demoted_nor_removed() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, bob=(bob, Role.EDITOR))
    hers = Membership.objects.get(document=document, user=ada)
    with pytest.raises(LastOwner):
        change_role(hers, role=Role.EDITOR)
    with pytest.raises(LastOwner):
        remove_member(Membership.objects.get(pk=hers.pk))
    assert role_for(ada, document) == Role.OWNER


def test_an_owner_may_go_when_another_stays() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document = a_document(ada, bob=(bob, Role.EDITOR))
    change_role(Membership.objects.get(user=bob), role=Role.OWNER)
    remove_member(Membership.objects.get(user=ada))
    assert role_for(ada, document) is None
    assert role_for(bob, document) == Role.OWNER
