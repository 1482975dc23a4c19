"""Real Yjs in a Node process of one's own: it records editing for the fuzz and reads what the server let through."""

import json
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.clients.driver import NodeError, install_packages, node_binary

PROGRAM = Path(__file__).with_name("yjs.mjs")


class History(NamedTuple):
    """Updates of several people in the order of arrival; in one with `splits` somebody edits inside emoji."""

    rows: list[bytes]
    splits: bool


class Yjs:
    """One Node process; questions may be asked ahead of their answers, which come in order."""

    def __enter__(self) -> Self:
        install_packages()
        self._process = subprocess.Popen(
            [str(node_binary()), str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def record(self, *, seed: int, histories: int, edits: int) -> list[History]:
        """Let people edit real Yjs documents; the same seed makes the same edits."""
        recorded = self._ask("record", seed=seed, histories=histories, edits=edits)
        return [History([bytes.fromhex(row) for row in each["rows"]], each["splits"]) for each in recorded]

    def judge(self, episodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each {rows, snapshot, kinds} (bytes in hex) what Yjs reads, or its error."""
        judged: list[dict[str, Any]] = self._ask("judge", episodes=episodes)
        return judged

    def change(self, differences: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each {before, after, kinds, changes} (lists of updates in hex) the trees of both moments, what the
        difference makes of before as `put_on` and of after as `taken_off`; or an error."""
        changed: list[dict[str, Any]] = self._ask("change", differences=differences)
        return changed

    def _ask(self, op: str, **fields: object) -> Any:
        """Raises: NodeError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"node ended with {self._process.wait()}"}
        if "error" in answer:
            raise NodeError(f"{op}: {answer['error']}")
        return answer["result"]


def comparable(tree: Any) -> Any:
    """Bring a tree of `history.crdt.content` or of Node into one form: numbers by their 64 bits, neighbouring texts
    of a delta with equal formats joined, formats of null left out."""
    match tree:
        case bool() | None | str():
            return tree
        case int() | float():
            return {"$number": struct.pack(">d", float(tree) + 0.0).hex()}
        case list():
            return [comparable(item) for item in tree]
        case {"$number": "nan" | "inf" | "-inf" as text}:
            return {"$number": struct.pack(">d", float(text)).hex()}
        case {"$unreadable": _}:
            return {"$unreadable": "type"}
        case {"delta": list(runs), **rest}:
            return {"delta": _joined(runs), **{key: comparable(value) for key, value in rest.items()}}
        case dict():
            return {key: comparable(value) for key, value in tree.items()}
        case _:
            raise TypeError(type(tree).__name__)


def _joined(runs: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for run in runs:
        attributes = {key: comparable(value) for key, value in run["attributes"].items() if value is not None}
        insert = comparable(run["insert"])
        last = joined[-1] if joined else None
        if last and isinstance(insert, str) and isinstance(last["insert"], str) and last["attributes"] == attributes:
            last["insert"] += insert
        else:
            joined.append({"insert": insert, "attributes": attributes})
    return joined
