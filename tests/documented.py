"""What docs/clients.md shows, for the tests that run it: the page is the source, so it cannot rot."""

import re
from pathlib import Path
from urllib.parse import urlsplit

PAGE = Path(__file__).resolve().parent.parent / "docs" / "clients.md"
SERVER = "localhost:8000"
DOCUMENT = "welcome"


def shown(heading: str, language: str, *, http_url: str, room: str) -> str:
    """The one block of this language under this heading, with a running server's address and a room of its own in the
    place of those that the page names. Raises: LookupError."""
    sections = re.split(r"^##+ (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    section = dict(zip(sections[1::2], sections[2::2], strict=True)).get(heading)
    if section is None:
        raise LookupError(f"{PAGE.name} has no heading {heading!r}")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    if len(blocks) != 1:
        raise LookupError(f"{PAGE.name} has {len(blocks)} blocks of {language} under {heading!r}, not one")
    return str(blocks[0]).replace(SERVER, urlsplit(http_url).netloc).replace(DOCUMENT, room)
