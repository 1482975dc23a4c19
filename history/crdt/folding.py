"""Folding: replaying updates in the log's order into a document."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pycrdt import Doc


def fold(doc: "Doc[Any]", updates: Iterable[bytes], *, rows_per_transaction: int) -> int:
    """Apply `updates` in order, many in one transaction; return how many there were.

    One transaction emits one merged update, in which text that was inserted and deleted within it is gone: never
    use what observers of `doc` see here for the log."""
    pending = iter(updates)
    count = 0
    while chunk := list(islice(pending, rows_per_transaction)):
        with doc.transaction():
            for update in chunk:
                doc.apply_update(update)
        count += len(chunk)
    return count


def emitted_by(doc: "Doc[Any]", update: bytes) -> bytes | None:
    """Apply one update in a transaction of its own; return what pycrdt re-emits, or None if it said nothing new.

    `doc` keeps deleted content (`skip_gc=True`): a gc'd one would re-emit text typed into a deleted paragraph as an
    empty block. An exception leaves `doc` changed: throw it away.
    Raises: whatever pycrdt raises, `pyo3_runtime.PanicException` (a BaseException) included."""
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    try:
        doc.apply_update(update)
    finally:
        doc.unobserve(subscription)
    return emitted[0] if emitted else None
