"""Builders for the stack's tests: a copy of this project in an awkward folder, and `config.stack` run from it."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue

from config.stack.accounts import scratch_folder

PROJECT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("config", "documents", "history", "realtime", "manage.py", "requirements.txt", "Makefile")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
DEADLINE_SECONDS = 60.0


@contextlib.contextmanager
def copy_of_project() -> Iterator[Path]:
    """This project, copied to a folder whose path has spaces, an apostrophe and letters beyond ASCII."""
    with scratch_folder() as folder:
        copy = folder / "Bob's café дом"
        copy.mkdir()
        for name in SOURCES:
            source = PROJECT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=NOT_SOURCES)
            else:
                shutil.copy(source, copy / name)
        yield copy


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def stack_environment(**settings: str) -> dict[str, str]:
    """The environment of a person's terminal: nothing that `make test` has set for us."""
    ours = (
        "DATABASE_URL",
        "REDIS_URL",
        "SECRET_KEY",
        "DATA_DIR",
        "DJANGO_SETTINGS_MODULE",
        "MAKELEVEL",
        "PORT",
        "HOST",
    )
    return {key: value for key, value in os.environ.items() if key not in ours} | settings


class RunningStack:
    """`python -m config.stack run` in `folder`, with each line that it writes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "config.stack", "run"],
            cwd=folder,
            env=stack_environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        self._queue: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(line)

    def line_with(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which `pattern` is found."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                line = self._queue.get(timeout=0.1)
            except Empty:
                if self._process.poll() is not None and not self._reader.is_alive():
                    break
                continue
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no line with {pattern!r} in:\n{''.join(self.lines)}")

    def rest(self) -> list[str]:
        """The lines that nobody has waited for yet."""
        return [self._queue.get() for _ in range(self._queue.qsize())]

    def url(self) -> str:
        return self.line_with(r"ready at (http://\S+)")[1]

    def children(self) -> dict[str, int]:
        """The supervisor's own children: the first words that tell them apart, and their pids (Linux)."""
        words = ("config.server", "worker --concurrency", "beat", "postgres", "valkey-server")
        pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids}
        return {word: pid for pid, command in commands.items() for word in words if f"{word} " in command}

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the supervisor alone; return its exit code."""
        self._process.send_signal(number)
        code = self._process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        return code

    def __enter__(self) -> "RunningStack":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end(signal.SIGTERM)
        self._reader.join(DEADLINE_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


def run_to_the_end(folder: Path, **settings: str) -> tuple[int, str]:
    """Run a stack that cannot start; return its exit code and all that it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "config.stack", "run"],
        cwd=folder,
        env=stack_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def processes_of(folder: Path) -> list[str]:
    """Each living process that works in `folder` or was told of it, as pid and command line (Linux)."""
    needle = os.fsencode(folder)
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            at = os.fsencode(os.readlink(process / "cwd"))
            if at.startswith(needle) or needle in (process / "environ").read_bytes():
                found.append(f"{process.name} {(process / 'cmdline').read_bytes().decode(errors='replace')}")
    return found


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)
