"""One child process of the stack: started in a process group of its own, ended with all that it started.

On Linux the kernel signals each child when its parent dies, so that SIGKILL of the supervisor leaves no orphan.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from config.stack.accounts import Account

POLL_SECONDS = 0.02
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

Tick = Callable[[], None]


def no_tick() -> None:
    """The tick of a wait that nobody interrupts."""


def follow_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send `number` to this process when `parent` dies; at once if it is gone already. Linux only."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call: the signal would never come
            os.kill(os.getpid(), number)


class Child:
    """A process and its group. Not thread-safe; `stop` and `kill` may be called at any time and any number of times."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = 15.0,
        orphan_signal: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
        output: IO[bytes] | int | None = None,
        silent: bool = False,
    ) -> None:
        """Start `command`. `stop_seconds` is the time between `stop_signal` and SIGKILL. What it writes goes to
        `output`, else to our own terminal; `silent` drops its standard output and keeps standard error.

        The kernel delivers `orphan_signal` when the *thread* that started the child ends: start from one that lasts."""
        self.name = name
        self.stop_signal = stop_signal
        self.stop_seconds = stop_seconds
        parent = os.getpid()

        def prepare() -> None:
            # After the change of account, which would clear the parent-death signal (prctl(2)).
            follow_parent(orphan_signal, parent)

        self._process = subprocess.Popen(
            [str(part) for part in command],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if silent else output,
            stderr=output,
            pass_fds=pass_fds,
            process_group=0,  # a terminal's Ctrl-C reaches the supervisor alone, which ends the rest in order
            preexec_fn=prepare,
            **(account.switch if account else {}),
        )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def wait(self, seconds: float | None = None, *, tick: Tick = no_tick) -> bool:
        """Wait until it has ended; False where `seconds` pass first."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.running:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            tick()
            time.sleep(POLL_SECONDS)
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the process itself, not to its group."""
        if self.running:
            os.kill(self.pid, number)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End it in good order, and whatever is left of its group after that without ceremony."""
        self.signal(self.stop_signal)
        deadline = time.monotonic() + self.stop_seconds
        while self.running and time.monotonic() < deadline and not hurry():
            time.sleep(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the process and its whole group; returns when the process is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def runs_in(pid: int, directory: Path) -> bool:
    """Whether the process `pid` is alive and works in `directory`: a recorded pid may long be somebody else's."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(os.readlink(f"/proc/{pid}/cwd")) == directory.resolve()
        return False
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return str(directory) in shown.stdout


def working_in(directory: Path, program: str) -> list[int]:
    """The pids of all live processes of `program` that work in `directory`. Linux; elsewhere none is seen."""
    processes = Path("/proc").iterdir() if sys.platform == "linux" else ()
    return [
        int(process.name)
        for process in processes
        if process.name.isdigit() and runs_in(int(process.name), directory) and _program_of(process) == program
    ]


def _program_of(process: Path) -> str:
    try:
        # The kernel adds the word to the name of a program that was replaced meanwhile, by a fresh install.
        return Path(os.readlink(process / "exe").removesuffix(" (deleted)")).name
    except OSError:
        return ""


def end_leftover(pid: int, directory: Path, *, stop_signal: signal.Signals, seconds: float) -> None:
    """End the process that an earlier supervisor left behind in `directory`; anybody else's is left alone.

    Returns when it is gone; one that is dead and that nobody has waited for (a zombie) is gone."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):  # it may end by itself at any moment
        if runs_in(pid, directory):
            os.kill(pid, stop_signal)
        while runs_in(pid, directory):
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
