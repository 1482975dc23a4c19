"""How an import ends: its log is held to what was taken, and once it is committed, those who listen are told."""

from typing import Any

from pycrdt import Doc

from documents.models import Document
from history.crdt.idsets import delete_set_of
from history.crdt.state_vectors import decode_state_vector
from history.errors import HistoryError
from history.folds import full_ydoc, make_ydoc
from history.imports.beginnings import NotImported
from history.signals import tell_of_change


def compare_with_log(document: Document, intake: "Doc[Any]") -> None:
    """What the log folds to is what was taken. Inside the transaction of the import. Raises: NotImported."""
    try:
        folded = full_ydoc(document.pk).doc
    except HistoryError as error:
        raise NotImported(str(error)) from error
    logged, taken = ((decode_state_vector(doc.get_state()), delete_set_of(doc)) for doc in (folded, intake))
    if logged != taken:
        raise NotImported("what was read is not what its log folds to")


def conclude(document: Document, seq: int) -> None:
    """Behind the COMMIT: a long log gets its snapshot here, not when the first person opens it."""
    make_ydoc(document.pk)
    tell_of_change(document.pk, seq=seq, actor=None)
