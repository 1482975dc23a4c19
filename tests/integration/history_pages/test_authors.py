"""An author has the same colour in the history as at the cursor on the writing page."""

import re
from itertools import combinations
from pathlib import Path

import pytest

import history
from history.authors import COLOURS, colour_number

HUES = 24
STYLES = Path(history.__file__).parent / "static" / "history" / "authors.css"


# What `colourOf` of frontend/src/colours.ts gives.
@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("ada", "#347968"),
        ("bob lee", "#5224db"),
        ("Zoë", "#db2480"),
        ("日本", "#1b566a"),
        ("😀 x", "#617b14"),
        ("e\u0301ve", "#347934"),
        ("", "#2424db"),
    ],
)
def test_a_names_colour_is_that_of_the_writing_page(name: str, colour: str) -> None:
    styles = dict(re.findall(r"\.author-(\d+) \{ --author: (#[0-9a-f]{6}); \}", STYLES.read_text()))
    assert len(styles) == COLOURS
    assert styles[str(colour_number(name))] == colour


def test_the_people_whom_a_newcomer_meets_first_have_hues_that_an_eye_tells_apart() -> None:
    hues = [colour_number(name) % HUES for name in ("ada", "bob", "eve", "admin", "alice")]
    apart = [min((one - other) % HUES, (other - one) % HUES) * 360 // HUES for one, other in combinations(hues, 2)]
    assert min(apart) >= 30
