import random
from typing import Any

import pytest
from pycrdt import Doc, Text

from history.crdt.guard import Guard
from history.crdt.lib0 import Malformed
from history.crdt.splits import decode_splits, encode_splits, with_splits
from history.crdt.state_vectors import decode_state_vector
from history.crdt.updates import Struct, decode_update
from tests.histories import random_history, replay

HALVES = "\ufffd\ufffd"
NO_ROW_HOLDS = frozenset({(99, 1)})


def text_update(text: str, *, client_id: int = 1) -> bytes:
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.get("text", type=Text).insert(0, text)
    return doc.get_update()


def text_of(*updates: bytes) -> str:
    return str(replay(updates).get("text", type=Text))


def astral_characters(updates: list[bytes]) -> list[tuple[int, int]]:
    """The low surrogates of all text, as (client, clock)."""
    found = []
    for struct in (struct for update in updates for struct in decode_update(update).structs):
        if isinstance(struct.content, str) and struct.kind.name == "STRING":
            clock = struct.clock
            for character in struct.content:
                clock += 2 if character > "\uffff" else 1
                if character > "\uffff":
                    found.append((struct.client, clock - 1))
    return found


def shape_of(structs: list[Struct]) -> list[Struct]:
    return [struct._replace(content=None) if struct.kind.name == "STRING" else struct for struct in structs]


def test_a_row_of_splits_reads_back_and_has_one_form() -> None:
    splits = frozenset({(1, 2), (2**53 - 1, 2**31 - 1), (1, 300)})
    assert decode_splits(encode_splits(splits)) == splits
    assert encode_splits(list(splits)) == encode_splits(sorted(splits, reverse=True))


@pytest.mark.parametrize("cut", range(6))
def test_a_row_of_splits_that_is_cut_short_or_too_long_is_refused(cut: int) -> None:
    payload = encode_splits({(1, 2), (300, 4)})
    for damaged in (payload[:cut], payload + b"\0"):
        with pytest.raises(Malformed):
            decode_splits(damaged)


def test_the_character_that_was_split_reads_as_two_and_the_others_as_they_were() -> None:
    update = text_update("a😀b😀𝔘")
    assert text_of(with_splits(update, {(1, 2)})) == f"a{HALVES}b😀𝔘"
    assert text_of(with_splits(update, {(1, 5), (1, 7)})) == f"a😀b{HALVES}{HALVES}"


@pytest.mark.parametrize("splits", [{(2, 2)}, {(1, 1)}, {(1, 3)}, set()])
def test_an_update_that_is_not_touched_is_the_same_object(splits: set[tuple[int, int]]) -> None:
    update = text_update("a😀b")
    assert with_splits(update, splits) is update


def test_a_string_that_outgrows_its_length_byte_is_written_with_a_longer_one() -> None:
    text = "x" * 122 + "😀"  # 126 bytes, then 128
    assert text_of(with_splits(text_update(text), {(1, 123)})) == "x" * 122 + HALVES


@pytest.mark.parametrize("seed", range(40))
def test_splits_change_nothing_but_the_text_of_any_update_and_of_any_state(seed: int) -> None:
    rows = [row.update for row in random_history(seed, edits=60, skip_gc=True)]
    rng = random.Random(seed)
    splits = frozenset(unit for unit in astral_characters(rows) if rng.random() < 0.5)
    for update in (*rows, replay(rows, skip_gc=True).get_update(), replay(rows).get_update()):
        read = with_splits(update, splits)
        before, after = decode_update(update), decode_update(read)
        assert shape_of(before.structs) == shape_of(after.structs)
        assert before.deletes == after.deletes
        assert not set(astral_characters([read])) & splits
        assert with_splits(read, splits) is read
        assert with_splits(update, NO_ROW_HOLDS) is update


def test_yrs_goes_wrong_where_a_character_is_split_and_not_where_it_is_read_as_two() -> None:
    # If this fails because yrs has learnt to split, all of `history.crdt.splits` can go.
    emoji = text_update("😀")
    between = b"\x01\x01\x02\x00\xc4\x01\x00\x01\x01\x01x\x00"
    guard = Guard.of(emoji)
    splits = guard.check(between).splits
    assert splits == {(1, 1)}
    assert text_of(with_splits(emoji, splits), between) == "\ufffdx\ufffd"  # as Yjs has it
    assert text_of(emoji, between) != "\ufffdx\ufffd"
    doc = replay([with_splits(emoji, splits), between])
    assert decode_state_vector(doc.get_state()) == {1: 2, 2: 1}
