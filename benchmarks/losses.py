"""Each way to lose a right, as in a deployment: by Django's models and views, or by SQL behind their back."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.urls import reverse

from documents.models import Document, Membership, Role
from documents.opening import delete_document


@dataclass(frozen=True, slots=True)
class Person:
    """An editor of a document of their own, at one browser."""

    user: Any
    browser: Client
    document: Document

    @property
    def session_key(self) -> str:
        return self.browser.cookies[settings.SESSION_COOKIE_NAME].value

    @property
    def cookie(self) -> str:
        return f"{settings.SESSION_COOKIE_NAME}={self.session_key}"


Loss = Callable[[Person], object]


def somebody() -> Person:
    """A new account, signed in, and a new document. Writes the database."""
    name = f"reactions-{uuid.uuid4().hex}"
    user = get_user_model().objects.create(username=name[:50])
    document = Document.objects.create(name=name, title=name)
    Membership.objects.create(document=document, user=user, role=Role.EDITOR)
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(user)
    return Person(user, browser, document)


def lose(loss: Loss, person: Person) -> float:
    """Take a right; return when that began, which is just before its commit."""
    began = time.monotonic()
    loss(person)
    return began


def _account(**fields: object) -> Loss:
    def take(person: Person) -> None:
        for name, value in fields.items():
            setattr(person.user, name, value)
        person.user.save()

    return take


def _lower_role(person: Person) -> None:
    membership = Membership.objects.get(user=person.user)
    membership.role = Role.VIEWER
    membership.save()


def _by_sql(statement: str) -> Loss:
    def take(person: Person) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                statement, {"user": person.user.pk, "document": person.document.pk, "session": person.session_key}
            )

    return take


TOLD: Mapping[str, Loss] = {
    "signed out": lambda person: person.browser.post(reverse("logout")),
    "password changed": _account(password="!another"),
    "deactivated": _account(is_active=False),
    "account deleted": lambda person: person.user.delete(),
    "member removed": lambda person: Membership.objects.get(user=person.user).delete(),
    "role lowered": _lower_role,
    "document deleted": lambda person: delete_document(person.document),
}
UNTOLD: Mapping[str, Loss] = {
    "password changed by SQL": _by_sql("UPDATE auth_user SET password = '!' WHERE id = %(user)s"),
    "deactivated by SQL": _by_sql("UPDATE auth_user SET is_active = false WHERE id = %(user)s"),
    "session deleted by SQL": _by_sql("DELETE FROM django_session WHERE session_key = %(session)s"),
    "session expired": _by_sql(
        "UPDATE django_session SET expire_date = now() - interval '1 s' WHERE session_key = %(session)s"
    ),
    "member removed by SQL": _by_sql("DELETE FROM documents_membership WHERE user_id = %(user)s"),
    "role lowered by SQL": _by_sql("UPDATE documents_membership SET role = 10 WHERE user_id = %(user)s"),
}
