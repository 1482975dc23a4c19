"""Undoing what somebody did: which units of a document they wrote, and which they deleted, in a span of its log.

What lives of others stays: a type that holds some of it is kept, and what another one deleted too is not brought back.
What a restore or an undo gave back already is not given back twice, unless that was undone itself."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pycrdt import Doc

from history.crdt.idsets import IdSet, delete_set_of, id_set, intersect, subtract, union
from history.crdt.places import Piece, Places
from history.crdt.ranges import Order, Stretch, order_of, units_of
from history.crdt.restoring import Bench, TakenBack
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import DeletedRange, advance, decode_update


class Row(NamedTuple):
    """One row of the log as it is folded."""

    seq: int
    session_id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A restore or an undo in the log: it took back what the rows first_seq..last_seq did, all of them before it.

    `sessions` are those whose rows are meant, None for everybody's; `piece` and `stretch` are the part of the document
    that it was about, None for all of it."""

    seq: int
    session_id: int
    first_seq: int
    last_seq: int
    sessions: frozenset[int] | None = None
    piece: Piece | None = None
    stretch: Stretch | None = None

    def took_back(self, seq: int, session_id: int) -> bool:
        return self.first_seq <= seq <= self.last_seq and (self.sessions is None or session_id in self.sessions)


class TooManyRows(Exception):
    """Raised where a span holds more rows of the ones who are undone than are undone at once."""

    def __init__(self, rows_max: int) -> None:
        super().__init__(f"more than {rows_max} updates would be undone at once; name a shorter span")


@dataclass(slots=True, kw_only=True)
class Deeds:
    """What the rows first_seq..last_seq of some sessions wrote and deleted, gathered row by row in the log's order.

    `known` is the state vector before first_seq. Memory grows with what is undone and with what others deleted since,
    not with what they wrote."""

    sessions: frozenset[int]
    first_seq: int
    last_seq: int
    rows_max: int
    known: dict[int, int]
    rows: int = 0
    _written: list[tuple[int, int, int]] = field(default_factory=list)
    _deleted: list[tuple[int, int, list[DeletedRange]]] = field(default_factory=list)
    _deleted_by_others: list[DeletedRange] = field(default_factory=list)

    def take(self, row: Row) -> None:
        """Read one row from first_seq on. Raises: TooManyRows."""
        in_span = row.seq <= self.last_seq
        # An update that deletes nothing ends with the number 0. Behind the span only deletions matter.
        if not in_span and row.payload[-1] == 0:
            return
        update = decode_update(row.payload)
        if not in_span or row.session_id not in self.sessions:
            self._deleted_by_others += update.deletes
        else:
            self.rows += 1
            if self.rows > self.rows_max:
                raise TooManyRows(self.rows_max)
            # Of what is in the log twice, the first delivery tells the author.
            for struct in update.structs:
                start, stop = max(struct.clock, self.known.get(struct.client, 0)), struct.clock + struct.length
                if start < stop:
                    self._written.append((struct.client, start, stop - start))
            if update.deletes:
                self._deleted.append((row.seq, row.session_id, update.deletes))
        if in_span:
            advance(self.known, update)

    def written(self) -> IdSet:
        return id_set(self._written)

    def deleted(self, acts: Sequence[Act], places: Places) -> IdSet:
        """What they alone deleted, and no act (in the log's order) has given back for good."""
        theirs = id_set(each for _, _, deletes in self._deleted for each in deletes)
        alone = subtract(theirs, id_set(self._deleted_by_others))
        return subtract(alone, self._given_back(acts, places)) if alone and acts else alone

    def _given_back(self, acts: Sequence[Act], places: Places) -> IdSet:
        """Of what they deleted, that which is there again, as copies under ids of those who gave it back."""
        given: IdSet = {}
        parts = _Parts(places)
        earlier: list[_Done] = []
        for act in acts:
            part = parts.of(act)
            now = _taken_back(act, given, earlier, part)
            covered = (each for seq, session, each in self._deleted if act.took_back(seq, session))
            now = union(now, part(id_set(each for deletes in covered for each in deletes)))
            earlier.append(_Done(act, given, subtract(now, given), subtract(given, now)))
            given = now
        return given


class _Done(NamedTuple):
    """An act: what was given back before it, and what it gave back and took again."""

    act: Act
    given: IdSet
    gave: IdSet
    took: IdSet


def _taken_back(act: Act, given: IdSet, earlier: Sequence[_Done], part: "_Part") -> IdSet:
    """What is given back once the act has taken back the earlier ones that it is about, the last one first.

    Of the last ones, as long as it is about them all, what was given back before them tells: a restore takes back all
    acts since, and one after the other costs as many set operations for each of many restores."""
    place = len(earlier)
    while place and _is_about(act, earlier[place - 1]):
        place -= 1
    if place < len(earlier):
        given = union(subtract(given, part(given)), part(earlier[place].given))
    for done in reversed(earlier[:place]):
        if (done.gave or done.took) and act.took_back(done.act.seq, done.act.session_id):
            given = union(subtract(given, part(done.gave)), part(done.took))
    return given


def _is_about(act: Act, done: _Done) -> bool:
    """Whether an act takes back another one, or that one changed nothing."""
    return act.took_back(done.act.seq, done.act.session_id) or not (done.gave or done.took)


class _Parts:
    """The parts of a document that acts are about; the order of a text, which takes long to read, is read once."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._orders: dict[str, Order] = {}
        self._parts: dict[tuple[Piece | None, Stretch | None], _Part] = {}

    def of(self, act: Act) -> "_Part":
        key = act.piece, act.stretch
        if key not in self._parts:
            self._parts[key] = self._read(act)
        return self._parts[key]

    def _read(self, act: Act) -> "_Part":
        if act.piece is None:
            return _Part(None)
        if act.stretch is None:
            return _Part(self._places.within(act.piece))
        root = act.piece.root
        if root not in self._orders:
            self._orders[root] = order_of(self._places, root)
        return _Part(units_of(self._orders[root], act.stretch))


class _Part(NamedTuple):
    units: IdSet | None

    def __call__(self, ids: IdSet) -> IdSet:
        return ids if self.units is None else intersect(ids, self.units)


def undone(
    *,
    state_before: bytes,
    head_state: bytes,
    rows: Iterable[Row],
    sessions: frozenset[int],
    first_seq: int,
    last_seq: int,
    acts: Callable[[], Sequence[Act]],
    client_id: int,
    rows_max: int,
) -> tuple[TakenBack, int]:
    """Take back what `sessions` did in the rows first_seq..last_seq; return that, and how many rows they were.

    `state_before` yields the document right before first_seq, `rows` are all from there to head in order, read once;
    `acts` tells the restores and undos among them once they were read. As `restored` otherwise. Where their work and
    that of others do not touch, the document then says what it would say without their rows.
    Raises: RestoreFailed, TooManyRows."""
    bench = Bench(head_state, client_id=client_id)
    before: Doc[Any] = Doc(skip_gc=True)
    before.apply_update(state_before)
    deeds = Deeds(
        sessions=sessions,
        first_seq=first_seq,
        last_seq=last_seq,
        rows_max=rows_max,
        known=decode_state_vector(before.get_state()),
    )
    for row in rows:
        deeds.take(row)
    places = bench.places
    deleted = subtract(deeds.deleted(acts(), places), delete_set_of(before))
    written = deeds.written()
    gone = subtract(bench.deleted, deleted)
    kept = places.holders(subtract(places.counted(), union(gone, written)), deleted=gone)
    return bench.take_back(inserted=subtract(written, kept), deleted=deleted), deeds.rows
