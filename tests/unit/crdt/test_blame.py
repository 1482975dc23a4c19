"""Blame tells of every character, value, key and node whose row it came with, as a replay row by row would."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import blame as blame_module
from history.crdt import changes
from history.crdt.blame import Blame, DeletionNumbers, Numbers, blame
from history.crdt.content import root_trees
from history.crdt.roots import root_kinds
from history.crdt.updates import DeletedRange, decode_update
from tests.builders import typed
from tests.histories import Row, random_history, replay, updates_of, with_roots

BATCH = 10
BATCHES = int(os.environ.get("BLAME_HISTORIES", "20")) // BATCH
"""BLAME_HISTORIES=200 is the lab's number of histories."""


@dataclass
class Cell:
    """One character, embed, item, child or value of the replay; `node` is what a shared type holds."""

    said: Any
    by: int
    node: "Node | None" = None


@dataclass
class Node:
    type: str
    cells: list[Cell] = field(default_factory=list)
    keys: dict[str, Cell] = field(default_factory=dict)


def cells_of(tree: Any, by: int, *, in_text: bool = False) -> list[Cell]:
    """A text by its UTF-16 units, all else by itself."""
    if in_text and isinstance(tree, str):
        return [Cell(unit, by) for unit in utf16_units(tree)]
    return [Cell(None if is_type(tree) else repr(tree), by, node_of(tree, by) if is_type(tree) else None)]


def utf16_units(text: str) -> list[bytes]:
    encoded = text.encode("utf-16-le")
    return [encoded[place : place + 2] for place in range(0, len(encoded), 2)]


