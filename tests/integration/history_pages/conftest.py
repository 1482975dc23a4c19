import pytest
from django.test import Client
from pytest_django import Settings

from tests.integration.history_pages.builders import Shared, a_shared_document, a_user, signed_in


@pytest.fixture(autouse=True)
def _quick_clients(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.PALIMPSEST = {"RELAYS": True}  # everybody in these tests writes through one and the same Yjs client
    # It looks for static files on the disk at each start of a client, and warns that none are collected.
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "whitenoise" not in each]


@pytest.fixture
def shared() -> Shared:
    """Three seqs of the editor; tests of something else have a document of their own."""
    shared = a_shared_document()
    for words in ("one ", "two ", "three "):
        shared.type(shared.editor, words)
    return shared


@pytest.fixture
def root() -> Client:
    return signed_in(a_user("root", is_staff=True, is_superuser=True))
