"""What changed, between two moments and step by step over a span of a document's life.

Read models only: callers have passed the gate (`documents.roles`) before. A difference costs two openings at most,
never a replay of all that lies between; a playback opens twice and folds each row once."""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pycrdt import Doc

from documents.conf import conf
from documents.models import Document
from history.authors import Author, author_of
from history.crdt.changes import Changes, changes_by, compared
from history.crdt.content import root_trees
from history.crdt.folding import fold
from history.crdt.roots import RootKind, root_kinds
from history.crdt.splits import Splits, with_splits
from history.crdt.wording import Counts, counts_of, in_words
from history.errors import LogHole, NoSuchSeq
from history.folds import document_at
from history.heavy_reads import heavy_read, playbacks
from history.log import consistent_read, head_of, read_splits, read_updates
from history.models import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed from right after `from_seq` to right after `to_seq`, net; `after` is the document then, the
    caller's own."""

    from_seq: int
    to_seq: int
    head_seq: int
    epoch: int
    changes: Changes
    after: "Doc[Any]"

    @property
    def words(self) -> str:
        return in_words(self.changes)

    @property
    def counts(self) -> Counts:
        return counts_of(self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One picture of a playback: what the seqs from_seq+1 to `seq` changed, and who wrote them; `at` is the last's."""

    from_seq: int
    seq: int
    at: datetime
    authors: list[Author]
    changes: Changes

    @property
    def words(self) -> str:
        return in_words(self.changes)


@heavy_read()
def difference(document: Document, *, from_seq: int, to_seq: int) -> Difference:
    """Say what changed between two seqs, the earlier first; `to_seq` beyond the head is refused.

    Raises: NoSuchSeq, LogHole, ContentTooDeep, Busy; Malformed, MissingDependency where the log is damaged."""
    with consistent_read():
        head = head_of(document.pk)
        if not from_seq <= to_seq <= head.seq:
            raise NoSuchSeq(document.pk, to_seq, head.seq)
        before = document_at(document.pk, seq=from_seq).doc
        is_split = read_splits(document.pk, until=from_seq) != (splits := read_splits(document.pk, until=to_seq))
        after = _later(document.pk, before, from_seq=from_seq, to_seq=to_seq, splits=splits)
    state, update = before.get_update(), after.get_update(before.get_state())
    kinds = root_kinds(state, update)
    if is_split:
        # A character that was cut in between is the same unit before and after: only the contents tell.
        found = compared(root_trees(before, kinds), root_trees(after, kinds))
    else:
        found = changes_by(before, update, kinds=kinds)
    return Difference(from_seq=from_seq, to_seq=to_seq, head_seq=head.seq, epoch=head.epoch, changes=found, after=after)


def _later(document_id: int, before: "Doc[Any]", *, from_seq: int, to_seq: int, splits: Splits) -> "Doc[Any]":
    """The document at `to_seq`: from the one at `from_seq` where that is near, else opened anew."""
    if to_seq - from_seq > conf().snapshot_rows:
        return document_at(document_id, seq=to_seq).doc
    after: Doc[Any] = Doc()
    after.apply_update(with_splits(before.get_update(), splits))
    _fold_rows(after, document_id, from_seq=from_seq, to_seq=to_seq, splits=splits)
    return after


def _fold_rows(
    doc: "Doc[Any]",
    document_id: int,
    *,
    from_seq: int,
    to_seq: int,
    splits: Splits,
    seen: dict[int, datetime] | None = None,
) -> None:
    """Fold the rows from_seq+1 to `to_seq`; `seen` takes the sessions that wrote them, with the time of their last."""

    def payloads() -> Iterator[bytes]:
        for row in read_updates(document_id, after=from_seq, until=to_seq, splits=splits):
            if seen is not None:
                seen[row.session_id] = row.at
            yield row.payload

    fold(
        doc,
        payloads(),
        rows_per_transaction=conf().fold_rows_per_transaction,
        bytes_per_transaction=conf().fold_bytes_per_transaction,
    )


def playback(document: Document, *, from_seq: int, to_seq: int, steps: int) -> Iterator[Step]:
    """Tell a span as at most `steps` differences, each of as many seqs as the next; PLAYBACK_STEPS_MAX at most.

    All is checked and opened before the first `next`; each step then reads its rows in a transaction of its own, so
    that a slow listener holds none open. An emoji that is cut within the span reads as cut from its start. Costs one
    full fold at its end, one fold of the span and, for each step, two readings of the content; one of PLAYBACKS_MAX
    places is taken until nobody holds it any more.
    Raises: as `difference`; LogHole also where the log was set back meanwhile."""
    playbacks.take()
    try:
        told = _playback(document, from_seq=from_seq, to_seq=to_seq, steps=steps)
    except BaseException:
        playbacks.give_back()
        raise
    # Not a `finally` in the generator, which is never reached where nobody asks for the first step.
    weakref.finalize(told, playbacks.give_back)
    return told


def _playback(document: Document, *, from_seq: int, to_seq: int, steps: int) -> Iterator[Step]:
    with consistent_read():
        head = head_of(document.pk)
        if not from_seq <= to_seq <= head.seq:
            raise NoSuchSeq(document.pk, to_seq, head.seq)
        splits = read_splits(document.pk, until=to_seq)
        state = with_splits(document_at(document.pk, seq=from_seq).doc.get_update(), splits)
        # With all that was ever deleted it tells the kinds of roots that hold nothing at its own moment.
        kinds = root_kinds(document_at(document.pk, seq=to_seq, full=True).doc.get_update())
    count = min(steps, conf().playback_steps_max, to_seq - from_seq)
    stops = [from_seq + (to_seq - from_seq) * step // count for step in range(1, count + 1)] if count else []
    return _steps(document.pk, state, from_seq=from_seq, stops=stops, epoch=head.epoch, splits=splits, kinds=kinds)


def _steps(
    document_id: int,
    state: bytes,
    *,
    from_seq: int,
    stops: list[int],
    epoch: int,
    splits: Splits,
    kinds: Mapping[str, RootKind],
) -> Iterator[Step]:
    shown: Doc[Any] = Doc()
    folded: Doc[Any] = Doc()
    for doc in (shown, folded):
        doc.apply_update(state)
    authors: dict[int, Author] = {}
    for seq in stops:
        seen: dict[int, datetime] = {}
        with consistent_read():
            if head_of(document_id).epoch != epoch:
                raise LogHole(document_id, seq)
            _fold_rows(folded, document_id, from_seq=from_seq, to_seq=seq, splits=splits, seen=seen)
            authors |= _authors(document_id, seen.keys() - authors.keys())
        changed = changes_by(shown, folded.get_update(shown.get_state()), kinds=kinds)
        yield Step(
            from_seq=from_seq,
            seq=seq,
            at=max(seen.values()),
            authors=sorted({authors[session] for session in seen}, key=lambda author: author.name),
            changes=changed,
        )
        from_seq = seq


def _authors(document_id: int, session_ids: set[int]) -> dict[int, Author]:
    """Of sessions that left no row as well: nobody is known there."""
    if not session_ids:
        return {}
    sessions = Session.objects.select_related("user").filter(document_id=document_id, id__in=session_ids)
    found = {session.id: author_of(session.user) for session in sessions}
    return {session_id: found.get(session_id, author_of(None)) for session_id in session_ids}
