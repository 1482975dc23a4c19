"""The guard of one document: decides, before pycrdt sees them, whether a client's bytes may be applied.

What it lets through neither crashes nor hangs yrs, leaves nothing pending, and keeps every root readable as the kind
it began as. `check` changes nothing; `commit` takes a verdict over once pycrdt has taken the update."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from history.crdt.idsets import IdSet, id_set
from history.crdt.order import Astray, Branches, Order
from history.crdt.splits import NO_SPLITS, Splits
from history.crdt.updates import (
    DeletedRange,
    Id,
    Kind,
    MissingDependency,
    RefusedUpdate,
    Struct,
    TypeContent,
    TypeRef,
    Update,
    check_deletes,
    decode_runs,
    in_causal_order,
    singles,
)

__all__ = ["Guard", "Limits", "MissingDependency", "Overfull", "RefusedUpdate", "Verdict"]

TYPE_DEPTH_MAX = 100
"""Nesting of shared types; reading XML recurses in yrs and dies from about 20,000."""


class Overfull(RefusedUpdate):
    """Raised for an update with which the document would have more root names or client ids than it may: nothing is
    wrong with the update, and its sender may not be who filled the document."""


class Limits(NamedTuple):
    """What one document may hold, and one update of it."""

    roots: int = 1_000
    """Root names of the document; yrs keeps about 1 KB for each, for ever."""
    clients: int = 100_000
    """Client ids of the document; its state vector, which every client sends when it comes, holds them all."""
    update_parts: int = 250_000
    """Structs, deleted ranges and values of one update."""


USUAL_LIMITS = Limits()

Parent: TypeAlias = str | Id
"""A root's name or the id of a nested type."""

Place: TypeAlias = tuple[Parent, str | None]
"""Where a struct sits: its parent, and its key there or None when it is in the parent's sequence."""


class Holds(Enum):
    """What the sequence of a shared type may hold."""

    TEXT = "text, formats, embeds"
    VALUES = "values and types"
    XML = "XML nodes"
    TYPES = "types"
    """Only of roots: shared types are there, and what was collected may have been text as well as values."""
    NOTHING = "nothing: it has keys only"


# By the reference's number, and tuples instead of sets: an enum's member is hashed in Python.
_HELD_BY_TYPE = (
    Holds.VALUES,  # an array
    Holds.NOTHING,  # a map
    Holds.TEXT,
    Holds.XML,  # an element
    Holds.XML,  # a fragment
    Holds.NOTHING,  # a hook, which no update may hold
    Holds.TEXT,  # in XML
)
_XML_TYPES = (TypeRef.XML_ELEMENT, TypeRef.XML_FRAGMENT, TypeRef.XML_TEXT)
_TEXT_KINDS = (Kind.STRING, Kind.FORMAT, Kind.EMBED)
_KEYED_KINDS = (Kind.ANY, Kind.TYPE, Kind.DELETED, Kind.BINARY)
_STRING, _ANY, _TYPE, _GC, _DELETED = Kind.STRING, Kind.ANY, Kind.TYPE, Kind.GC, Kind.DELETED
_TEXT = Holds.TEXT


class Verdict(NamedTuple):
    """An update that may be applied.

    `update` is as `decode_runs` reads it. `clients` are those under whose ids it brings new structs. `splits` and
    `own_splits` are the (client, clock) of low surrogates before which it cuts a character in two, one of the
    document's or one that it brings itself: both are to be read `with_splits` first. `facts` is for `Guard.commit`."""

    update: Update
    clients: frozenset[int]
    splits: Splits
    own_splits: Splits
    facts: "_Facts | _Typed"


class _Runs:
    """What holds for the units of one client: `values[i]` from clock `starts[i]` on, up to the next start."""

    __slots__ = ("starts", "values")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.values: list[Place | None] = []

    def put(self, start: int, value: Place | None) -> None:
        if not self.values or self.values[-1] != value:
            self.starts.append(start)
            self.values.append(value)


