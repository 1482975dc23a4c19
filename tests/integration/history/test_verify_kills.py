"""SIGKILL in the middle of `verify_history --resume`, again and again: it goes on where it was, looks at every document
once, and still tells at the end what was found before a kill."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.db import connection

from config.stack.configuration import PROJECT
from history.models import Update
from tests.builders import make_history
from tests.integration.history.waiting import DEADLINE_SECONDS, database_dsn

pytestmark = pytest.mark.django_db(transaction=True)

DOCUMENTS = 40
KILLS = int(os.environ.get("VERIFY_KILLS", "1"))
"""VERIFY_KILLS=25 kills each verification so often; most of the time goes into beginning anew."""


def lines_in(record: Path) -> int:
    return record.read_bytes().count(b"\n") if record.exists() else 0


def verify(record: Path, jobs: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", "verify_history", "--no-color", "--resume", str(record), "--jobs", str(jobs)],
        env={**os.environ, "DATABASE_URL": database_dsn(), "PGAPPNAME": record.name},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_in_the_middle(record: Path, jobs: int, *, stop: int, then_seconds: float) -> None:
    """Kill it so long after its record has `stop` lines; again, where it was over by then."""
    before = record.read_bytes() if record.exists() else b""
    while True:
        with verify(record, jobs) as killed:
            while lines_in(record) < stop and killed.poll() is None:
                time.sleep(0.001)
            time.sleep(then_seconds)
            killed.kill()
        until_nobody_reads(record.name)
        if b'"ended"' not in record.read_bytes():
            return
        record.write_bytes(before)


def until_nobody_reads(name: str) -> None:
    """Return once no backend serves a process of that verification."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name])
            if cursor.fetchone() == (0,):
                return
        time.sleep(0.01)
    raise AssertionError("a process of a verification that was killed is still there")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_verification_that_is_killed_at_any_moment_leaves_nothing_out(jobs: int, tmp_path: Path) -> None:
    rng = random.Random(jobs)
    keys = sorted(make_history(seed % 5, edits=12).key for seed in range(DOCUMENTS))
    wrong = [keys[0], keys[DOCUMENTS // 2], keys[-1]]
    Update.objects.filter(document__key__in=wrong, seq=2).delete()
    record = tmp_path / f"record-{jobs}"
    for stop in sorted(rng.sample(range(2, DOCUMENTS), KILLS)):
        kill_in_the_middle(record, jobs, stop=stop, then_seconds=rng.random() / 100)
    assert "difference" in record.read_text()
    with verify(record, jobs) as last:
        said, complained = last.communicate(timeout=2 * DEADLINE_SECONDS)
    *looked_at, end = [json.loads(line) for line in record.read_text().splitlines()][1:]
    assert end == {"ended": True}
    assert [each["document"] for each in looked_at] == [str(key) for key in keys]
    assert [each["document"] for each in looked_at if "difference" in each] == [str(key) for key in wrong]
    assert all("hash" in each or "difference" in each for each in looked_at)
    assert said.count("seq 2: the row is missing") == len(wrong)
    assert (last.returncode, complained.splitlines()[-1]) == (1, f"CommandError: 3 of {DOCUMENTS} documents differ")
