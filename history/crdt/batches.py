"""What is undone in which order, so that yrs undoes all of it.

Of several ranges of one undo within one block yrs 0.28 takes the first only: the others are left out, or it panics.
One in the middle of a block parts it, so that the next undo finds the rest in blocks of their own: as many undos as
the logarithm of the most ranges in one block do it all."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from history.crdt.idsets import IdSet, Range, clipped, contains, id_set, subtract
from history.crdt.updates import Struct

_Triple: TypeAlias = tuple[int, int, int]
"""(client, clock, length)."""


class Batch(NamedTuple):
    """What one undo takes away, and what it brings back."""

    inserted: IdSet
    deleted: IdSet


def is_one_batch(inserted: IdSet, deleted: IdSet) -> bool:
    """Whether no client has two ranges, so that no block can have them either."""
    return all(
        len(inserted.get(client, ())) + len(deleted.get(client, ())) <= 1 for client in inserted.keys() | deleted.keys()
    )


def batches(structs: Iterable[Struct], inserted: IdSet, deleted: IdSet, *, gone: IdSet) -> list[Batch]:
    """Part an undo into several, to be made in this order. `structs` are the document's as yrs has them, `gone` is its
    delete set.

    What is a single unit, as types and the values of keys are, is in the first: what a type holds comes back only with
    it or behind it."""
    deleted = subtract(deleted, inserted)
    later: list[tuple[list[_Triple], list[_Triple]]] = []
    idle: list[_Triple] = []
    for struct in structs:
        client, start, stop = struct.client, struct.clock, struct.stop
        if stop - start == 1 or not (client in inserted or client in deleted):
            continue
        is_gone = contains(gone, client, start)
        taken = clipped(inserted, client, start, stop)
        given = clipped(deleted, client, start, stop)
        # A block is deleted as a whole, so that nothing is left to be taken from it, or not at all.
        pieces, nothing = (given, taken) if is_gone else (taken, given)
        idle += [_triple(client, piece) for piece in nothing]
        if len(pieces) > 1:
            for level, piece in _by_level(pieces):
                while len(later) < level:
                    later.append(([], []))
                if level:
                    later[level - 1][is_gone].append(_triple(client, piece))
    rest = [Batch(id_set(taken), id_set(given)) for taken, given in later]
    postponed = id_set([*idle, *(each for pair in later for ranges in pair for each in ranges)])
    return [Batch(subtract(inserted, postponed), subtract(deleted, postponed)), *rest]


def _triple(client: int, piece: Range) -> _Triple:
    return client, piece[0], piece[1] - piece[0]


def _by_level(pieces: tuple[Range, ...]) -> Iterable[tuple[int, Range]]:
    """Each piece with its turn: the one in the middle, then the middle ones of either side, and so on."""
    waiting = [(0, pieces)]
    while waiting:
        level, here = waiting.pop()
        middle = len(here) // 2
        yield level, here[middle]
        waiting += [(level + 1, side) for side in (here[:middle], here[middle + 1 :]) if side]
