"""`config/bootstrap.py`: from a bare Python to a filled environment, once, and one sentence where that cannot be."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.stack.accounts import scratch_folder

BOOTSTRAP = Path(__file__).resolve().parent.parent.parent / "config" / "bootstrap.py"


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A project with no requirements at all, in an awkward folder: nothing is fetched."""
    with scratch_folder() as folder:
        copy = folder / "Bob's café дом"
        (copy / "config").mkdir(parents=True)
        shutil.copy(BOOTSTRAP, copy / "config")
        (copy / "requirements.txt").write_text("# none\n")
        (copy / "requirements-dev.txt").write_text("# none\n")
        yield copy


def start(project: Path, *arguments: str, target: str = "run", **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "config/bootstrap.py", target, *arguments]
    return subprocess.run(command, cwd=project, env=os.environ | env, capture_output=True, text=True, check=False)


def prefix_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


SHOW = ("-c", "import sys; print(sys.prefix)")


def test_it_fills_an_environment_once_and_becomes_its_python(project: Path) -> None:
    first = start(project, *SHOW)
    assert prefix_of(first) == str(project / ".venv")
    assert "Installing requirements.txt" in first.stdout
    second = start(project, *SHOW)
    assert second.stdout == f"{project / '.venv'}\n"


def test_a_changed_pin_is_installed_at_the_next_start(project: Path) -> None:
    start(project, *SHOW)
    (project / "requirements.txt").write_text("# none any more\n")
    assert "Installing requirements.txt" in start(project, *SHOW).stdout


def test_what_tests_need_serves_the_server_too(project: Path) -> None:
    assert "Installing requirements-dev.txt" in start(project, *SHOW, target="dev").stdout
    assert "Installing" not in start(project, *SHOW).stdout


@pytest.mark.parametrize("damage", ["killed in the middle of pip", "its Python is gone"])
def test_a_broken_environment_is_made_anew(project: Path, damage: str) -> None:
    start(project, *SHOW)
    leftover = project / ".venv" / "leftover"
    leftover.touch()
    if damage == "its Python is gone":
        (project / ".venv" / "bin" / "python").unlink()
    else:
        (project / ".venv" / "unfinished").touch()
    assert prefix_of(start(project, *SHOW)) == str(project / ".venv")
    assert not leftover.exists()


def test_a_pin_that_cannot_be_had_is_said_in_one_sentence_and_tried_again(project: Path) -> None:
    start(project, *SHOW)
    (project / "requirements.txt").write_text("./no-such-folder\n")
    failed = start(project, *SHOW)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Installing the requirements failed: ERROR")
    assert failed.stderr.count("\n") == 1
    (project / "requirements.txt").write_text("# none\n")
    assert "Installing requirements.txt" in start(project, *SHOW).stdout


def test_an_old_python_can_read_the_file_and_says_that_it_is_too_old(project: Path) -> None:
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 6))
    old = "import sys, runpy; sys.version_info = (3, 9, 2); sys.argv = ['bootstrap.py', 'run', '-c', '']; "
    old += "runpy.run_path('config/bootstrap.py', run_name='__main__')"
    env = {"PATH": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", old], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Palimpsest needs Python 3.11, 3.12 or 3.13, but ")
    assert " is 3.9: " in done.stderr
    assert done.stderr.count("\n") == 1
