"""How an author is shown: a name, and a colour that is the same here and at the cursor on the writing page.

The colour is computed from the name alone (frontend/src/colours.ts): nothing that a person chose reaches a style.
There, of two people in a document at once whose hues are alike, the later one has the next free hue."""

import unicodedata
from dataclasses import dataclass

from documents.roles import User

COLOURS = 72
"""Classes `author-0` to `author-71` of authors.css: 24 hues, three tones of each."""

NOBODY_NAME = "no account"


@dataclass(frozen=True, slots=True)
class Author:
    """`colour` is the number of a class of authors.css; None for acts of no account, or of one that is gone."""

    name: str
    colour: int | None

    @property
    def is_known(self) -> bool:
        return self.colour is not None


def author_of(user: User | None) -> Author:
    if user is None:
        return Author(NOBODY_NAME, None)
    name = str(user.get_username())
    return Author(name, colour_number(name))


def colour_number(name: str) -> int:
    """FNV-1a over UTF-16 units, then a final mix (hash-prospector's), as `colourOf` of the writing page computes it."""
    value = 0x811C9DC5
    units = unicodedata.normalize("NFC", name).encode("utf-16-le", "surrogatepass")
    for low, high in zip(units[::2], units[1::2], strict=True):
        value = (value ^ (low | high << 8)) * 0x01000193 & 0xFFFFFFFF
    value = (value ^ value >> 16) * 0x21F0AAAD & 0xFFFFFFFF
    value = (value ^ value >> 15) * 0xD35A2D97 & 0xFFFFFFFF
    return (value ^ value >> 15) % COLOURS
