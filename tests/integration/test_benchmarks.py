"""The benchmarks run to their end and say what they measured; how fast it is here is nobody's test."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from config.stack.configuration import PROJECT, base_environment
from tests.conftest import Ground

TEN_EDITS = [*([place, 0, letter] for place, letter in enumerate("hello wor")), [5, 1, "\n"]]
DEADLINE_SECONDS = 90


def bench(ground: Ground, *arguments: str) -> str:
    """What `make bench ARGS="…"` writes, on our services."""
    env = {
        **{key: value for key, value in base_environment().items() if key != "DJANGO_SETTINGS_MODULE"},
        "DATABASE_URL": ground.database.url,
        "REDIS_URL": ground.redis_url,
        "SECRET_KEY": settings.SECRET_KEY,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
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