class _Facts:
    """What the guard remembers of a document, or of one update on top of it."""

    __slots__ = ("branches", "collected", "depths", "keyed", "known", "low_surrogates", "places", "roots", "sequences")

    def __init__(self, branches: Branches | None = None) -> None:
        self.known: dict[int, int] = {}
        """The state vector."""
        self.places: dict[int, _Runs] = {}
        """By client; None for units whose place was collected with their parent."""
        self.sequences: dict[Parent, Holds] = {}
        """Of every type that is there and of every root that has had content."""
        self.depths: dict[Id, int] = {}
        """Of nested types; a type in a root has depth 1."""
        self.collected: dict[int, list[tuple[int, int]]] = {}
        """By client, rising (start, stop) of units whose content is gone: there may have been a type."""
        self.low_surrogates: dict[int, set[int]] = {}
        """By client, the clocks of the second halves of characters beyond U+FFFF."""
        self.roots: set[str] = set()
        self.branches = branches or Branches()
        self.keyed: set[tuple[int, Place]] = set()
        """Which client has written which key."""

    def absorb(self, newer: "_Facts") -> None:
        self.branches.absorb(newer.branches)
        self.keyed |= newer.keyed
        self.known.update(newer.known)
        self.sequences.update(newer.sequences)
        self.depths.update(newer.depths)
        self.roots |= newer.roots
        for client, runs in newer.places.items():
            mine = self.places.setdefault(client, runs)
            if mine is not runs:
                for start, value in zip(runs.starts, runs.values, strict=True):
                    mine.put(start, value)
        for client, spans in newer.collected.items():
            self.collected.setdefault(client, []).extend(spans)
        for client, clocks in newer.low_surrogates.items():
            self.low_surrogates.setdefault(client, set()).update(clocks)


class _Typed(NamedTuple):
    """The facts that one ASCII string typed into a known text adds: a `_Facts` would cost more than its check."""

    client: int
    clock: int
    stop: int
    place: Place


class Guard:
    """The guard of one document. Calls must alternate: `check`, apply, `commit`; or `check` alone when refused."""

    __slots__ = ("_facts", "_limits")

    def __init__(self, limits: Limits = USUAL_LIMITS) -> None:
        self._facts = _Facts()
        self._limits = limits

    @classmethod
    def of(cls, state_update: bytes, *later: bytes, limits: Limits = USUAL_LIMITS) -> "Guard":
        """Build the guard of a document from its full state (`doc.get_update()`), collected or not, and what followed.

        These are the server's own: they are not judged, and where a root mixes kinds of content, text wins, then
        values, as when it is read. Raises: Malformed, MissingDependency when the bytes are no full state."""
        return cls.of_decoded(*map(decode_runs, (state_update, *later)), limits=limits)

    @classmethod
    def of_decoded(cls, *updates: Update, limits: Limits = USUAL_LIMITS) -> "Guard":
        """As `of`, of updates that `decode_runs` has read."""
        guard = cls(limits)
        for update in updates:
            guard._facts.absorb(_Pass(guard._facts, limits, judging=False).run(update))
        return guard

    @property
    def known(self) -> Mapping[int, int]:
        """The document's state vector."""
        return self._facts.known

    def places(self) -> Iterator[tuple[int, int, int, Place | None]]:
        """Yield (client, start, stop, place) of all units: None for those whose place was collected with their parent.

        The ranges of a client rise and have no gap between them."""
        for client, runs in self._facts.places.items():
            stops = (*runs.starts[1:], self._facts.known[client])
            yield from zip(repeat(client), runs.starts, stops, runs.values, strict=False)

    def roots(self) -> dict[str, Holds | None]:
        """Return what each root's sequence holds: NOTHING if it has keys alone, None where nothing can be told."""
        facts = self._facts
        places = {place for runs in facts.places.values() for place in runs.values if place is not None}
        keyed = {parent for parent, key in places if key is not None}
        return {name: facts.sequences.get(name) or (Holds.NOTHING if name in keyed else None) for name in facts.roots}

    def check(self, update_bytes: bytes) -> Verdict:
        """Judge an update against the document as committed; change nothing.

        Raises: Malformed for bytes that are no update; RefusedUpdate for one that this server does not take, Astray for
        one that it takes straightened; MissingDependency for one that needs what the document does not have."""
        update = decode_runs(update_bytes, parts_max=self._limits.update_parts)
        base = self._facts
        typed = _typed_behind(update, base)
        if typed is not None:
            splits = _splits(update, base.known, base.low_surrogates)
            return Verdict(update, frozenset((typed.client,)), splits, NO_SPLITS, typed)
        facts = _Pass(base, self._limits, judging=True).run(update)
        splits = _splits(update, base.known, base.low_surrogates)
        own_splits = _splits(update, base.known, facts.low_surrogates)
        clients = frozenset(client for client, stop in facts.known.items() if stop > base.known.get(client, 0))
        return Verdict(update, clients, splits, own_splits, facts)

    def commit(self, verdict: Verdict) -> None:
        """Take over an update that was applied. Only the verdict of the last `check` may be committed.

        What it split are two characters from now on, which nothing splits again."""
        facts = verdict.facts
        if isinstance(facts, _Facts):
            self._facts.absorb(facts)
            self.forget(verdict.splits | verdict.own_splits)
            return
        self._facts.known[facts.client] = facts.stop
        runs = self._facts.places.get(facts.client)
        if runs is None:
            runs = self._facts.places[facts.client] = _Runs()
        runs.put(facts.clock, facts.place)
        self.forget(verdict.splits)

    def forget(self, splits: Splits) -> None:
        """The log has these as split: they are two characters each."""
        for client, clock in splits:
            self._facts.low_surrogates.get(client, set()).discard(clock)


