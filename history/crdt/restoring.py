"""Taking back: one update forward from the head of a document that makes it say what is wanted of it.

Nothing is rewound: what others insert at the same time stays. The undo brings back deleted content under its old
neighbours; what an undo cannot express (a key overwritten in a parent that was then deleted) is a plain difference.
All that takes back is found here: what differs is which units are undone, and what the document is to say then."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pycrdt import Doc, StackItem, Text, UndoManager, merge_updates
from pycrdt import IdSet as PycrdtIdSet

from history.crdt.batches import Batch, batches, is_one_batch
from history.crdt.content import Tree, canonical_json, trees_of
from history.crdt.differing import make_equal
from history.crdt.idsets import IdSet, between, delete_set_of, encode_id_set, intersect, subtract
from history.crdt.places import Piece, Places
from history.crdt.ranges import Span, Stretch, joined, order_of, sliced, span_of, stretch_of, units_of
from history.crdt.roots import RootKind
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import decode_update

_FOREVER_MS = 1 << 40


class RestoreFailed(Exception):
    """Raised when no update was found that makes the document say what is wanted; nothing must be appended."""


class NoSuchPiece(ValueError):
    """Raised for a piece that the document has not, then or now; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """An update that takes something back, tried on a copy of head: None where the document says that already.

    `inserted` and `deleted` count characters of texts (UTF-16 units) that come and go with it; `head_state` yields the
    document without it."""

    update: bytes | None
    inserted: int
    deleted: int
    head_state: bytes
    kinds: Mapping[str, RootKind]
    stretch: Stretch | None = None
    """Of a range: its first and last unit."""

    def before(self) -> Doc[Any]:
        """A document of the caller's own without the update."""
        return _doc_of(self.head_state)

    def after(self) -> Doc[Any]:
        """A document of the caller's own with the update."""
        return _doc_of(self.head_state, *([self.update] if self.update else []))


def restored(
    *, state_at: bytes, head_state: bytes, client_id: int, piece: Piece | None = None, span: Span | None = None
) -> TakenBack:
    """Make a document, or one piece of it, say what it said at k.

    `state_at` is an update that yields the document at k, collected or not and read without the splits that came
    after it; `head_state` one that yields it now, with all that was ever deleted. `client_id` must be fresh: no struct
    of the document is under it. A `span` is one of the text of `piece` at k, a root: from its first to its last unit
    the text says what it said then; what was typed right before the first or behind the last one since is not touched.
    Raises: RestoreFailed; NoSuchPiece, NoSuchRange; Malformed, MissingDependency when the bytes are not the
    document's."""
    bench = Bench(head_state, client_id=client_id)
    doc_then: Doc[Any] = Doc(skip_gc=True)
    doc_then.apply_update(state_at)
    known_at, deleted_at = decode_state_vector(doc_then.get_state()), delete_set_of(doc_then)
    inserted, deleted = between(known_at, bench.known), subtract(bench.deleted, deleted_at)
    then = trees_of(doc_then, bench.places.kinds)
    if piece is None:
        return bench.take_back(inserted=inserted, deleted=deleted, wanted=then)
    now = trees_of(_doc_of(head_state), bench.places.kinds)
    if span is None:
        wanted = _with_piece(then, now, piece)
        inside = bench.places.within(piece)
        return bench.take_back(inserted=intersect(inserted, inside), deleted=intersect(deleted, inside), wanted=wanted)
    _check_is_text(bench, piece)
    counted = bench.places.counted()
    order = order_of(bench.places, piece.root)
    stretch = stretch_of(order, span, alive=intersect(counted, subtract(between({}, known_at), deleted_at)))
    stands = span_of(order, stretch, alive=subtract(counted, bench.deleted))
    wanted, inside = _with_span(then, now, piece.root, span, stands), units_of(order, stretch)
    taken = bench.take_back(inserted=intersect(inserted, inside), deleted=intersect(deleted, inside), wanted=wanted)
    return replace(taken, stretch=stretch)


