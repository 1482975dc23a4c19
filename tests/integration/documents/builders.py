"""People and documents for tests, in one line each."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from documents.models import Document, Membership, Role
from documents.opening import create_document

PASSWORD = "correct horse"


def a_user(name: str, **fields: Any) -> User:
    return User.objects.create_user(name, password=PASSWORD, **fields)


def a_document(owner: User, title: str = "Minutes", name: str | None = None, **members: tuple[User, Role]) -> Document:
    """A document of `owner`; further members are given as `anything=(user, role)`."""
    document = create_document(owner, title=title, name=name)
    for user, role in members.values():
        Membership.objects.create(document=document, user=user, role=role)
    return document


def signed_in(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client
