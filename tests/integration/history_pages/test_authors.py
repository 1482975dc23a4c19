"""An author has the same colour in the history as at the cursor on the writing page."""

import re
from pathlib import Path

import pytest

import history
from history.authors import COLOURS, colour_number

STYLES = Path(history.__file__).parent / "static" / "history" / "authors.css"


# What `colourOf` of frontend/src/colours.ts gives.
@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("ada", "#9b2761"),
        ("bob lee", "#23578b"),
        ("Zoë", "#15844c"),
        ("日本", "#627231"),
        ("😀 x", "#4962ab"),
        ("e\u0301ve", "#db2424"),
        ("", "#145242"),
    ],
)
def test_a_names_colour_is_that_of_the_writing_page(name: str, colour: str) -> None:
    styles = dict(re.findall(r"\.author-(\d+) \{ --author: (#[0-9a-f]{6}); \}", STYLES.read_text()))
    assert len(styles) == COLOURS
    assert styles[str(colour_number(name))] == colour
