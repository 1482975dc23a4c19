"""Where the units of a document stand: what lies in one piece of it, and which types hold what.

It is read from a full state that keeps what was deleted, so that it knows of everything that ever was there."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from history.crdt.guard import Guard, Parent, Place
from history.crdt.idsets import IdSet, contains, id_set, intersect, triples
from history.crdt.roots import RootKind, kinds_in
from history.crdt.updates import Id, Kind, Struct, TypeContent, TypeRef, decode_runs, decode_update, singles


class Piece(NamedTuple):
    """One piece of a document: a root, or what is under a key of it, or of a map under a key of it, and so on."""

    root: str
    path: tuple[str, ...] = ()


class Places:
    """The places of all units of one full state. Reading 180,000 units of B4 takes about 40 ms."""

    __slots__ = ("_by_client", "kinds", "structs")

    def __init__(self, full_state: bytes) -> None:
        decoded = decode_runs(full_state)
        guard = Guard.of_decoded(decoded)
        self.kinds: Mapping[str, RootKind] = kinds_in(guard)
        self.structs: list[Struct] = [
            each for struct in decoded.structs for each in (singles(struct) if struct.times > 1 else (struct,))
        ]
        self._by_client: dict[int, tuple[list[int], list[Place | None], list[int]]] = {}
        for client, start, stop, place in guard.places():
            starts, places, stops = self._by_client.setdefault(client, ([], [], []))
            starts.append(start)
            places.append(place)
            stops.append(stop)

    def of(self, unit: Id) -> Place | None:
        """Where a unit stands; None where that was collected."""
        starts, places, _ = self._by_client[unit[0]]
        return places[bisect_right(starts, unit[1]) - 1]

    def within(self, piece: Piece) -> IdSet:
        """All units that ever were in a piece, in the types in it too. Of a key: each value that it ever had, and what
        was under it in each map that ever stood on the way there."""
        holders: set[Parent] = {piece.root}
        for key in piece.path[:-1]:
            steps = {(holder, key) for holder in holders}
            holders = {unit for unit in self._types() if self.of(unit) in steps}
        aims = {(holder, key) for holder in holders for key in piece.path[-1:]}
        inside: dict[Parent, bool] = {}

        def is_in(place: Place | None) -> bool:
            chain: list[Parent] = []
            answer = False
            while place is not None:
                if place in aims or (not aims and place[0] == piece.root):
                    answer = True
                    break
                parent = place[0]
                if isinstance(parent, str):
                    break
                if parent in inside:
                    answer = inside[parent]
                    break
                chain.append(parent)
                place = self.of(parent)
            inside.update(dict.fromkeys(chain, answer))
            return answer

        return id_set((client, start, stop - start) for client, start, stop, place in self._all() if is_in(place))

    def holders(self, living: IdSet, *, deleted: IdSet) -> IdSet:
        """The types in which some of `living` are seen: whose own holders, up to the root, are not in `deleted`.

        What is under a key counts in a map; attributes of XML are their element's, not content."""
        maps = {
            (each.client, each.clock)
            for each in self.structs
            if isinstance(each.content, TypeContent) and each.content.ref is TypeRef.MAP
        }
        found: set[Id] = set()
        hidden: dict[Id, bool] = {}
        for client, start, stop, place in self._all():
            if place is None or isinstance(place[0], str) or place[0] in found:
                continue
            if place[1] is not None and place[0] not in maps:
                continue
            chain = self._chain(place)
            is_hidden = hidden.get(chain[0])
            if is_hidden is None:
                is_hidden = hidden[chain[0]] = any(contains(deleted, *unit) for unit in chain)
            if not is_hidden and intersect({client: ((start, stop),)}, living):
                found.update(chain)
        return id_set((client, clock, 1) for client, clock in found)

    def counted(self) -> IdSet:
        """The units that have a length for readers: all but formatting marks and what was collected."""
        counted = (each for each in self.structs if each.kind not in (Kind.GC, Kind.DELETED, Kind.FORMAT))
        return id_set((each.client, each.clock, each.length) for each in counted)

    def characters_of(self, update: bytes) -> tuple[int, int]:
        """How many characters of texts (UTF-16 units) an update inserts, and how many of the document it deletes."""
        structs, deletes = decode_update(update)[:2]
        inserted = sum(each.length for each in structs if each.kind is Kind.STRING)
        texts = id_set((each.client, each.clock, each.length) for each in self.structs if each.kind is Kind.STRING)
        gone = intersect(id_set(deletes), texts)
        return inserted, sum(length for _, _, length in triples(gone))

    def _all(self) -> Iterator[tuple[int, int, int, Place | None]]:
        for client, (starts, places, stops) in self._by_client.items():
            for start, stop, place in zip(starts, stops, places, strict=True):
                yield client, start, stop, place

    def _types(self) -> Iterator[Id]:
        return ((each.client, each.clock) for each in self.structs if each.kind is Kind.TYPE)

    def _chain(self, place: Place) -> list[Id]:
        """The types that hold what stands at a place, the innermost first."""
        chain: list[Id] = []
        here: Place | None = place
        while here is not None and not isinstance(here[0], str):
            chain.append(here[0])
            here = self.of(here[0])
        return chain
