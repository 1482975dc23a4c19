import re
from io import StringIO

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pycrdt import Text
from pytest_django import Settings

from documents.models import Document, Role
from documents.roles import role_for
from history.folds import document_at

pytestmark = pytest.mark.django_db


def demo() -> str:
    said = StringIO()
    call_command("demo", stdout=said)
    return said.getvalue()


def test_it_refuses_in_a_deployment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DEBUG = False
    monkeypatch.delenv("PALIMPSEST_DEMO", raising=False)
    with pytest.raises(CommandError, match="only with DEBUG on or PALIMPSEST_DEMO=1"):
        demo()
    assert not User.objects.exists()


def test_it_makes_people_who_can_sign_in_and_a_document_that_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_DEMO", "1")
    passwords = dict(re.findall(r"^  (\w+)\s+(\S+)", demo(), re.MULTILINE))

    assert set(passwords) == {"ada", "bob", "eve", "admin"}
    assert len(set(passwords.values())) == 4
    people = {name: authenticate(username=name, password=password) for name, password in passwords.items()}
    assert None not in people.values()
    document = Document.objects.get(name="welcome")
    held = {name: role_for(user, document) for name, user in people.items()}
    assert held == {"ada": Role.OWNER, "bob": Role.EDITOR, "eve": Role.VIEWER, "admin": Role.OWNER}
    assert User.objects.get(is_staff=True).username == "admin"
    assert str(document_at(document.pk).doc.get("content", type=Text)).startswith("Welcome")


def test_a_second_run_changes_nothing_and_prints_no_password(settings: Settings) -> None:
    settings.DEBUG = True
    first = demo()
    hashes = dict(User.objects.values_list("username", "password"))
    Document.objects.get().memberships.get(user__username="eve").delete()

    second = demo()

    assert dict(User.objects.values_list("username", "password")) == hashes
    assert Document.objects.get().memberships.count() == 2
    assert "there already" in second
    assert not [word for word in first.split() if len(word) == 12 and word in second]
