import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def _settings(settings: Settings) -> None:
    settings.PALIMPSEST = {"SEGMENT_ROWS_MIN": 4, "SEGMENT_ROWS_MAX": 10}
