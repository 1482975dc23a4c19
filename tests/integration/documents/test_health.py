import pytest
from django.db import OperationalError, connection
from django.test import Client


@pytest.mark.django_db
def test_healthz_says_ok_after_asking_the_database() -> None:
    response = Client().get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok")


@pytest.mark.django_db
def test_healthz_says_503_when_the_database_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    def unreachable(*_: object) -> None:
        raise OperationalError("the database is away")

    with connection.execute_wrapper(unreachable):
        response = Client().get("/healthz")
    assert response.status_code == 503
    assert b"away" not in response.content
    assert "cannot be reached" in caplog.text
