"""`manage.py demo`: people and a document to try things out with; never in a deployment."""

import os
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from pycrdt import Doc, Text

from documents.models import Document, Membership, Role
from documents.roles import User
from history.models import Kind, Via
from history.writes import append_update, write_session

PASSWORD_ENTROPY_BYTES = 9
DOCUMENT_NAME = "welcome"
DEMO_ROLES = {"ada": Role.OWNER, "bob": Role.EDITOR, "eve": Role.VIEWER}
SUPERUSER_NAME = "admin"

SAMPLE_TEXT = """Welcome to Palimpsest.

Open this page in a second window, or sign in as somebody else there, and type in both.

Then open the history: every edit is kept with its author, and any moment can be brought back.
"""


def _written() -> bytes:
    """The sample text in the root that the writing page shows, as an update."""
    doc: Doc[Any] = Doc(client_id=secrets.randbits(32))
    doc.get("content", type=Text).insert(0, SAMPLE_TEXT)
    return doc.get_update()


class Command(BaseCommand):
    help = "Make demo users and a sample document, once; their passwords are printed when they are made."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG and os.environ.get("PALIMPSEST_DEMO") != "1":
            raise CommandError(
                "This makes accounts whose passwords are printed: only with DEBUG on or PALIMPSEST_DEMO=1."
            )
        passwords: dict[str, str] = {}
        people = {name: self._user(name, passwords) for name in DEMO_ROLES}
        self._user(SUPERUSER_NAME, passwords)
        document, created = Document.objects.get_or_create(
            name=DOCUMENT_NAME, defaults={"title": "Welcome", "created_by": people["ada"]}
        )
        if created:
            for name, role in DEMO_ROLES.items():
                Membership.objects.create(document=document, user=people[name], role=role)
            session = write_session(document, actor=people["ada"], via=Via.TASK)
            append_update(session, _written(), kind=Kind.EDIT)
        self._report(passwords)

    def _user(self, name: str, passwords: dict[str, str]) -> User:
        """The user of that name; one that exists is left as it is."""
        users: Any = get_user_model().objects
        existing = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
        if existing is not None:
            return existing
        passwords[name] = secrets.token_urlsafe(PASSWORD_ENTROPY_BYTES)
        make = users.create_superuser if name == SUPERUSER_NAME else users.create_user
        return make(name, password=passwords[name])

    def _report(self, passwords: dict[str, str]) -> None:
        if not passwords:
            self.stdout.write(
                "The demo users are there already; their passwords were printed when they were made. "
                "A new one: make manage ARGS='changepassword ada'"
            )
            return
        self.stdout.write("Demo users (their passwords are printed this once):")
        for name, password in passwords.items():
            part = "superuser" if name == SUPERUSER_NAME else f"{DEMO_ROLES[name].label} of “{DOCUMENT_NAME}”"
            self.stdout.write(f"  {name:<6} {password}   {part}")
