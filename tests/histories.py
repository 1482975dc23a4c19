"""Random histories of several people on every kind of root, as the server would log them: each row an update whose
dependencies stand in earlier rows. The same seed makes the same edits (yrs writes formats in random order)."""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

ROOTS: dict[str, Any] = {"text": Text, "array": Array, "map": Map, "xml": XmlFragment}
"""Root name → its type, in every random history."""

_WORDS = ["a", "bc", "déf", "😀", "x y", "Z\n", "hello ", "日本", "e\u0301"]
_VALUES: list[Any] = [1, 2.5, "s", "é😀", True, None, {"k": [1, "v"]}, [1, 2], b"\x00\x01"]


class Row(NamedTuple):
    """One logged update and the number (from 1) of the person who made it, which is also their client id."""

    update: bytes
    user: int


def random_history(
    seed: int,
    *,
    edits: int = 40,
    clients: int = 3,
    concurrency: float = 0.3,
    skip_gc: bool = False,
    apart: bool = False,
) -> list[Row]:
    """Let `clients` people make `edits` random edits; with probability `concurrency` one has not seen the newest.

    `skip_gc` is what the people's own documents do with deleted content. `apart`: each has roots of their own."""
    rng = random.Random(seed)
    rows: list[Row] = []
    docs = [with_roots(Doc(client_id=number + 1, skip_gc=skip_gc)) for number in range(clients)]
    seen = [0] * clients
    for _ in range(edits):
        number = rng.randrange(clients)
        doc = docs[number]
        if rng.random() > concurrency:
            for row in rows[seen[number] :]:
                doc.apply_update(row.update)
            seen[number] = len(rows)
        suffix = str(number + 1) if apart else ""
        rows += [Row(update, number + 1) for update in updates_of(doc, partial(random_edit, rng, doc, suffix))]
    return rows


def with_roots(doc: Doc[Any]) -> Doc[Any]:
    for name, root_type in ROOTS.items():
        doc.get(name, type=root_type)
    return doc


def replay(updates: Iterable[bytes | Row], *, skip_gc: bool = False) -> Doc[Any]:
    """Apply updates one by one to a fresh document."""
    doc: Doc[Any] = Doc(skip_gc=skip_gc)
    for update in updates:
        doc.apply_update(update.update if isinstance(update, Row) else update)
    return doc


def updates_of(doc: Doc[Any], edit: Callable[[], object]) -> list[bytes]:
    """Run an edit and return what the document emitted."""
    emitted: list[bytes] = []
    subscription = doc.observe(lambda event: emitted.append(event.update))
    edit()
    doc.unobserve(subscription)
    return emitted


def random_edit(rng: random.Random, doc: Doc[Any], suffix: str = "") -> None:
    """Make one to three edits of one root, whose name ends in `suffix`, in one transaction."""
    name = rng.choice(list(ROOTS))
    with doc.transaction():
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _edit(rng, doc.get(name + suffix, type=ROOTS[name]))


def _edit(rng: random.Random, value: Any) -> None:
    if isinstance(value, Text | XmlText):
        _edit_text(rng, value)
    elif isinstance(value, Array):
        _edit_array(rng, value)
    elif isinstance(value, Map):
        _edit_map(rng, value)
    elif isinstance(value, XmlElement | XmlFragment):
        _edit_xml(rng, value)


def _offsets(text: Any) -> list[int]:
    """Return the UTF-8 offsets between characters, which is how pycrdt counts; an embed counts 1."""
    offsets = [0]
    for chunk, _ in text.diff():
        lengths = [len(character.encode()) for character in chunk] if isinstance(chunk, str) else [1]
        for length in lengths:
            offsets.append(offsets[-1] + length)
    return offsets


def _edit_text(rng: random.Random, text: Any) -> None:
    offsets = _offsets(text)
    last = len(offsets) - 1
    choice = rng.random()
    if choice < 0.5 or last == 0:
        text.insert(rng.choice(offsets), rng.choice(_WORDS), rng.choice([None, None, {"bold": True}, {"color": "red"}]))
    elif choice < 0.7:
        start = rng.randrange(last)
        del text[offsets[start] : offsets[rng.randint(start + 1, min(last, start + 5))]]
    elif choice < 0.9:
        start = rng.randrange(last)
        stop = rng.randint(start + 1, min(last, start + 6))
        text.format(offsets[start], offsets[stop], {rng.choice(["bold", "color"]): rng.choice([True, None, "red"])})
    else:
        embed = {"image": rng.choice(["u.png", "v"])} if rng.random() < 0.7 else Map({"e": 1})
        text.insert_embed(rng.choice(offsets), embed)


def _edit_array(rng: random.Random, array: Any) -> None:
    length = len(array)
    choice = rng.random()
    if choice < 0.5 or length == 0:
        array.insert(rng.randint(0, length), _new_value(rng))
    elif choice < 0.7:
        start = rng.randrange(length)
        del array[start : min(length, start + rng.randint(1, 2))]
    else:
        _edit(rng, array[rng.randrange(length)])


def _edit_map(rng: random.Random, mapping: Any) -> None:
    keys = sorted(mapping.keys())
    choice = rng.random()
    if choice < 0.5 or not keys:
        mapping[rng.choice("pqrst")] = _new_value(rng)
    elif choice < 0.7:
        del mapping[rng.choice(keys)]
    else:
        _edit(rng, mapping[rng.choice(keys)])


def _edit_xml(rng: random.Random, node: Any) -> None:
    length = len(node.children)
    choice = rng.random()
    if isinstance(node, XmlElement) and choice < 0.2:
        keys = sorted(_attributes_of(node))
        if keys and rng.random() < 0.4:
            del node.attributes[rng.choice(keys)]
        else:
            node.attributes[rng.choice(["level", "id", "c"])] = rng.choice(["1", "2", "z"])
    elif choice < 0.5 or length == 0:
        node.children.insert(rng.randint(0, length), _new_node(rng))
    elif choice < 0.65:
        start = rng.randrange(length)
        del node.children[start : min(length, start + rng.randint(1, 2))]
    else:
        _edit(rng, node.children[rng.randrange(length)])


def _attributes_of(node: Any) -> dict[str, Any]:
    pairs: Any = iter(node.attributes)
    return dict(pairs)


def _new_value(rng: random.Random, depth: int = 0) -> Any:
    choice = rng.random()
    if choice < 0.5 or depth > 2:
        return rng.choice(_VALUES)
    if choice < 0.66:
        return Map({rng.choice("pqr"): _new_value(rng, depth + 1)})
    if choice < 0.82:
        return Array([_new_value(rng, depth + 1) for _ in range(rng.randint(0, 2))])
    return Text(rng.choice(_WORDS))


def _new_node(rng: random.Random, depth: int = 0) -> Any:
    if rng.random() < 0.4 or depth > 2:
        return XmlText(rng.choice(_WORDS))
    attributes = {rng.choice(["level", "id"]): rng.choice(["1", "2", "é"])} if rng.random() < 0.5 else {}
    children = [_new_node(rng, depth + 1) for _ in range(rng.randint(0, 2))]
    return XmlElement(rng.choice(["paragraph", "heading", "ul"]), attributes, children)
