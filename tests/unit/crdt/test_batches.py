"""Undoing ranges of texts, as many as there are of any block: what comes of it against the characters by themselves."""

import random
from typing import Any

import pytest
from pycrdt import Doc, Map, Text, XmlElement, XmlFragment, XmlText

from history.crdt import restoring
from history.crdt.batches import batches
from history.crdt.idsets import IdSet, id_set, subtract, union
from history.crdt.restoring import Bench, RestoreFailed
from history.crdt.updates import decode_update

CLIENT = 999


class Written:
    """A text whose characters are all different, in one order whatever was deleted; people and their units by it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.units: dict[str, tuple[int, int]] = {}
        self.doc: Doc[Any] = Doc(client_id=1, skip_gc=True)
        self.text = self.doc.get("text", type=Text)
        for _ in range(rng.randrange(3, 12)):
            self._type(rng.choice((5, 6, 7)), rng.choice((1, 3, 10, 60)))
        self.order = str(self.text)
        for _ in range(rng.randrange(6)):
            start = rng.randrange(len(str(self.text)) + 1)
            self._delete(start, start + rng.choice((1, 5, 30)))
        self.gone = set(self.order) - set(str(self.text))

    def _type(self, client: int, count: int) -> None:
        mine: Doc[Any] = Doc(client_id=client, skip_gc=True)
        mine.apply_update(self.doc.get_update())
        text = mine.get("text", type=Text)
        new = "".join(chr(0x4E00 + len(self.units) + n) for n in range(count))
        clock = sum(1 for owner, _ in self.units.values() if owner == client)
        self.units |= {character: (client, clock + n) for n, character in enumerate(new)}
        now = str(text)
        text.insert(len(now[: self.rng.randrange(len(now) + 1)].encode()), new)
        self.doc.apply_update(mine.get_update())

    def _delete(self, start: int, stop: int) -> None:
        now = str(self.text)
        if now[start:stop]:
            del self.text[len(now[:start].encode()) : len(now[:stop].encode())]

    def some(self, characters: set[str]) -> set[str]:
        """Of what stands beside each other some and some not."""
        chosen: set[str] = set()
        is_chosen = False
        for character in sorted(characters, key=self.units.__getitem__):
            if self.rng.random() < 0.3:
                is_chosen = not is_chosen
            if is_chosen:
                chosen.add(character)
        return chosen

    def ids(self, characters: set[str]) -> IdSet:
        return id_set((*self.units[character], 1) for character in characters)


@pytest.mark.parametrize("seed", range(300))
def test_any_ranges_of_any_blocks_are_taken_back(seed: int) -> None:
    written = Written(random.Random(seed))
    alive = set(written.order) - written.gone
    taken, given = written.some(alive), written.some(written.gone)
    also_gone = written.some(written.gone - given)
    bench = Bench(written.doc.get_update(), client_id=CLIENT)

    result = bench.take_back(inserted=written.ids(taken | also_gone), deleted=written.ids(given))

    left = (alive - taken) | given
    assert str(result.after().get("text", type=Text)) == "".join(each for each in written.order if each in left)


def test_what_a_person_wrote_in_turn_with_oneself_is_undone_within_few_undos() -> None:
    doc: Doc[Any] = Doc(client_id=5, skip_gc=True)
    doc.get("text", type=Text).insert(0, "ab" * 4000)
    every_second = id_set((5, clock, 1) for clock in range(1, 8000, 2))

    turns = batches(decode_update(doc.get_update()).structs, every_second, {}, gone={})
    taken = Bench(doc.get_update(), client_id=CLIENT).take_back(inserted=every_second, deleted={})

    assert len(turns) == 12  # 2 ** 12 > 4000
    assert union(*(turn.inserted for turn in turns)) == every_second
    assert str(taken.after().get("text", type=Text)) == "a" * 4000


def test_what_a_type_held_comes_back_in_it_whichever_turn_it_has() -> None:
    doc: Doc[Any] = Doc(client_id=5, skip_gc=True)
    fragment = doc.get("xml", type=XmlFragment)
    paragraph = fragment.children.append(XmlElement("paragraph"))
    paragraph.children.append(XmlText("".join(chr(0x4E00 + n) for n in range(40))))
    doc.get("map", type=Map)["key"] = "then"
    before = decode_update(doc.get_update()).structs
    doc.get("map", type=Map)["key"] = "now"
    del fragment.children[0]
    everything = id_set((each.client, each.clock, each.length) for each in before)
    text = max(before, key=lambda each: each.length)
    gaps = id_set((5, text.clock + n, 1) for n in range(3, 40, 7))

    taken = Bench(doc.get_update(), client_id=CLIENT).take_back(inserted={}, deleted=subtract(everything, gaps))

    after = taken.after()
    wanted = "".join(chr(0x4E00 + n) for n in range(40) if n % 7 != 3)
    assert str(after.get("xml", type=XmlFragment)) == f"<paragraph>{wanted}</paragraph>"


def test_an_undo_in_which_yrs_panics_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    doc: Doc[Any] = Doc(client_id=5, skip_gc=True)
    doc.get("text", type=Text).insert(0, "0123456789")
    monkeypatch.setattr(restoring, "is_one_batch", lambda *_: True)  # as one undo: yrs 0.28 panics

    with pytest.raises(RestoreFailed, match="failed in pycrdt"):
        Bench(doc.get_update(), client_id=CLIENT).take_back(
            inserted=id_set([(5, 0, 2), (5, 4, 2), (5, 8, 2)]), deleted={}
        )
