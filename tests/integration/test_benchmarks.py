"""The benchmarks run to their end and say what they measured; how fast it is here is nobody's test."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from pycrdt import Doc, Text

from benchmarks.history import MEASURES
from benchmarks.typists import PEOPLE, typed_and_deleted
from config.stack.configuration import PROJECT, base_environment
from history.crdt.folding import emitted_by
from history.crdt.guard import Guard
from tests.conftest import Ground

TEN_EDITS = [*([place, 0, letter] for place, letter in enumerate("hello wor")), [5, 1, "\n"]]
DEADLINE_SECONDS = 90


def bench(ground: Ground, *arguments: str, deadline_seconds: float = DEADLINE_SECONDS, **bounds: str) -> str:
    """What `make bench ARGS="…"` writes, on our services; `bounds` are settings of Palimpsest."""
    env = {
        **{key: value for key, value in base_environment().items() if key != "DJANGO_SETTINGS_MODULE"},
        "DATABASE_URL": ground.database.url,
        "REDIS_URL": ground.redis_url,
        "SECRET_KEY": settings.SECRET_KEY,
        **bounds,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=deadline_seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_recorded_editing_session_is_loaded_compacted_and_opened(ground: Ground, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json.gz"
    trace.write_bytes(gzip.compress(json.dumps(TEN_EDITS).encode()))

    said = bench(ground, "trace", str(trace), "--processes", "1")

    assert "appended 10 updates in " in said
    assert re.search(r"bytes in Postgres, indexes included: [\d,]+ = log [\d,]+ \+ snapshots [1-9][\d,]+; ", said)
    assert re.search(r"cold process: first SyncStep2 \([1-9]\d+ bytes\) .* \(medians of 1\)", said)
    assert re.search(r"warm room: first SyncStep2 \([1-9]\d+ bytes\) .* \(medians of 20\)", said)


def test_every_edit_of_the_writers_is_delivered_to_everybody(ground: Ground) -> None:
    said = bench(ground, "fan-out", "--writers", "2", "--readers", "3", "--seconds", "0.5")

    delivered = re.search(r"2 writers x 10/s, 3 readers: 10 edits, (\d+) delivered, p50 ", said)
    assert delivered is not None, said
    # To four others each; a writer's own come back to them where one frame holds those of both.
    assert 40 <= int(delivered[1]) <= 50


def test_readers_that_never_read_are_measured_beside_the_same_room_without_them(ground: Ground) -> None:
    said = bench(
        ground, "stalled", *("--writers", "2", "--readers", "3", "--stalled", "2", "--seconds", "1", "--rounds", "1")
    )

    assert re.search(r"without stalled readers: [1-9]\d* delivered, p50 ", said), said
    assert re.search(r"with 2 stalled readers: [1-9]\d* delivered, p50 ", said), said


def test_many_openings_of_one_document_load_it_once(ground: Ground) -> None:
    said = bench(ground, "openings", "--openings", "40", "--characters", "1000")

    assert "40 openings of 1,000 characters at once: 1 loads of the log, 0 failed, " in said, said


@pytest.mark.timeout(300)
def test_how_soon_the_server_reacts_is_measured_for_each_kind_of_event(ground: Ground) -> None:
    said = bench(
        ground,
        "reactions",
        *("--edits", "2", "--rounds", "1", "--peers", "3", "--away-seconds", "0.5"),
        deadline_seconds=240,
        HEAD_CHECK_SECONDS="0.2",
        PING_SECONDS="1",
        REQUEST_SECONDS="1",
    )

    for what, times in {
        "all replicas show an edit, layer dead": 2,
        "signed out, layer dead": 1,
        "member removed, told": 1,
        "role lowered by SQL, untold": 1,
        "each of the peers that are not there is gone": 3,
        "each replica shows what all typed, database killed for 0 s": 8,
    }.items():
        assert re.search(rf"^{what} +{times} +\d+\.\d\d +\d+\.\d\d$", said, re.MULTILINE), said


def test_an_export_of_the_audit_takes_no_more_memory_for_more_lines(ground: Ground) -> None:
    said = bench(ground, "audit", "--lines", "40000")

    grown = re.findall(r"^(\w+): 44,000 lines .* memory grew by ([\d.]+) MiB at most$", said, re.MULTILINE)
    assert [form for form, _ in grown] == ["csv", "jsonl"], said
    assert all(float(mebibytes) < 8 for _, mebibytes in grown), said  # held at once they would be many times that


def test_the_past_of_a_document_is_measured_beside_others_that_keep_it(ground: Ground) -> None:
    said = bench(ground, "history", "--updates", "2500", "--moments", "3")

    assert "## 20,000 characters, 2,500 updates, 3 random moments" in said
    assert re.search(r"packed: [1-9][\d.]* bytes an update, .* 0 rows still hot", said), said
    measured = r" [\d.]+ \| [\d.]+ \|"
    for what in MEASURES:
        assert re.search(rf"\| {what} \|{measured}", said), said
    assert re.search(r"\| Yjs, `gc: false` \| [1-9][\d.]* \|" + measured, said), said
    assert re.search(r"\| pycrdt-store, SQLite \| ([1-9][\d.]*|not installed) \|", said), said


def test_what_people_type_in_a_benchmark_is_what_yjs_would_send() -> None:
    """Byte for byte what pycrdt says of each update again, and nothing that the guard refuses."""
    doc: Doc[Any] = Doc(skip_gc=True)
    guard = Guard()
    typed = list(typed_and_deleted(4000, characters=500, seed=1))
    for each in typed:
        guard.commit(guard.check(each.update))
        assert emitted_by(doc, each.update) == each.update
    assert 400 < len(str(doc.get("content", type=Text))) < 600
    assert len(typed) == 4000 and {each.session for each in typed} == set(range(PEOPLE))
