"""A short fuzz with a fixed seed, and what shows that the fuzz would find something. The long one is `make fuzz`."""

import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from history.crdt.lib0 import var_string, var_uint
from history.crdt.updates import decode_update
from tests.fuzz.encoding import encode_update
from tests.fuzz.episodes import EPISODE_CASES, Episode, Failure, Tally, disagreement
from tests.fuzz.hostile import (
    BULK_BYTES,
    BULK_SHAPES,
    HOSTILE_FRAMES,
    HOSTILE_UPDATES,
    HOSTILE_UPDATES_AFTER,
    one_struct,
    sync,
)
from tests.fuzz.rooms import Fate, Room
from tests.fuzz.running import Run, honest_failures, record_corpus, run
from tests.fuzz.yjs import History, Yjs

SEED = 20
EPISODES = 40


@pytest.fixture(scope="module")
def corpus() -> list[History]:
    return record_corpus(SEED)


def test_no_honest_update_is_refused_and_yjs_reads_the_same(corpus: list[History]) -> None:
    assert honest_failures(corpus) == []


@pytest.mark.timeout(300)
def test_no_input_kills_hangs_or_misleads_and_yjs_reads_what_was_accepted_the_same(corpus: list[History]) -> None:
    tally = run(Run(seed=SEED, first=0, stop=EPISODES), corpus)
    # What an input costs is measured by the long form alone: here others may have the processor.
    assert [failure for failure in tally.failures if "of CPU" not in failure.what] == []
    assert tally.cases == EPISODES * EPISODE_CASES
    fates = {fate for (_, fate), count in tally.fates.items() if count}
    assert fates >= {Fate.ACCEPTED, Fate.REFUSED, Fate.MALFORMED, Fate.MISSING}
    assert tally.compared > 0 and tally.judged > 0


def test_the_same_seed_makes_the_same_cases(corpus: list[History]) -> None:
    def made() -> list[bytes]:
        episode = Episode(3, seed=SEED, corpus=corpus)
        frames = []
        for _, case in episode.cases():
            frames.append(case.frame)
            episode.room.hear(case.frame, owner=case.owner)
        return frames

    assert made() == made()


def fuzz(arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments.split()],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 1
    return done.stdout


def test_without_the_guard_a_death_is_named_and_its_case_repeated_exactly(corpus: list[History]) -> None:
    deadly = sync(HOSTILE_UPDATES["values nested so deep that applying them is a segmentation fault"])

    def begins_deadly(number: int) -> bool:
        episode = Episode(number, seed=SEED, corpus=corpus, guarded=False, way="hostile_class")
        return next(episode.cases())[1].frame == deadly

    first = next(number for number in count() if begins_deadly(number))
    what = Run(seed=SEED, first=first, stop=first + 1, workers=1, guarded=False, way="hostile_class", failures_max=1)
    [death] = run(what, corpus).failures
    assert death == Failure(first * EPISODE_CASES, "the process died: exit code -11")
    again = fuzz(f"--seed {SEED} --without-guard --way hostile_class --only {death.case}")
    assert f"FAILED case {death.case}: {death.what}" in again
    assert f"case {death.case}, hostile_class, {len(deadly)} bytes: {deadly.hex()[:100]}" in again


def test_without_the_guard_panics_are_found(corpus: list[History]) -> None:
    what = Run(seed=SEED, first=0, stop=50, workers=1, guarded=False, way="fresh_structs", failures_max=5)
    assert any("PanicException" in failure.what for failure in run(what, corpus).failures)


def test_a_guard_that_changes_when_it_refuses_is_found(corpus: list[History], monkeypatch: pytest.MonkeyPatch) -> None:
    def take(room: Room, update: bytes) -> Fate:
        room.gate.guard._facts.roots.add(str(len(room.gate.guard._facts.roots)))
        return Fate.REFUSED

    monkeypatch.setattr(Room, "take", take)
    with pytest.raises(Exception, match="and yet it changed something"):
        for number in range(20):
            Episode(number, seed=SEED, corpus=corpus).run(Tally())


