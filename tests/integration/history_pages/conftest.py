import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def _quick_clients(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.PALIMPSEST = {"RELAYS": True}  # everybody in these tests writes through one and the same Yjs client
    # It looks for static files on the disk at each start of a client, and warns that none are collected.
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "whitenoise" not in each]
