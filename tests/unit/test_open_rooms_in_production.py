"""Rooms that anyone may write to are for quick starts: a deployment must ask for them twice."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(**variables: str) -> "subprocess.CompletedProcess[str]":
    """`manage.py check` as in production, with these variables."""
    ours = ("DEBUG", "OPEN_ROOMS", "OPEN_ROOMS_IN_PRODUCTION")
    env = {key: value for key, value in os.environ.items() if key not in ours}
    env |= {"SECRET_KEY": "only for tests", "DEBUG": "false", **variables}
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_open_rooms_alone_are_refused_with_debug_off_in_one_sentence() -> None:
    done = check(OPEN_ROOMS="true")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("OPEN_ROOMS lets anyone write: with DEBUG off it also wants OPEN_ROOMS_IN_PRODUCTION")


def test_open_rooms_are_had_with_debug_off_by_asking_twice() -> None:
    done = check(OPEN_ROOMS="true", OPEN_ROOMS_IN_PRODUCTION="true")
    assert done.returncode == 0, done.stderr


def test_open_rooms_are_had_with_debug_on_by_asking_once() -> None:
    done = check(OPEN_ROOMS="true", DEBUG="true")
    assert done.returncode == 0, done.stderr
