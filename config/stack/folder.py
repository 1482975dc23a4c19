"""The data folder of one stack (DATA_DIR): its lock, its secret key, and how others reach what runs from it.

One supervisor at a time holds the lock. The kernel frees it when that process dies, however it dies.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from config.stack.children import POLL_SECONDS
from config.stack.errors import StackError

STOPPING_SECONDS_MAX = 60.0


class DataFolder:
    """`path` is made where it is missing, open for others to pass through: each file and folder in it is private."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError):
            raise StackError(
                f"DATA_DIR {str(path)!r} cannot be a folder: set it to one, or to where one can be made."
            ) from None
        self._lock = path / "lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder. One that is being left (the earlier start stops) is waited for.

        Raises: StackError where another supervisor runs from it."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + STOPPING_SECONDS_MAX
            while not _try_lock(descriptor):
                holder = _read(descriptor)
                if holder.get("state") != "stopping" or time.monotonic() > deadline:
                    where = f" at {holder['url']}" if holder.get("url") else ""
                    pid = holder.get("pid", "unknown")
                    raise StackError(
                        f"Palimpsest already runs from {self.path}{where} (process {pid}): stop that one first."
                    )
                time.sleep(POLL_SECONDS)
            self._descriptor = descriptor
            self.note(state="starting")
            yield
            os.truncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def note(self, **state: str) -> None:
        """Tell a second start what this one is doing. The lock must be held."""
        text = json.dumps({"pid": os.getpid(), **state}).encode()
        os.pwrite(self._descriptor, text, 0)  # a full disk is noticed here, before anything starts
        os.truncate(self._descriptor, len(text))

    def secret_key(self) -> str:
        """The key that this folder's stack signs with: made once, kept, readable by its owner alone."""
        path = self.path / "secret-key"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(50))
        return path.read_text().strip()

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Leave what `manage.py` needs to reach the running stack, as lines that a shell can source."""
        lines = [f"export {key}={shlex.quote(value)}\n" for key, value in environment.items()]
        _write_private(self.path / "environment", "".join(lines))

    def read_environment(self) -> dict[str, str]:
        """What `write_environment` left. Raises: StackError where no stack has run from this folder."""
        try:
            words = shlex.split((self.path / "environment").read_text())
        except FileNotFoundError:
            raise StackError(f"No stack runs from {self.path}: start it with `make run` first.") from None
        return dict(word.split("=", 1) for word in words if word != "export")

    def forget_environment(self) -> None:
        (self.path / "environment").unlink(missing_ok=True)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> dict[str, str]:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # the holder is about to write, is writing, or has just let go
        return {"state": "stopping"}
    return {key: str(value) for key, value in content.items()}


def _write_private(path: Path, text: str) -> None:
    """Write whole or not at all, readable by the owner alone."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