def _typed_behind(update: Update, base: _Facts) -> _Typed | None:
    """Judge the commonest update in a fraction of the time: ASCII typed on where its client last typed.

    Returns None when it is anything else, or not plainly in order."""
    if len(update.structs) != 1 or update.deletes:
        return None
    client, clock, length, kind, origin, right_origin, _, _, content, _ = update.structs[0]
    known = base.known
    if kind is not _STRING or origin is None or clock != known.get(client, 0) or not str.isascii(content):  # type: ignore[arg-type]
        return None
    if origin[0] != client or origin[1] != clock - 1 or not base.branches.goes_on(client, origin, right_origin):
        return None
    if right_origin and right_origin[1] >= known.get(right_origin[0], 0):
        return None
    place = _place_in(base.places, origin)
    if place is None or place[1] is not None or base.sequences.get(place[0]) is not _TEXT:
        return None
    if right_origin and _place_in(base.places, right_origin) != place:
        return None
    return _Typed(client, clock, clock + length, place)


def _place_in(places: dict[int, _Runs], unit: Id) -> Place | None:
    runs = places.get(unit[0])
    if runs is None or not runs.starts:
        return None
    starts, clock = runs.starts, unit[1]
    if clock >= starts[-1]:
        return runs.values[-1]
    return runs.values[bisect_right(starts, clock) - 1] if clock >= starts[0] else None


