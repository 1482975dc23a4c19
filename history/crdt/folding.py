"""Folding: replaying updates in the log's order into a document."""

from collections.abc import Iterable, Iterator
from typing import Any

from pycrdt import Doc


def fold(doc: "Doc[Any]", updates: Iterable[bytes], *, rows_per_transaction: int, bytes_per_transaction: int) -> int:
    """Apply `updates` in order, many in one transaction, a larger one in one of its own; return how many there were.

    What goes on where the row before it ends is copied once for each row, and the copies live as long as the
    transaction: 300 rows of 20 KB took 900 MB in one, 40 MB each by itself.
    One transaction emits one merged update, in which text that was inserted and deleted within it is gone: never
    use what observers of `doc` see here for the log."""
    count = 0
    for chunk in _chunks(updates, rows_max=rows_per_transaction, bytes_max=bytes_per_transaction):
        with doc.transaction():
            for update in chunk:
                doc.apply_update(update)
        count += len(chunk)
    return count


def _chunks(updates: Iterable[bytes], *, rows_max: int, bytes_max: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for update in updates:
        size += len(update)
        if chunk and (len(chunk) == rows_max or size > bytes_max):
            yield chunk
            chunk, size = [], len(update)
        chunk.append(update)
    if chunk:
        yield chunk


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
