"""What of a request reaches the log: faults with their traceback, refusals not at all."""

import logging

import pytest
from django.core.exceptions import PermissionDenied
from django.core.handlers.exception import response_for_exception
from django.http import Http404
from django.test import RequestFactory


@pytest.mark.parametrize(("refusal", "status"), [(PermissionDenied("no"), 403), (Http404("none"), 404)])
def test_a_refusal_is_an_ordinary_answer(caplog: pytest.LogCaptureFixture, refusal: Exception, status: int) -> None:
    assert response_for_exception(RequestFactory().get("/d/x"), refusal).status_code == status
    assert caplog.records == []


def test_a_fault_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise RuntimeError("a fault")
    except RuntimeError as error:
        assert response_for_exception(RequestFactory().get("/d/x"), error).status_code == 500
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info and record.exc_info[0] is RuntimeError