class _Pass:
    """One reading of an update over a document's facts; gathers the facts that it adds."""

    __slots__ = (
        "base",
        "checked_kind",
        "checked_place",
        "deleted",
        "deletes",
        "judging",
        "limits",
        "new",
        "order",
        "with_collected",
    )

    def __init__(self, base: _Facts, limits: Limits, *, judging: bool) -> None:
        self.base = base
        self.limits = limits
        self.deletes: list[DeletedRange] = []
        self.deleted: IdSet | None = None
        """The same, once it was asked for."""
        self.new = _Facts(base.branches.more())
        self.judging = judging
        self.checked_place: Place | None = None
        self.checked_kind: Kind | None = None
        """Where a struct of which kind was found to fit: the next one like it does too."""
        self.with_collected: set[Parent] = set()
        """Parents with deleted content in their sequence whose kind is gone."""

    def run(self, update: Update) -> _Facts:
        self.deletes = update.deletes
        known, reached = self.base.known, self.new.known
        self.order = Order(
            self.base.branches,
            known,
            reached,
            new=self.new.branches,
            judging=self.judging,
            structs=sum(struct[9] for struct in update.structs),
        )
        for struct, next_clock in in_causal_order(update.structs, known, reached):
            if struct[9] > 1 and struct[1] < next_clock:
                for single in singles(struct):
                    if single.stop > next_clock:
                        self._take(single, next_clock)
            elif struct[1] + struct[2] > next_clock and not self._only_goes_on(struct, next_clock):
                self._take(struct, next_clock)
        check_deletes(update.deletes, known, reached)
        if self.order.astray:
            raise Astray(self.order.astray)
        for parent, held in self.new.sequences.items():
            if held is Holds.TYPES and parent not in self.with_collected:
                self.new.sequences[parent] = Holds.VALUES
        if (more := self.new.known.keys() - self.base.known.keys()) and (
            len(more) > self.limits.clients - len(self.base.known)
        ):
            alone = len(more) > self.limits.clients  # nobody's honest work, whatever the document has
            error = RefusedUpdate if alone else Overfull
            self._refuse(f"the document would have more than {self.limits.clients} client ids", error)
        if (roots := self.new.roots - self.base.roots) and len(self.base.roots) + len(roots) > self.limits.roots:
            self._refuse(f"the document would have more than {self.limits.roots} roots", Overfull)
        return self.new

    def _refuse(self, reason: str, error: type[RefusedUpdate] = RefusedUpdate) -> None:
        """Refuse a client's update; the server's own state is taken as it is, or nobody could write to it again."""
        if self.judging:
            raise error(reason)

    def _only_goes_on(self, struct: Struct, next_clock: int) -> bool:
        """Whether a struct only makes the one before it longer, of which everything was found out."""
        client, clock, _, kind, origin, right_origin, _, _, content, _ = struct
        if clock != next_clock or kind is not self.checked_kind or origin != (client, clock - 1):
            return False
        runs = self.new.places.get(client)
        if runs is None or runs.values[-1] is not self.checked_place:
            return False
        plain = kind is _ANY or (kind is _STRING and str.isascii(content))  # type: ignore[arg-type]
        return plain and self.new.branches.goes_on(client, origin, right_origin)

    def _take(self, struct: Struct, next_clock: int) -> None:
        client, clock, length, kind, origin, right_origin, _, _, content, times = struct
        new = self.new
        start, stop = max(clock, next_clock), clock + length * times
        runs = new.places.get(client)
        if runs is None:
            runs = new.places[client] = _Runs()
        if kind is _GC:
            _extend(new.collected.setdefault(client, []), start, stop)
            runs.put(start, None)
            self.order.pass_over(client, start)
            return
        place = self._place(struct)
        if start > clock:
            self._check_known_part(struct, start, place)
        if place is not None and (place is not self.checked_place or kind is not self.checked_kind):
            self._check_fits(place, struct)
        if kind is _TYPE:
            self._take_types(client, range(clock, stop), content, place)
        elif kind is _DELETED:
            _extend(new.collected.setdefault(client, []), start, stop)
        elif kind is _STRING and not str.isascii(content):  # type: ignore[arg-type]
            surrogates = {low for low in _low_surrogates(struct) if low >= start}
            if surrogates:
                new.low_surrogates.setdefault(client, set()).update(surrogates)
        runs.put(start, place)
        if place is None or place[1] is not None:
            self.order.pass_over(client, start)
        else:
            behind = origin if start == clock else (client, start - 1)
            self.order.place(client, range(start, stop, length), behind, right_origin, place[0])

    def _check_known_part(self, struct: Struct, start: int, place: Place | None) -> None:
        """Refuse the rest of a struct that does not belong to the part of it, up to `start`, that is known."""
        if self._place_of((struct.client, start - 1)) != place:
            # yrs puts the unknown rest of a struct behind what it knows of it, wherever that is, collected or not.
            self._refuse("a struct goes on in another place than its known part")
        # Where the known part stands behind half a character, that was parted when it came. (Before the other half
        # stands nothing but what is behind the first one.)
        if origin := struct.origin:
            for facts in (self.new, self.base):
                if origin[1] + 1 in facts.low_surrogates.get(origin[0], ()):
                    self._refuse("the rest of a struct cuts a character that its known part left whole")

    def _check_fits(self, place: Place, struct: Struct) -> None:
        parent, key = place
        self._check_parent(parent)
        if key is not None:
            self._check_keyed(struct, place)
            return
        self._check_content(parent, struct)
        if struct.kind is not _TYPE:
            self.checked_place, self.checked_kind = place, struct.kind

    def _place(self, struct: Struct) -> Place | None:
        if struct.parent is not None:
            if isinstance(struct.parent, str):
                self.new.roots.add(struct.parent)
                if len(self.new.roots) > self.limits.roots:
                    self._refuse(f"the update has more than {self.limits.roots} roots")
            return struct.parent, struct.parent_key
        left = self._place_of(struct.origin) if struct.origin else None
        right = self._place_of(struct.right_origin) if struct.right_origin else None
        if left is not None and right is not None and left != right:
            self._refuse("an insert's neighbours are in different places")
        place = left if left is not None else right
        if place is not None and struct.origin and struct.right_origin and (left is None or right is None):
            self._check_collected_neighbour(place[0])
        return place

    def _check_collected_neighbour(self, parent: Parent) -> None:
        # What was collected went with its parent, and so did its neighbours. Yjs drops such an insert, yrs shows it.
        if isinstance(parent, str) or self._held_by(parent) is not None:
            self._refuse("one of an insert's neighbours was collected, the other one's parent is there")

    def _place_of(self, unit: Id) -> Place | None:
        runs = self.new.places.get(unit[0])
        if runs is not None and runs.starts and unit[1] >= runs.starts[0]:
            return _place_in(self.new.places, unit)
        return _place_in(self.base.places, unit)

    def _held_by(self, parent: Parent) -> Holds | None:
        return self.new.sequences.get(parent) or self.base.sequences.get(parent)

    def _check_parent(self, parent: Parent) -> None:
        if isinstance(parent, str) or self._held_by(parent) is not None:
            return
        # A type that was deleted and collected leaves no trace of what it was; yrs drops what is put into it.
        if not any(_covers(facts.collected.get(parent[0], []), parent[1]) for facts in (self.new, self.base)):
            self._refuse("a parent is not a shared type")

    def _check_content(self, parent: Parent, struct: Struct) -> None:
        kind = struct.kind
        if kind is _DELETED:
            self.with_collected.add(parent)
            return
        held = self._held_by(parent)
        fits = _sequence_of(struct)
        decides = fits is _TEXT or fits is Holds.VALUES
        if held is None:
            if isinstance(parent, str):
                self.new.sequences[parent] = fits
        elif held is Holds.TYPES:
            if decides:
                self.new.sequences[parent] = fits
        elif not self.judging:
            # No client has put another type among XML nodes: what is there are values of an array, some of them XML.
            outweighs = held is not _TEXT if decides else held is Holds.XML and fits is Holds.TYPES
            if isinstance(parent, str) and outweighs:
                self.new.sequences[parent] = fits
        elif held is not fits and not (kind is _TYPE and _may_hold_type(held, struct.content)):
            raise RefusedUpdate(f"{kind.name.lower()} content in a parent that holds {held.value}")

    def _check_keyed(self, struct: Struct, place: Place) -> None:
        # Of text, formats and embeds under a key yrs and Yjs read different values, or none although the key is there.
        if struct.kind not in _KEYED_KINDS:
            self._refuse(f"{struct.kind.name.lower()} content under a key")
        # A value is overwritten by one behind it; before another, the order in which they arrive would decide.
        if struct.right_origin is not None:
            self._refuse("a value stands before another one of its key")
        # Clients join values that were replaced, so deleted. Of others that stand in one struct Yjs cannot delete some.
        if struct.kind is _ANY and struct.length > 1 and not self._deletes_all(struct):
            self._refuse("several values under a key")
        # Nobody forgets what they wrote themselves: values that all stand first cost yrs quadratic time.
        written = struct.client, place
        if struct.origin is None and (struct.times > 1 or written in self.new.keyed or written in self.base.keyed):
            self._refuse("a client writes a key as if it never had")
        self.new.keyed.add(written)

    def _deletes_all(self, struct: Struct) -> bool:
        """Whether the update deletes a struct that it brings."""
        if self.deleted is None:
            self.deleted = id_set(self.deletes)
        ranges = self.deleted.get(struct.client, ())
        place = bisect_right(ranges, struct.clock, key=itemgetter(0)) - 1
        return place >= 0 and struct.stop <= ranges[place][1]

    def _take_types(self, client: int, clocks: range, content: object, place: Place | None) -> None:
        assert isinstance(content, TypeContent)
        depth = 1
        if place is not None and not isinstance(place[0], str):
            depth += self.new.depths.get(place[0]) or self.base.depths.get(place[0], 0)
        if depth > TYPE_DEPTH_MAX:
            self._refuse(f"shared types are nested deeper than {TYPE_DEPTH_MAX}")
        holds = _HELD_BY_TYPE[content.ref]
        for clock in clocks:
            self.new.sequences[client, clock] = holds
            self.new.depths[client, clock] = depth


