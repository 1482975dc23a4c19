"""Restore: one update forward from the head of a document that makes it say what it said before.

Nothing is rewound: what others insert at the same time stays. The undo brings back deleted content under its old
neighbours; what an undo cannot express (a key overwritten in a parent that was then deleted) is a plain difference."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pycrdt import Doc, StackItem, Text, UndoManager, merge_updates
from pycrdt import IdSet as PycrdtIdSet

from history.crdt.content import Tree, canonical_json, trees_of
from history.crdt.differing import make_equal
from history.crdt.folding import fold
from history.crdt.idsets import IdSet, between, delete_set_of, encode_id_set, subtract
from history.crdt.roots import RootKind, root_kinds
from history.crdt.splits import NO_SPLITS, Splits, with_splits
from history.crdt.state_vectors import decode_state_vector

_FOREVER_MS = 1 << 40
_ROWS_PER_TRANSACTION = 1_000
_BYTES_PER_TRANSACTION = 16 * 1024


class RestoreFailed(Exception):
    """Raised when no update was found that makes the document say what it said; nothing must be appended."""


class _Wanted(NamedTuple):
    """What the document is to say, and how its roots are read, those that came later included."""

    trees: Mapping[str, Tree]
    kinds: Mapping[str, RootKind]

    @property
    def canonical(self) -> str:
        return canonical_json(self.trees)

    def is_said_by(self, doc: Doc[Any]) -> bool:
        return canonical_json(trees_of(doc, self.kinds)) == self.canonical


def restore_update(
    *, state_at: bytes, later: Sequence[bytes], head_state: bytes, client_id: int, splits: Splits = NO_SPLITS
) -> bytes | None:
    """Return ONE update that, applied at head, makes every root say what it said at k; None when it does so already.

    `state_at` is an update that yields the document at k, collected or not; `later` are the rows k+1 to head in
    order, as logged; `head_state` yields the document at head, as it is served. `client_id` must be fresh: no struct
    of the document is under it. `splits` are those of the log up to head, in which `later` is read already; what the
    document said at k is told without those that came after. The update was tried on a copy of head.
    Raises: RestoreFailed; Malformed, MissingDependency when the bytes are not the document's."""
    scratch: Doc[Any] = Doc(client_id=client_id, skip_gc=True)
    scratch.apply_update(with_splits(state_at, splits))
    known_at, deleted_at = decode_state_vector(scratch.get_state()), delete_set_of(scratch)
    fold(scratch, later, rows_per_transaction=_ROWS_PER_TRANSACTION, bytes_per_transaction=_BYTES_PER_TRANSACTION)
    # The scratch document keeps what was deleted: it tells the kinds of roots that head has nothing left of.
    kinds = root_kinds(scratch.get_update())
    wanted = _Wanted(trees_of(_doc_of(state_at), kinds), kinds)
    if wanted.is_said_by(_doc_of(head_state)):
        return None
    undo = _undo(scratch, known_at, deleted_at)
    if undo is not None and wanted.is_said_by(_doc_of(head_state, undo)):
        return undo
    # After the undo less is left to differ; should the undo itself have gone wrong, head alone will do.
    for start in [undo, None] if undo is not None else [None]:
        update = _difference(wanted, head_state, start, client_id)
        if update is not None and wanted.is_said_by(_doc_of(head_state, update)):
            return update
    raise RestoreFailed("neither an undo nor a difference gives the earlier content")


def _doc_of(state: bytes, *updates: bytes, client_id: int | None = None) -> Doc[Any]:
    doc: Doc[Any] = Doc() if client_id is None else Doc(client_id=client_id)
    for update in (state, *updates):
        doc.apply_update(update)
    return doc


def _undo(doc: Doc[Any], known_at: Mapping[int, int], deleted_at: IdSet) -> bytes | None:
    """Undo, as one edit, all that came after a state vector and a delete set; return what that emits.

    `doc` must keep deleted content (`skip_gc`), or it cannot come back. Every root as Text will do."""
    inserted = between(known_at, decode_state_vector(doc.get_state()))
    deleted = subtract(delete_set_of(doc), deleted_at)
    inner: Any = doc  # the stub names pycrdt's inner Doc, the constructor takes the outer one
    item: Any = StackItem(
        inner, PycrdtIdSet.decode(encode_id_set(deleted)), PycrdtIdSet.decode(encode_id_set(inserted))
    )
    manager = UndoManager(
        scopes=[doc.get(name, type=Text) for name in sorted(doc.keys())],
        capture_timeout_millis=_FOREVER_MS,
        timestamp=lambda: 0,
        undo_stack=[item],
    )
    return _emitted(doc, manager.undo)


def _difference(wanted: _Wanted, head_state: bytes, start: bytes | None, client_id: int) -> bytes | None:
    doc = _doc_of(head_state, *([start] if start else []), client_id=client_id)

    def edit() -> None:
        with doc.transaction():
            make_equal(doc, wanted.kinds, wanted.trees)

    rest = _emitted(doc, edit)
    return merge_updates(start, rest) if start and rest else rest


def _emitted(doc: Doc[Any], edit: Callable[[], object]) -> bytes | None:
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    try:
        edit()
    finally:
        doc.unobserve(subscription)
    return merge_updates(*emitted) if len(emitted) > 1 else (emitted[0] if emitted else None)