@pytest.mark.parametrize("wrong", ["trees", "state_vector", "error"])
def test_a_difference_from_yjs_is_found(corpus: list[History], wrong: str) -> None:
    room = Room()
    for row in corpus[0].rows:
        room.take(row)
    reading = room.reading()
    with Yjs() as yjs:
        [answer] = yjs.judge([reading["told"]])
    assert disagreement(reading, answer) is None
    broken: dict[str, Any] = {
        "trees": {**answer, "loaded": {**answer["loaded"], "trees": {}}},
        "state_vector": {**answer, "live": {**answer["live"], "state_vector": "00"}},
        "error": {"error": "TypeError: contentRefs[(info & binary.BITS5)] is not a function"},
    }
    assert disagreement(reading, broken[wrong]) is not None


def test_formats_that_mark_nothing_are_left_as_told() -> None:
    room = Room()
    for row in (
        b"\x01\x02\x02\x00\x07\x01\x01x\x06\x04\x00\x02\x00\x03abc\x00",  # then a bold, a away, x of who still saw it
        b"\x01\x02\x01\x00\x46\x02\x01\x01b\x011\xc6\x02\x01\x02\x02\x01b\x04null\x00",
        b"\x00\x01\x02\x01\x01\x01",
        b"\x01\x01\x03\x00\xc4\x01\x00\x02\x01\x01x\x00",
    ):
        assert room.take(row) is Fate.ACCEPTED
    reading = room.reading()
    with Yjs() as yjs:
        [answer] = yjs.judge([reading["told"]])
    assert disagreement(reading, answer) is None


def test_what_is_decoded_is_encoded_again_to_the_same(corpus: list[History]) -> None:
    for history in corpus:
        for row in history.rows:
            decoded = decode_update(row)
            assert decode_update(encode_update(decoded)) == decoded or "nan" in str(decoded)


@pytest.mark.parametrize("frame", HOSTILE_FRAMES.values(), ids=HOSTILE_FRAMES.keys())
def test_every_hostile_class_is_refused_and_changes_nothing(frame: bytes) -> None:
    room = Room()
    before = room.fingerprint()
    assert room.hear(frame, owner=1) in (Fate.MALFORMED, Fate.REFUSED)
    assert room.fingerprint() == before


@pytest.mark.parametrize(("honest", "hostile"), HOSTILE_UPDATES_AFTER.values(), ids=HOSTILE_UPDATES_AFTER.keys())
def test_every_hostile_class_that_builds_on_content_is_refused(honest: bytes, hostile: bytes) -> None:
    room = Room()
    assert room.take(honest) is Fate.ACCEPTED
    assert room.take(hostile) is Fate.REFUSED


@pytest.mark.parametrize("shape", BULK_SHAPES.values(), ids=BULK_SHAPES.keys())
def test_large_inputs_are_large_and_legal(shape: Any) -> None:
    frame = shape(3)
    assert len(frame) < 2 * BULK_BYTES
    assert Room().hear(frame, owner=1) in (Fate.ACCEPTED, Fate.NOTHING_NEW, Fate.MISSING, Fate.REFUSED)


@pytest.mark.parametrize("order", [1, -1])
def test_many_cuts_go_into_the_log_in_the_order_that_yrs_is_quick_in(order: int) -> None:
    room = Room()
    room.take(one_struct(var_string("text" * 500), kind=4))
    starts = range(0, 2000, 2)[::order]
    assert (
        room.take(b"\0\1\1" + var_uint(1000) + b"".join(var_uint(start) + b"\1" for start in starts)) is Fate.ACCEPTED
    )
    stored = [each.clock for each in decode_update(room.rows[-1]).deletes]
    assert sorted(stored) == list(range(0, 2000, 2))
    assert stored[0] == 1000 and stored != sorted(stored)
