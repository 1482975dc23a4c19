"""Folding costs least in transactions of about a thousand rows: 326 ms for 259,778, against 505 ms one by one and
1,627 ms all in one."""

from typing import Any

import pytest
from pycrdt import Doc, TransactionEvent
from pytest_django import Settings

from history.folds import make_ydoc
from tests.builders import append_rows, make_document, make_session, typed

pytestmark = pytest.mark.django_db(transaction=True)


def _transactions_of_a_fold(document_id: int) -> int:
    """How many transactions an observer sees while the document is opened."""
    events: list[TransactionEvent] = []
    doc: Doc[Any] = Doc()
    subscription = doc.observe(events.append)
    make_ydoc(document_id, doc=doc)
    doc.unobserve(subscription)
    return len(events)


def test_the_log_is_folded_in_transactions_of_as_many_rows_as_the_setting_says(settings: Settings) -> None:
    settings.PALIMPSEST = {}
    document = make_document()
    append_rows(make_session(document), typed("a" * 2500))
    assert _transactions_of_a_fold(document.pk) == 3
    settings.PALIMPSEST = {"FOLD_ROWS_PER_TRANSACTION": 500}
    assert _transactions_of_a_fold(document.pk) == 5


def test_large_rows_are_folded_in_transactions_of_as_many_bytes_as_the_setting_says(settings: Settings) -> None:
    settings.PALIMPSEST = {}
    document = make_document()
    append_rows(make_session(document), typed(["a" * 9_000] * 6))
    assert _transactions_of_a_fold(document.pk) == 6
    settings.PALIMPSEST = {"FOLD_BYTES_PER_TRANSACTION": 20_000}
    assert _transactions_of_a_fold(document.pk) == 3
