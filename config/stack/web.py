"""N web workers behind one listening socket, which stays open while workers die and come back.

A new worker takes over without a connection being refused in between: the kernel keeps the queue.
"""

import os
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from config.stack.backoff import Backoff
from config.stack.children import Child, Tick, no_tick
from config.stack.configuration import PROJECT
from config.stack.errors import StackError, sentence_for
from documents.conf import Conf

START_SECONDS_MAX = 60.0
STOP_SECONDS_SPARE = 5.0
"""What a worker may take to end beyond DRAIN_SECONDS, and CLOSE_SECONDS for clients and again for requests."""
BACKLOG = 2048
ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}
"""glibc keeps a heap for each thread, and documents that one thread folds are freed by another: each heap keeps pages
that are nearly empty. A worker's own thread does most; two are enough. What the environment says goes first."""
# A supervisor that was killed takes its workers with it, but the kernel needs a moment to free the port.
BIND_SECONDS_MAX = 1.0


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises: StackError where the address is taken, not allowed or not ours."""
    deadline = time.monotonic() + BIND_SECONDS_MAX
    while True:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except socket.gaierror as error:
            raise StackError(f"HOST {host!r} is no address of this machine: {error.strerror}.") from None
        except PermissionError:
            raise StackError(f"Port {port} is reserved for root: set PORT to one above 1023.") from None
        except OSError as error:
            if "in use" not in str(error):
                raise StackError(f"Cannot listen on {host}:{port}: {sentence_for(error)}") from None
            if time.monotonic() >= deadline:
                raise StackError(
                    f"Port {port} on {host} is taken by another program: set PORT to a free one."
                ) from None
            time.sleep(0.05)


class WebWorkers:
    """Real worker processes on real services: `start`, `kill(index)`, `revive(index)`, `stop`; or `tend` for all.

    `env` is the whole environment of the workers; it holds DATABASE_URL, REDIS_URL and SECRET_KEY."""

    def __init__(
        self,
        env: Mapping[str, str],
        count: int = 2,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        application: str = "config.asgi:application",
        listener: socket.socket | None = None,
    ) -> None:
        """Port 0 takes a free one. `listener` is a socket that `listen` has made already."""
        self.env = {**ALLOCATOR, **env, "PYTHONUNBUFFERED": "1"}
        self.count = count
        self.application = application
        self.listener = listener or listen(host, port)
        self._workers: list[Child | None] = [None] * count
        self._backoffs = [Backoff() for _ in range(count)]

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = self.listener.getsockname()[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def pids(self) -> list[int | None]:
        """By index; None is a worker that does not run."""
        return [worker.pid if worker and worker.running else None for worker in self._workers]

    @property
    def _stop_seconds(self) -> float:
        drain, close = (
            float(self.env.get(name.upper(), getattr(Conf(), name))) for name in ("drain_seconds", "close_seconds")
        )
        return drain + 2 * close + STOP_SECONDS_SPARE

    def start(self, *, tick: Tick = no_tick) -> None:
        """Start all at once; return when each accepts connections. Raises: StackError where one ends instead."""
        started = [self._spawn(index) for index in range(self.count)]
        for worker, ready in started:
            self._wait_ready(worker, ready, tick)

    def revive(self, index: int, *, tick: Tick = no_tick) -> None:
        """Start a dead worker again and wait until it accepts connections."""
        self._wait_ready(*self._spawn(index), tick)

    def kill(self, index: int) -> None:
        """SIGKILL one worker; it stays dead until `revive` or `tend`."""
        if worker := self._workers[index]:
            worker.kill()

    def kill_all(self) -> None:
        for index in range(self.count):
            self.kill(index)

    def tend(self, say: Callable[[str], None]) -> None:
        """Start dead workers again, each after its own backoff; never waits."""
        for index, worker in enumerate(self._workers):
            if worker is not None and not worker.running:
                code = worker.exit_code
                worker.kill()  # what it may have started
                self._workers[index] = None
                delay = self._backoffs[index].ended(time.monotonic())
                say(f"Web worker {worker.pid} ended ({code}); a new one starts in {delay:.1f} s.")
            elif worker is None and self._backoffs[index].over(time.monotonic()):
                _, ready = self._spawn(index)
                os.close(ready)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all in good order and close the listening socket."""
        self.listener.close()
        workers = [worker for worker in self._workers if worker]
        for worker in workers:  # all drain at the same time
            worker.signal(worker.stop_signal)
        for worker in workers:
            worker.stop(hurry)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _spawn(self, index: int) -> tuple[Child, int]:
        """Start a worker; return it with the pipe's end that gets a byte when it is ready."""
        ready, ready_of_worker = os.pipe()
        fd = self.listener.fileno()
        command = [sys.executable, "-m", "config.server", "--fd", str(fd), "--ready-fd", str(ready_of_worker)]
        try:
            worker = Child(
                f"web worker {index + 1}",
                [*command, "--app", self.application],
                env=self.env,
                cwd=PROJECT,
                stop_seconds=self._stop_seconds,
                pass_fds=(fd, ready_of_worker),
            )
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(ready_of_worker)
        self._workers[index] = worker
        return worker, ready

    def _wait_ready(self, worker: Child, ready: int, tick: Tick) -> None:
        """Wait for the byte: an end of file without one is a worker that ended."""
        deadline = time.monotonic() + START_SECONDS_MAX
        try:
            while time.monotonic() < deadline:
                tick()
                if select.select([ready], [], [], 0.1)[0]:
                    if os.read(ready, 1):
                        return
                    raise StackError(f"The {worker.name} ended while it started: its last lines above say why.")
            raise StackError(f"The {worker.name} did not start within {START_SECONDS_MAX:.0f} seconds.")
        finally:
            os.close(ready)