def _sequence_of(struct: Struct) -> Holds:
    """Say which kind of sequence a root has whose first content is this struct."""
    if struct.kind in _TEXT_KINDS:
        return _TEXT
    if isinstance(struct.content, TypeContent):
        return Holds.XML if struct.content.ref in _XML_TYPES else Holds.TYPES
    return Holds.VALUES


def _may_hold_type(held: Holds, content: object) -> bool:
    """Texts and arrays may hold any shared type (an embed, an item), XML only its own nodes."""
    if held is Holds.XML:
        return isinstance(content, TypeContent) and content.ref in _XML_TYPES
    return held is not Holds.NOTHING


def _extend(spans: list[tuple[int, int]], start: int, stop: int) -> None:
    if spans and spans[-1][1] == start:
        spans[-1] = spans[-1][0], stop
    else:
        spans.append((start, stop))


def _covers(spans: list[tuple[int, int]], clock: int) -> bool:
    index = bisect_right(spans, clock, key=lambda span: span[0]) - 1
    return index >= 0 and clock < spans[index][1]


def _low_surrogates(struct: Struct) -> Iterator[int]:
    clock = struct.clock
    assert isinstance(struct.content, str)
    for character in struct.content * struct.times:
        if character > "\uffff":
            yield clock + 1
            clock += 1
        clock += 1


def _splits(update: Update, known: dict[int, int], low_surrogates: dict[int, set[int]]) -> Splits:
    if not low_surrogates:
        return NO_SPLITS
    return frozenset(unit for unit in _boundaries(update, known) if unit[1] in low_surrogates.get(unit[0], ()))


def _boundaries(update: Update, known: dict[int, int]) -> Iterator[Id]:
    """Yield every unit before which applying the update may cut a struct in two. What is known already is passed over
    by Yjs and yrs alike, neighbours and all: a client that tells of its halves again has split nothing by that."""
    for struct in update.structs:
        client, _, _, _, origin, right_origin, _, _, _, _ = struct
        next_clock = known.get(client, 0)
        if struct.stop <= next_clock:
            continue
        # Of a struct that is known in part the rest is taken.
        yield client, next_clock
        if origin:
            yield origin[0], origin[1] + 1
        if right_origin:
            yield right_origin
    for client, clock, length in update.deletes:
        yield client, clock
        yield client, clock + length
