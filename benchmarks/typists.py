"""Editing that can be made in any length: three people type and delete in a text that stays as large as it is.

The updates are written down directly, byte for byte what an editor sends, as a document of a million edits would be ten
minutes in the making."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from history.crdt.lib0 import var_string, var_uint

LETTERS = "etaoin shrdlu etaoin cmfwyp vbgkjqxz etaoin "
ROOT = "content"
PEOPLE = 3
UPDATES_PER_SESSION = 2000
"""Of a person, who then opens the page anew: under another client id."""

_Unit: TypeAlias = tuple[bytes, int]
"""A character's client id, encoded, and its clock."""


class Typed(NamedTuple):
    """One update and the number (from 0) of the session that sent it."""

    update: bytes
    session: int


def typed_and_deleted(updates: int, *, characters: int, seed: int) -> Iterator[Typed]:
    """Yield `updates` Yjs updates of the text root `content`: the first brings `characters`, each other one types or
    deletes one character. People by turns write some forty in one place, go back over some of it, or take as much away
    that somebody wrote, and go elsewhere; each has seen what the others did."""
    rng = random.Random(seed)
    text = _Text()
    authors = [_Author(number, rng.getrandbits(32)) for number in range(PEOPLE)]
    yield Typed(text.begin(authors[0], "".join(rng.choices(LETTERS, k=characters))), 0)
    made, sessions = 1, PEOPLE
    while made < updates:
        person = rng.randrange(PEOPLE)
        if authors[person].updates >= UPDATES_PER_SESSION:
            authors[person] = _Author(sessions, rng.getrandbits(32))
            sessions += 1
        author = authors[person]
        place = rng.randrange(text.length + 1)
        for edit in _strokes(rng, place, grows=text.length < characters):
            if edit > 0:
                update = text.typed(author, place, rng.choice(LETTERS))
            elif place:
                update = text.deleted(place - 1)
            else:
                break
            place += edit
            author.updates += 1
            yield Typed(update, author.session)
            made += 1
            if made == updates:
                return


def _strokes(rng: random.Random, place: int, *, grows: bool) -> Iterator[int]:
    """+1 for a character, -1 for the one before it taken back."""
    for _ in range(rng.randrange(20, 60) if grows else rng.randrange(1, 5)):
        yield 1
        if rng.random() < 0.05:
            yield from (-1,) * rng.randrange(1, 6)
    if not grows:
        yield from (-1,) * min(rng.randrange(20, 60), place)


@dataclass(slots=True)
class _Author:
    session: int
    client_id: int
    clock: int = 0
    updates: int = 0
    client: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.client = var_uint(self.client_id)


class _Text:
    """The units of a text, as far as the next update needs them: those that are seen, and what stands before each."""

    def __init__(self) -> None:
        self._seen: list[_Unit] = []
        self._before: dict[_Unit, _Unit | None] = {}
        """Of each unit that is seen the one to its left, which may be deleted."""
        self._last: _Unit | None = None

    @property
    def length(self) -> int:
        return len(self._seen)

    def begin(self, author: _Author, text: str) -> bytes:
        self._seen = [(author.client, clock) for clock in range(len(text))]
        self._before = dict(zip(self._seen, [None, *self._seen[:-1]], strict=True))
        self._last = self._seen[-1]
        author.clock = len(text)
        return b"\1\1" + author.client + b"\0\4\1" + var_string(ROOT) + var_string(text) + b"\0"

    def typed(self, author: _Author, place: int, letter: str) -> bytes:
        """Type at a place. Yjs passes over what is deleted there, so that the character stands before the next one
        that is seen."""
        unit = author.client, author.clock
        right = self._seen[place] if place < len(self._seen) else None
        left = self._last if right is None else self._before[right]
        if right is None:
            self._last = unit
        else:
            self._before[right] = unit
        self._before[unit] = left
        self._seen.insert(place, unit)
        author.clock += 1
        info = 4 | (0x80 if left else 0) | (0x40 if right else 0)
        return b"".join(
            (
                b"\1\1",
                unit[0],
                var_uint(unit[1]),
                bytes((info,)),
                _id(left),
                _id(right),
                b"\1",
                letter.encode(),
                b"\0",
            )
        )

    def deleted(self, place: int) -> bytes:
        client, clock = unit = self._seen.pop(place)
        del self._before[unit]  # itself it goes on standing to the left of what is seen next
        return b"\0\1" + client + b"\1" + var_uint(clock) + b"\1"


def _id(unit: _Unit | None) -> bytes:
    return b"" if unit is None else unit[0] + var_uint(unit[1])
