"""When a tail is worth a snapshot by its bytes: once opening would read too much beside the last snapshot."""

from collections.abc import Callable

import pytest
from django.db import IntegrityError
from django.db.models import F
from pycrdt import Doc, Text
from pytest_django import Settings

from documents.models import Document
from history.folds import compact, make_ydoc
from history.models import Snapshot
from history.tasks import sweep_snapshots
from tests.builders import append_rows, make_document, make_session, typed

pytestmark = pytest.mark.django_db(transaction=True)

SNAPSHOT_BYTES = 10_000


def _opened(document: Document) -> None:
    make_ydoc(document.pk)


def _swept(document: Document) -> None:
    sweep_snapshots()


def _write(document: Document, size: int, *, client_id: int) -> None:
    """Append one row of a little more than `size` bytes."""
    doc: Doc[Text] = Doc(client_id=client_id)
    doc.get("text", type=Text).insert(0, "x" * size)
    append_rows(make_session(document), [doc.get_update()])


@pytest.fixture
def document(settings: Settings) -> Document:
    """A document whose snapshot at seq 1 has about SNAPSHOT_BYTES bytes."""
    settings.PALIMPSEST = {"SNAPSHOT_BYTES_MIN": 100}
    document = make_document()
    _write(document, SNAPSHOT_BYTES, client_id=1)
    compact(document.pk)
    return document


def _seqs(document: Document) -> set[int]:
    return set(Snapshot.objects.filter(document=document).values_list("seq", flat=True))


@pytest.mark.parametrize("visit", [_opened, _swept], ids=["opened", "swept"])
def test_a_tail_of_half_the_last_snapshots_bytes_gets_a_new_one_and_a_smaller_one_does_not(
    document: Document, visit: Callable[[Document], None]
) -> None:
    _write(document, SNAPSHOT_BYTES * 4 // 10, client_id=2)
    visit(document)
    assert _seqs(document) == {1}
    _write(document, SNAPSHOT_BYTES * 2 // 10, client_id=3)
    visit(document)
    assert _seqs(document) == {1, 3}


@pytest.mark.parametrize("visit", [_opened, _swept], ids=["opened", "swept"])
def test_the_share_of_the_last_snapshot_is_a_setting(
    document: Document, visit: Callable[[Document], None], settings: Settings
) -> None:
    _write(document, SNAPSHOT_BYTES * 4 // 10, client_id=2)
    settings.PALIMPSEST = {"SNAPSHOT_BYTES_MIN": 100, "SNAPSHOT_TAIL_PERCENT": 45}
    visit(document)
    assert _seqs(document) == {1}
    settings.PALIMPSEST = {"SNAPSHOT_BYTES_MIN": 100, "SNAPSHOT_TAIL_PERCENT": 35}
    visit(document)
    assert _seqs(document) == {1, 2}


@pytest.mark.parametrize("visit", [_opened, _swept], ids=["opened", "swept"])
def test_a_tail_below_the_least_bytes_gets_none_however_small_the_snapshot(
    document: Document, visit: Callable[[Document], None], settings: Settings
) -> None:
    settings.PALIMPSEST = {"SNAPSHOT_BYTES_MIN": 1000, "SNAPSHOT_TAIL_PERCENT": 1}
    _write(document, 900, client_id=2)
    visit(document)
    assert _seqs(document) == {1}
    _write(document, 900, client_id=3)
    visit(document)
    assert _seqs(document) == {1, 3}


def test_the_database_refuses_a_snapshot_that_differs_from_itself() -> None:
    document = make_document()
    append_rows(make_session(document), typed("ab"))
    compact(document.pk)
    with pytest.raises(IntegrityError):
        Snapshot.objects.update(base_seq=F("seq"))