def is_type(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.get("type", "json") != "json"


def node_of(tree: Any, by: int) -> Node:
    node = Node(tree["type"])
    for run in tree.get("delta", []):
        node.cells += cells_of(run["insert"], by, in_text=True)
    for item in [*tree.get("items", []), *tree.get("children", [])]:
        node.cells += cells_of(item, by)
    for key, value in {**tree.get("entries", {}), **tree.get("attributes", {})}.items():
        [node.keys[key]] = cells_of(value, by)
    return node


class Replay:
    """Every row by itself, under observers: slow, and plainly right."""

    def __init__(self, rows: list[Row]) -> None:
        self.doc: Doc[Any] = Doc()
        self.roots: dict[str, Node] = {}
        self.deleted: Counter[tuple[Any, int, int]] = Counter()
        kinds = root_kinds(replay(rows, skip_gc=True).get_update())
        types = {"text": "text", "array": "array", "map": "map", "xml": "fragment"}
        self.roots = {name: Node(types[kind.value]) for name, kind in kinds.items()}
        for by, row in enumerate(rows, start=1):
            trees = root_trees(self.doc, kinds)
            for name, events in changes._events_of(self.doc, row.update, kinds).items():
                for event in sorted(events, key=lambda event: len(event.path)):
                    change = changes._told(trees[name], event)
                    self._apply(self._at(name, change["path"]), change, by)

    def _at(self, name: str, path: list[Any]) -> Node:
        node = self.roots[name]
        for step in path:
            found = node.keys[step].node if isinstance(step, str) else node.cells[step].node
            assert found is not None
            node = found
        return node

    def _apply(self, node: Node, change: Any, by: int) -> None:
        in_text = node.type in ("text", "xmltext")
        place = 0
        for span in change.get("spans", []):
            if "insert" in span:
                inserted = [span["insert"]] if in_text else span["insert"]
                cells = [cell for item in inserted for cell in cells_of(item, by, in_text=in_text)]
                node.cells[place:place] = cells
                place += len(cells)
            elif "delete" in span:
                if not any(isinstance(step, str) for step in change["path"]):
                    for cell in node.cells[place : place + span["delete"]]:
                        self._forget(cell, by)
                del node.cells[place : place + span["delete"]]
            else:
                place += span["retain"]
        for key, changed in change.get("keys", {}).items():
            if "new" in changed:
                [node.keys[key]] = cells_of(changed["new"], by)
            else:
                del node.keys[key]

    def _forget(self, cell: Cell, by: int) -> None:
        """Only units of text are counted, none under a key: what a key held before is not shown."""
        if isinstance(cell.said, bytes):
            self.deleted[cell.said, cell.by, by] += 1
        for inner in cell.node.cells if cell.node else []:
            self._forget(inner, by)

    def lines(self) -> Iterator[tuple[Any, ...]]:
        for name, node in self.roots.items():
            yield from self._lines(name, node, [])

    def _lines(self, name: str, node: Node, path: list[Any]) -> Iterator[tuple[Any, ...]]:
        for place, cell in [*enumerate(node.cells), *node.keys.items()]:
            said = cell.node.type if cell.node else cell.said if isinstance(place, int) else None
            yield name, repr([*path, place]), said, cell.by
            if cell.node:
                yield from self._lines(name, cell.node, [*path, place])


def lines_of(blamed: Blame) -> Iterator[tuple[Any, ...]]:
    """As `Replay.lines`: root, path, what is said, by whom."""
    for name, nodes in blamed.items():
        types = {repr(node["path"]): node["type"] for node in nodes}
        for node in nodes:
            place = 0
            for run in node.get("runs", []):
                for said in said_by(run, node["type"]):
                    yield name, repr([*node["path"], place]), said, run["by"]
                    place += 1
            for key, who in node.get("keys", {}).items():
                path = repr([*node["path"], key])
                yield name, path, types.get(path), who["by"]


def said_by(run: Any, node_type: str) -> list[Any]:
    if "node" in run:
        return [run["node"]]
    if node_type in ("text", "xmltext"):
        return utf16_units(run["insert"]) if isinstance(run["insert"], str) else [repr(run["insert"])]
    return [repr(item) for item in run["insert"]]


def numbers_of(rows: list[Row]) -> tuple[Numbers, DeletionNumbers]:
    written, deletions = Numbers(), DeletionNumbers()
    for number, row in enumerate(rows, start=1):
        update = decode_update(row.update)
        written.add(update.structs, number)
        deletions.add(update.deletes, number)
    return written, deletions


def blamed(rows: list[Row], place: int | None = None, *, deleted: bool = False) -> Blame:
    """Of the document after `place` rows, with the numbers of all rows, those to come included."""
    written, deletions = numbers_of(rows)
    state = replay(rows[:place], skip_gc=deleted).get_update()
    kinds = root_kinds(replay(rows[:place], skip_gc=True).get_update())
    return blame(state, kinds, written, deletions if deleted else None)


def without_keys_of_types(lines: Iterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Keys are told of by who set them; an empty type under a key has no node of its own that would say its type."""
    return sorted((name, path, None if path.endswith("']") else said, by) for name, path, said, by in lines)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_blame_tells_what_a_replay_row_by_row_tells(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rows = random_history(seed, edits=60)
        place = random.Random(seed).randint(len(rows) // 2, len(rows))
        found = blamed(rows, place)
        told = Replay(rows[:place])
        assert sorted(map(repr, without_keys_of_types(lines_of(found)))) == sorted(
            map(repr, without_keys_of_types(told.lines()))
        ), f"history {seed} at {place}"


def text_runs(blamed: Blame) -> Iterator[tuple[str, Any]]:
    for name, nodes in blamed.items():
        for node in nodes:
            if node["type"] in ("text", "xmltext"):
                for run in node.get("runs", []):
                    if isinstance(run.get("insert"), str):
                        yield name, run


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_was_deleted_is_told_with_who_deleted_it(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rows = random_history(seed, edits=60, skip_gc=True)
        place = random.Random(seed).randint(len(rows) // 2, len(rows))
        runs = list(text_runs(blamed(rows, place, deleted=True)))
        told = Replay(rows[:place])
        live = Counter(
            (name, unit, run["by"])
            for name, run in runs
            if "deleted_by" not in run
            for unit in utf16_units(run["insert"])
        )
        want = Counter((name, said, by) for name, _, said, by in told.lines() if isinstance(said, bytes))
        assert live == want, f"history {seed} at {place}"
        deleted = Counter(
            (unit, run["by"], run["deleted_by"])
            for _, run in runs
            if "deleted_by" in run
            for unit in utf16_units(run["insert"])
        )
        # What somebody typed into what was deleted meanwhile was never seen, and is told all the same.
        assert not told.deleted - deleted, f"history {seed} at {place}"


def run_of(rows: list[bytes], *, deleted: bool = False) -> list[Any]:
    return blamed([Row(row, 1) for row in rows], deleted=deleted)["text"][0]["runs"]


def test_each_stretch_of_a_text_has_its_author() -> None:
    rows = typed(["hello ", "world"])
    doc = replay(rows)
    rows += updates_of(doc, lambda: doc.get("text", type=Text).insert(3, "😀"))
    assert run_of(rows) == [
        {"insert": "hel", "by": 1},
        {"insert": "😀", "by": 3},
        {"insert": "lo ", "by": 1},
        {"insert": "world", "by": 2},
    ]


def test_a_deleted_text_stands_where_it_stood_with_who_deleted_it() -> None:
    rows = typed(["hello ", "world"])
    doc = replay(rows)
    rows += updates_of(doc, lambda: doc.get("text", type=Text).__delitem__(slice(1, 8)))
    assert run_of(rows) == [{"insert": "h", "by": 1}, {"insert": "rld", "by": 2}]
    assert run_of(rows, deleted=True) == [
        {"insert": "h", "by": 1},
        {"insert": "ello ", "by": 1, "deleted_by": 3},
        {"insert": "wo", "by": 2, "deleted_by": 3},
        {"insert": "rld", "by": 2},
    ]


def test_what_goes_with_its_paragraph_was_deleted_by_who_deleted_that() -> None:
    """Text that the one who deleted the paragraph had not seen, and of which a part is deleted later, in vain."""
    first: Doc[Any] = Doc(client_id=1)
    second: Doc[Any] = Doc(client_id=2)
    children = first.get("xml", type=XmlFragment).children
    rows = updates_of(first, lambda: children.append(XmlElement("p", {}, [XmlText("seen ")])))
    second.apply_update(rows[0])
    text = second.get("xml", type=XmlFragment).children[0].children[0]
    rows += updates_of(second, lambda: text.insert(5, "new"))
    rows += updates_of(first, lambda: children.__delitem__(0))
    rows += updates_of(second, lambda: text.__delitem__(slice(5, 6)))
    assert [run for _, run in text_runs(blamed([Row(row, 1) for row in rows], deleted=True))] == [
        {"insert": "seen ", "by": 1, "deleted_by": 3},
        {"insert": "n", "by": 2, "deleted_by": 3},
        {"insert": "ew", "by": 2, "deleted_by": 3},
    ]


def test_keys_items_and_nodes_have_their_author() -> None:
    doc: Doc[Any] = Doc(client_id=1)
    with_roots(doc)
    array, mapping = doc.get("array", type=Array), doc.get("map", type=Map)
    fragment = doc.get("xml", type=XmlFragment)
    rows: list[bytes] = []
    for edit in (
        lambda: array.extend([1, 2]),
        lambda: array.insert(1, Map({"k": 1})),
        lambda: array[1].update({"k": 2}),
        lambda: mapping.update({"list": Array([Text("t")])}),
        lambda: fragment.children.append(XmlElement("p", {"a": "1"}, [XmlText("one")])),
        lambda: fragment.children[0].attributes.__setitem__("b", "2"),
    ):
        rows += updates_of(doc, edit)
    found = blamed([Row(row, 1) for row in rows])
    assert found["array"] == [
        {
            "path": [],
            "type": "array",
            "runs": [{"insert": [1], "by": 1}, {"node": "map", "by": 2}, {"insert": [2], "by": 1}],
        },
        {"path": [1], "type": "map", "keys": {"k": {"by": 3, "value": 2}}},
    ]
    assert found["map"] == [
        {"path": [], "type": "map", "keys": {"list": {"by": 4}}},
        {"path": ["list"], "type": "array", "runs": [{"node": "text", "by": 4}]},
        {"path": ["list", 0], "type": "text", "runs": [{"insert": "t", "by": 4}]},
    ]
    assert found["xml"] == [
        {"path": [], "type": "fragment", "runs": [{"node": "element", "tag": "p", "by": 5}]},
        {
            "path": [0],
            "type": "element",
            "runs": [{"node": "xmltext", "by": 5}],
            "keys": {"a": {"by": 5, "value": "1"}, "b": {"by": 6, "value": "2"}},
        },
        {"path": [0, 0], "type": "xmltext", "runs": [{"insert": "one", "by": 5}]},
    ]


@pytest.mark.parametrize("seed", range(10))
def test_more_authors_than_characters_take_more_digits(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_history(seed, edits=60, skip_gc=True)
    plain = blamed(rows), blamed(rows, deleted=True)
    monkeypatch.setattr(blame_module, "CODES", 3)
    assert (blamed(rows), blamed(rows, deleted=True)) == plain


def test_somebody_under_the_client_id_of_marks_costs_the_authors_of_types_alone() -> None:
    doc: Doc[Any] = Doc(client_id=0)
    array = doc.get("array", type=Array)
    rows = [*updates_of(doc, lambda: array.append(Text("one"))), *updates_of(doc, lambda: array[0].insert(0, "two "))]
    assert blamed([Row(row, 1) for row in rows])["array"] == [
        {"path": [], "type": "array", "runs": [{"node": "text", "by": blame_module.UNKNOWN}]},
        {"path": [0], "type": "text", "runs": [{"insert": "two ", "by": 2}, {"insert": "one", "by": 1}]},
    ]


def test_what_no_row_tells_of_is_unknown() -> None:
    state = replay(typed(["one", "two"])).get_update()
    written = Numbers()
    written.add(decode_update(typed(["one", "two"])[1]).structs, 7)
    kinds = root_kinds(state)
    [node] = blame(state, kinds, written)["text"]
    assert node["runs"] == [{"insert": "one", "by": blame_module.UNKNOWN}, {"insert": "two", "by": 7}]
    [node] = blame(state, kinds, Numbers())["text"]
    assert node["runs"] == [{"insert": "onetwo", "by": blame_module.UNKNOWN}]


def test_the_first_row_that_brought_or_deleted_something_is_told() -> None:
    written, deletions = Numbers(), DeletionNumbers()
    for number, row in enumerate([*typed(["ab"]), *typed(["abcd"]), *typed(["a"])], start=1):
        written.add(decode_update(row).structs, number)
    assert list(written.parts(1, 0, 4)) == [(2, 1), (2, 2)]
    for number, (clock, length) in enumerate([(4, 2), (0, 1), (0, 9), (3, 9)], start=1):
        deletions.add([DeletedRange(1, clock, length)], number)
    assert list(deletions.parts(1, 0, 13)) == [(1, 2), (3, 3), (2, 1), (3, 3), (3, 4), (1, 0)]
    assert list(deletions.parts(2, 0, 3)) == [(3, blame_module.UNKNOWN)]
