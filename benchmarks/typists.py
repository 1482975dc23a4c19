"""Editing that can be made in any length: somebody types and deletes in a text that stays as large as it is."""

import random
from collections.abc import Iterator
from typing import Any

from pycrdt import Doc, Text

LETTERS = "etaoin shrdlu etaoin cmfwyp vbgkjqxz etaoin "


def typed_and_deleted(updates: int, *, characters: int, seed: int) -> Iterator[bytes]:
    """Yield `updates` Yjs updates of the text root `content`: the first brings `characters`, each other one types or
    deletes one character. People write some forty in one place, go back over some of it, and go elsewhere."""
    rng = random.Random(seed)
    doc: Doc[Any] = Doc(client_id=1)
    text = doc.get("content", type=Text)
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    text += "".join(rng.choice(LETTERS) for _ in range(characters))
    length, made = characters, 1
    yield emitted.pop()
    while True:
        place = rng.randrange(length + 1)
        for edit in _strokes(rng, place, grows=length < characters):
            if edit > 0:
                text.insert(place, rng.choice(LETTERS))
            elif place:
                del text[place - 1 : place]
            else:
                break
            place += edit
            length += edit
            if made == updates:
                doc.unobserve(subscription)
                return
            yield emitted.pop()
            made += 1


def _strokes(rng: random.Random, place: int, *, grows: bool) -> Iterator[int]:
    """+1 for a character, -1 for the one before it taken back."""
    for _ in range(rng.randrange(20, 60) if grows else rng.randrange(1, 5)):
        yield 1
        if rng.random() < 0.05:
            yield from (-1,) * rng.randrange(1, 6)
    if not grows:
        yield from (-1,) * min(rng.randrange(20, 60), place)
