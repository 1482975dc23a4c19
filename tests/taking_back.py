"""Random histories in which something is taken back: each kind of restore, and the undo of one person.

`wanted` is found in another way than by the code under test: from replays, and from the document with another delete
set. A history of RESTORE_HISTORIES=1000 is the lab's number; CI runs fewer."""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pycrdt import Doc

from history.crdt.content import canonical_json, trees_of
from history.crdt.idsets import IdSet, encode_id_set, id_set, subtract, union
from history.crdt.lib0 import Reader
from history.crdt.places import Piece
from history.crdt.ranges import NoSuchRange, Span
from history.crdt.restoring import NoSuchPiece, TakenBack, restored
from history.crdt.roots import RootKind
from history.crdt.undoing import Act, Row, undone
from history.crdt.updates import decode_update, read_struct
from tests import histories
from tests.histories import ROOTS, replay

HISTORIES = int(os.environ.get("RESTORE_HISTORIES", "100"))
"""How many random histories each property is tried on; of 1000 and more some take longer than tests otherwise may:
`RESTORE_HISTORIES=1000 make test ARGS="tests/clients/test_taken_back.py -o timeout=0"`."""

CLIENT = 999


class Case(NamedTuple):
    """One thing taken back; `rows` are the updates of the log before it."""

    name: str
    rows: list[bytes]
    taken: TakenBack
    kinds: dict[str, RootKind]

    @property
    def all_rows(self) -> list[bytes]:
        return [*self.rows, *([self.taken.update] if self.taken.update else [])]


def undo_rows(
    rows: Sequence[histories.Row],
    who: int,
    first: int,
    last: int,
    *,
    acts: Sequence[Act] = (),
    gc: bool = True,
    client_id: int = CLIENT,
) -> TakenBack:
    """Undo what person `who` did in the rows `first` to `last` (from 1, both included), each person in one session."""
    before = replay(rows[: first - 1], skip_gc=not gc).get_update()
    taken, _ = undone(
        state_before=before,
        head_state=replay(rows, skip_gc=True).get_update(),
        rows=[Row(seq, row.user, row.update) for seq, row in enumerate(rows, 1) if seq >= first],
        sessions=frozenset({who}),
        first_seq=first,
        last_seq=last,
        acts=lambda: acts,
        client_id=client_id,
        rows_max=10_000,
    )
    return taken


def restore_rows(rows: Sequence[histories.Row], place: int, **options: Any) -> TakenBack:
    updates = [row.update for row in rows]
    options.setdefault("client_id", CLIENT)
    head_state = replay(updates, skip_gc=True).get_update()
    return restored(state_at=replay(updates[:place]).get_update(), head_state=head_state, **options)


def a_span(seed: int, rows: Sequence[histories.Row]) -> tuple[int, int, int]:
    """A person and a span of their rows."""
    rng = random.Random(seed)
    first = rng.randrange(1, len(rows) + 1)
    return rng.randrange(1, 4), first, rng.randrange(first, len(rows) + 1)


def cases(seed: int) -> list[Case]:
    """One of each kind, on one random history; kinds that this history has no place for are left out."""
    rows = histories.random_history(seed, edits=50, skip_gc=True)
    rng = random.Random(seed)
    place = rng.randrange(len(rows) + 1)
    key = rng.choice("pqrst")
    begin = rng.randrange(12)
    tried: dict[str, Callable[[], TakenBack]] = {
        "undo": lambda: undo_rows(rows, *a_span(seed, rows)),
        "root": lambda: restore_rows(rows, place, piece=Piece(rng.choice(list(ROOTS)))),
        "key": lambda: restore_rows(rows, place, piece=Piece("map", (key,))),
        "nested key": lambda: restore_rows(rows, place, piece=Piece("map", (key, rng.choice("pqrst")))),
        "range": lambda: restore_rows(rows, place, piece=Piece("text"), span=Span(begin, begin + rng.randrange(1, 9))),
    }
    found: list[Case] = []
    for name, take in tried.items():
        try:
            taken = take()
        except (NoSuchPiece, NoSuchRange):
            continue
        found.append(Case(f"{name} of history {seed}", [row.update for row in rows], taken, dict(taken.kinds)))
    return found


def says(rows: Iterable[bytes | histories.Row], kinds: dict[str, RootKind] | None = None, *, gc: bool = True) -> str:
    return canonical_json(trees_of(replay(rows, skip_gc=not gc), kinds))


def cut(full_state: bytes, *, back: IdSet, gone: IdSet) -> Doc[Any]:
    """The document of a full state with another delete set: what is `back` is not in it, what is `gone` is.

    Of maps it says less than it should: Yjs deletes a value that another one of its key stands behind."""
    reader = Reader(full_state)
    for _ in range(reader.var_uint()):
        structs, client, clock = reader.var_uint(), reader.var_uint(), reader.var_uint()
        for _ in range(structs):
            clock += read_struct(reader, client, clock).length
    deleted = union(subtract(id_set(decode_update(full_state).deletes), back), gone)
    doc: Doc[Any] = Doc(skip_gc=True)
    doc.apply_update(full_state[: reader.position] + encode_id_set(deleted))
    return doc


def without_keys(tree: Any) -> Any:
    """A tree without what maps and attributes of elements say."""
    match tree:
        case {"type": "map"}:
            return {"type": "map"}
        case {"type": "element" | "xmltext"}:
            return {name: without_keys(value) for name, value in tree.items() if name != "attributes"}
        case dict():
            return {name: without_keys(value) for name, value in tree.items()}
        case list():
            return [without_keys(item) for item in tree]
        case _:
            return tree


def living_units(doc: Doc[Any]) -> IdSet:
    """All units that a document shows: neither deleted nor in a type that is."""
    update = decode_update(doc.get_update())
    return subtract(id_set((each.client, each.clock, each.length) for each in update.structs), id_set(update.deletes))
