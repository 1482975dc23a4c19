import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def _this_floor_alone(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.integration.documents.urls"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.PALIMPSEST = {}
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "whitenoise" not in each]


@pytest.fixture
def open_rooms(settings: Settings) -> None:
    settings.PALIMPSEST = {"OPEN_ROOMS": True}
