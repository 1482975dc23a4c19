import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def _this_floor_alone(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.integration.documents.urls"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.PALIMPSEST = {}
    # It looks for static files on the disk at each start of a client, and warns that none are collected.
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "whitenoise" not in each]


@pytest.fixture
def open_rooms(settings: Settings) -> None:
    settings.PALIMPSEST = {"OPEN_ROOMS": True}
