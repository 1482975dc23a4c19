"""Random histories of careless emoji edits, and what Yjs says after each row of them.

Written by tests/clients/emoji_histories.mjs."""

import json
import subprocess
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pycrdt import Doc, Text

from history.crdt.state_vectors import decode_state_vector
from tests.clients.driver import HERE, install_packages, node_binary

NODE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a document says: its text, as a delta too, and its state vector."""

    text: str
    delta: list[Any]
    clocks: dict[int, int]


NOTHING = Said("", [], {})


@dataclass(frozen=True, slots=True)
class EmojiRow:
    user: int
    update: bytes
    yjs: Said
    """What a Yjs document says that has taken the rows so far."""


def emoji_histories(first_seed: int, count: int) -> dict[int, list[EmojiRow]]:
    """By seed."""
    install_packages()
    command = [str(node_binary()), str(HERE / "emoji_histories.mjs"), str(first_seed), str(count)]
    done = subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=NODE_SECONDS)
    return {
        history["seed"]: [_row(row) for row in history["rows"]] for history in map(json.loads, done.stdout.splitlines())
    }


def _row(row: dict[str, Any]) -> EmojiRow:
    clocks = {int(client): clock for client, clock in row["clocks"].items()}
    return EmojiRow(row["user"], bytes.fromhex(row["update"]), Said(row["text"], row["delta"], clocks))


def said_by(doc: "Doc[Any]") -> Said:
    text = doc.get("t", type=Text)
    parts = [
        {"insert": "".join(insert for insert, _ in same), **({"attributes": attributes} if attributes else {})}
        for attributes, same in groupby(text.diff(), key=lambda part: part[1] or {})
    ]
    return Said(str(text), parts, decode_state_vector(doc.get_state()))
