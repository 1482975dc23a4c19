"""The version of a document's rights rises with every change of them, whoever makes it and however."""

import pytest
from django.db import connection
from django.dispatch import Signal
from pytest_django import DjangoCaptureOnCommitCallbacks

from documents.models import Document, Membership, Role
from documents.opening import delete_document, recover_document, rename_document
from documents.roles import access_changed, rights_changed
from tests.integration.documents.builders import a_document, a_user

pytestmark = pytest.mark.django_db


def execute(sql: str, *parameters: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def test_it_rises_when_a_member_comes_changes_and_goes() -> None:
    document = a_document(a_user("ada"))
    versions = [document.access_version]
    membership = Membership.objects.create(document=document, user=a_user("bob"), role=Role.EDITOR)
    versions.append(document.access_version)
    membership.role = Role.VIEWER
    membership.save()
    versions.append(document.access_version)
    membership.delete()
    versions.append(document.access_version)
    assert versions == list(range(versions[0], versions[0] + 4))


def test_it_rises_when_raw_sql_inserts_updates_and_deletes_a_membership() -> None:
    document, bob = a_document(a_user("ada")), a_user("bob")
    before = document.access_version
    execute(
        "INSERT INTO documents_membership (document_id, user_id, role, created_at) VALUES (%s, %s, 20, now())",
        document.pk,
        bob.pk,
    )
    assert document.access_version == before + 1
    execute("UPDATE documents_membership SET role = 10 WHERE user_id = %s", bob.pk)
    assert document.access_version == before + 2
    execute("DELETE FROM documents_membership WHERE user_id = %s", bob.pk)
    assert document.access_version == before + 3


def test_it_rises_on_both_documents_when_a_membership_moves() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    left, right = a_document(ada, bob=(bob, Role.EDITOR)), a_document(ada)
    before = left.access_version, right.access_version
    execute("UPDATE documents_membership SET document_id = %s WHERE user_id = %s", right.pk, bob.pk)
    assert (left.access_version, right.access_version) == (before[0] + 1, before[1] + 1)


def test_it_rises_when_the_document_is_deleted_and_recovered_and_not_when_it_is_renamed() -> None:
    document = a_document(a_user("ada"))
    before = document.access_version
    rename_document(document, title="Other")
    assert document.access_version == before
    delete_document(document)
    assert document.access_version == before + 1
    recover_document(document)
    assert document.access_version == before + 2
    execute("UPDATE documents_document SET deleted_at = now() WHERE id = %s", document.pk)
    assert document.access_version == before + 3


def test_it_rises_when_a_room_is_closed_or_opened_to_all() -> None:
    document = Document.objects.create(name="open", title="Open", open_to_all=True)
    before = document.access_version
    execute("UPDATE documents_document SET open_to_all = false WHERE id = %s", document.pk)
    assert document.access_version == before + 1
    execute("UPDATE documents_document SET open_to_all = true, deleted_at = now() WHERE id = %s", document.pk)
    assert document.access_version == before + 2
    execute("UPDATE documents_document SET open_to_all = true WHERE id = %s", document.pk)
    assert document.access_version == before + 2


def test_it_rises_when_an_account_is_deleted_and_stays_on_other_documents() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    shared, other = a_document(ada, bob=(bob, Role.EDITOR)), a_document(ada)
    before = shared.access_version, other.access_version
    bob.delete()
    assert (shared.access_version, other.access_version) == (before[0] + 1, before[1])


def test_it_rises_when_the_host_says_that_its_rule_changed() -> None:
    document = a_document(a_user("ada"))
    before = document.access_version
    access_changed(document)
    assert document.access_version == before + 1


def test_whoever_listens_hears_of_a_change_of_rights_once_it_is_committed(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    ada = a_user("ada")
    document = a_document(ada)
    heard: list[int] = []

    def listener(sender: type[Document], document_id: int, signal: Signal, user: object) -> None:
        heard.append(document_id)

    rights_changed.connect(listener)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            rename_document(document, title="Other")
        assert heard == []
        with django_capture_on_commit_callbacks(execute=True):
            Membership.objects.create(document=document, user=a_user("bob"))
            assert heard == []
        with django_capture_on_commit_callbacks(execute=True):
            delete_document(document)
        with django_capture_on_commit_callbacks(execute=True):
            access_changed(document, ada)
        with django_capture_on_commit_callbacks(execute=True):
            document.open_to_all = True
            document.save(update_fields=["open_to_all"])
        assert heard == [document.pk] * 4
    finally:
        rights_changed.disconnect(listener)