class Bench:
    """A scratch copy of head that keeps what was deleted, on which an undo is made before it is tried on another."""

    def __init__(self, head_state: bytes, *, client_id: int) -> None:
        self.client_id = client_id
        self.head_state = head_state
        self.doc: Doc[Any] = Doc(client_id=client_id, skip_gc=True)
        self.doc.apply_update(head_state)
        # What was deleted is there: it tells the kinds of roots that head shows nothing of.
        self.places = Places(head_state)

    @property
    def known(self) -> dict[int, int]:
        """The state vector."""
        return decode_state_vector(self.doc.get_state())

    @property
    def deleted(self) -> IdSet:
        return delete_set_of(self.doc)

    def take_back(self, *, inserted: IdSet, deleted: IdSet, wanted: Mapping[str, Tree] | None = None) -> TakenBack:
        """Undo what was inserted and deleted, and see to it that a copy of head then says what is `wanted`: where that
        is not given, what the undo makes of the scratch document. May be called once. Raises: RestoreFailed."""
        says = _Wanted(wanted, self.places.kinds) if wanted is not None else None
        if says is not None and says.is_said_by(_doc_of(self.head_state)):
            return self._taken_back(None)
        undo = _undone(self.doc, inserted, deleted) if inserted or deleted else None
        says = says or _Wanted(trees_of(self.doc, self.places.kinds), self.places.kinds)
        if undo is None and says.is_said_by(_doc_of(self.head_state)):
            return self._taken_back(None)
        if undo is not None and says.is_said_by(_doc_of(self.head_state, undo)):
            return self._taken_back(undo)
        # After the undo less is left to differ; should the undo itself have gone wrong, head alone will do.
        for start in [undo, None] if undo is not None else [None]:
            update = _difference(says, self.head_state, start, self.client_id)
            if update is not None and says.is_said_by(_doc_of(self.head_state, update)):
                return self._taken_back(update)
        raise RestoreFailed("neither an undo nor a difference gives the wanted content")

    def _taken_back(self, update: bytes | None) -> TakenBack:
        inserted, deleted = (0, 0) if update is None else self.places.characters_of(update)
        return TakenBack(
            update=update,
            inserted=inserted,
            deleted=deleted,
            head_state=self.head_state,
            kinds=self.places.kinds,
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the document is to say, and how its roots are read, those that came later included."""

    trees: Mapping[str, Tree]
    kinds: Mapping[str, RootKind]

    def is_said_by(self, doc: Doc[Any]) -> bool:
        return canonical_json(trees_of(doc, self.kinds)) == canonical_json(self.trees)


def _with_piece(then: Mapping[str, Any], now: Mapping[str, Any], piece: Piece) -> dict[str, Tree]:
    """What the document says now, but for one piece, which says what it said then."""
    if not piece.path:
        if piece.root not in then and piece.root not in now:
            raise NoSuchPiece(f"there is no root of this name that holds anything, then or now: {piece.root!r}")
        return _with_key(now, piece.root, then)
    before, after = _entries(then, piece), _entries(now, piece)
    if after is None:
        raise NoSuchPiece("there is no map now that this key is of: restore what it is in")
    key = piece.path[-1]
    if key not in (before or {}) and key not in after:
        raise NoSuchPiece("there is no such key, then or now")
    entries = _with_key(after, key, before or {})
    for place in range(len(piece.path) - 1, 0, -1):
        holder = Piece(piece.root, piece.path[:place])
        outer = _entries(now, holder)
        assert outer is not None
        entries = {**outer, holder.path[-1]: {"type": "map", "entries": entries}}
    # A root that holds nothing counts as absent.
    return _with_key(now, piece.root, {piece.root: {"type": "map", "entries": entries}} if entries else {})


def _entries(trees: Mapping[str, Any], piece: Piece) -> Mapping[str, Any] | None:
    """The map that the last key of a path is of; None where there is none."""
    here: Any = trees.get(piece.root, {"type": "map", "entries": {}})
    for key in piece.path[:-1]:
        here = here["entries"].get(key) if _is_map(here) else None
    return here["entries"] if _is_map(here) else None


def _is_map(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.get("type") == "map"


def _with_key(values: Mapping[str, Any], key: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with what the source has under the key; without the key where it has nothing."""
    rest = {name: value for name, value in values.items() if name != key}
    return {**rest, key: source[key]} if key in source else rest


def _check_is_text(bench: Bench, piece: Piece) -> None:
    if piece.path or bench.places.kinds.get(piece.root) is not RootKind.TEXT:
        raise NoSuchPiece("a range is one of a root that is a text")


def _with_span(then: Mapping[str, Any], now: Mapping[str, Any], root: str, span: Span, stands: Span) -> dict[str, Tree]:
    """What the document says now, but for the span of a text where the range `stands`, which says what it said then."""
    before, after = ((trees.get(root) or {"delta": []})["delta"] for trees in (then, now))
    rest = Span(stands.stop, sys.maxsize)
    delta = joined(sliced(after, Span(0, stands.start)), sliced(before, span), sliced(after, rest))
    return _with_key(now, root, {root: {"type": "text", "delta": delta}} if delta else {})


def _doc_of(state: bytes, *updates: bytes, client_id: int | None = None) -> Doc[Any]:
    doc: Doc[Any] = Doc() if client_id is None else Doc(client_id=client_id)
    for update in (state, *updates):
        doc.apply_update(update)
    return doc


def _undone(doc: Doc[Any], inserted: IdSet, deleted: IdSet) -> bytes | None:
    """Undo what was inserted and deleted; return what that emits, as one update.

    `doc` must keep deleted content (`skip_gc`), or it cannot come back. Every root as Text will do.
    Raises: RestoreFailed where yrs panics; `doc` is then of no use."""
    if is_one_batch(inserted, deleted):
        turns = [Batch(inserted, deleted)]
    else:
        turns = batches(decode_update(doc.get_update()).structs, inserted, deleted, gone=delete_set_of(doc))
    manager = UndoManager(
        scopes=[doc.get(name, type=Text) for name in sorted(doc.keys())],
        capture_timeout_millis=_FOREVER_MS,
        timestamp=lambda: 0,
        undo_stack=[_stack_item(doc, each) for each in reversed(turns)],
    )

    def undo_all() -> None:
        while manager.can_undo():
            manager.undo()

    try:
        return _emitted(doc, undo_all)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RestoreFailed("the undo failed in pycrdt") from error


def _stack_item(doc: Any, batch: Batch) -> Any:
    """The stub names pycrdt's inner Doc, the constructor takes the outer one."""
    inserted, deleted = (PycrdtIdSet.decode(encode_id_set(ids)) for ids in batch)
    return StackItem(doc, deleted, inserted)


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
