"""The real stack on breakable ground: servers of its own, cuttable lines to them, a small disk, a clock that steps.

Everything is ended and removed on exit. Processes are started from the event loop's thread, which lasts."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from urllib.parse import quote

import psycopg

from config.stack.accounts import scratch_folder
from config.stack.children import working_in
from config.stack.services import POSTGRES_PORT, SERVER_ENVIRONMENT, USER, Postgres, Valkey
from tests.clients.celery_worker import CeleryWorker
from tests.clients.stack import Database, Stack, Unblocking, migrated_database
from tests.faults.line import Line

WORKERS = 2
DISK_BYTES = 256 * 1024 * 1024
FELT_SECONDS_MAX = 20.0
STEP_SECONDS_MAX = 60.0
"""How near a stepped clock must be to where it was sent."""
FAILED_PUSH = re.compile(r"push_document_update\[.*\] raised unexpected")
FULL = "No space left on device"
SLEEP_ON_COMMIT = """
CREATE TABLE faults_slowness (seconds float8 NOT NULL);
INSERT INTO faults_slowness VALUES (0);
CREATE FUNCTION faults_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('faults.slept', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('faults.slept', pg_current_xact_id()::text, false), pg_sleep(seconds)
        FROM faults_slowness WHERE seconds > 0;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER faults_slow AFTER INSERT ON history_update DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION faults_slow();
"""
"""Made while nobody writes: a trigger that comes and goes would lock the table, which is a fault of another kind."""
LOSS = {"FAULTS_DROP": "0.05", "FAULTS_REPEAT": "0.05", "FAULTS_DELAY": "0.1"}


class SteppedPostgres(Postgres):
    """PostgreSQL under libfaketime (Debian's package of that name), which reads from a file how far the clock is off.

    Where the library is missing, the clock is the machine's and `can_step` is false."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, shared_buffers="32MB")
        found = [os.environ.get("LIBFAKETIME", ""), *glob("/usr/lib/*/faketime/libfaketime.so.1")]
        self._library = next((path for path in found if path and Path(path).exists()), None)
        self._offset = directory.parent / "clock"
        self.step(0)
        if self._library is not None:
            self.environment = {
                **SERVER_ENVIRONMENT,
                "LD_PRELOAD": self._library,
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1",
            }

    @property
    def can_step(self) -> bool:
        return self._library is not None

    def step(self, seconds: int) -> None:
        """Let the clock be so many seconds off, within a second from now on."""
        partial = self._offset.with_suffix(".partial")
        partial.write_text(f"{seconds:+d}s\n")
        partial.chmod(0o644)
        partial.replace(self._offset)

    def kill_all(self) -> None:
        """SIGKILL to the postmaster and each of its children, which have process groups of their own."""
        for pid in working_in(self.cluster, "postgres"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill()

    @property
    def log_bytes(self) -> int:
        return (self.directory / "log").stat().st_size

    def logged_since(self, place: int) -> str:
        with (self.directory / "log").open("rb") as log:
            log.seek(place)
            return log.read().decode(errors="replace")


class SmallDisk:
    """A filesystem of its own (tmpfs), small enough to be filled; wants the right to mount, as root mostly has.

    The rows of the log lie on it, in a tablespace; the write-ahead log does not: without it PostgreSQL ends itself."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        account = postgres.account
        folder.mkdir(mode=0o755)
        options = f"size={DISK_BYTES},mode=0700,uid={account.uid},gid={account.gid}"
        command = ["mount", "-t", "tmpfs", "-o", options, "faults", str(folder)]
        self.is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self._folder = folder
        self._fill = folder / "fill"

    def hold_rows_of(self, database: Database) -> None:
        """Move the table of rows and its index here, while nothing else uses them."""
        with database.connect() as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{self._folder}'")
            connection.execute("ALTER TABLE history_update SET TABLESPACE small")
            connection.execute("ALTER INDEX history_update_pkey SET TABLESPACE small")

    def fill(self) -> None:
        with self._fill.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
                file.flush()

    def free(self) -> None:
        self._fill.unlink(missing_ok=True)

    def unmount(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)


@dataclass(slots=True)
class FaultyGround:
    """What a run breaks and mends. `lines` by server: the workers reach them through these alone."""

    folder: Path
    postgres: SteppedPostgres
    valkey: Valkey
    disk: SmallDisk
    database: Database
    to_postgres: Line
    to_valkey: Line
    stack: Stack
    celery: CeleryWorker

    def replace_dead_workers(self) -> None:
        """Start those again that are dead and do not wait for them: the supervisor does the same, after a pause."""
        for index, pid in enumerate(self.stack.workers.pids):
            if pid is None:
                _, ready = self.stack.workers._spawn(index)
                os.close(ready)

    def start_celery(self) -> None:
        self.celery = CeleryWorker(self.stack, self.folder / "celery.log")

    def failed_pushes(self) -> list[str]:
        """Pushes that ended in an error that is not tried again, in Celery's words."""
        return [line for line in self.celery.log.splitlines() if FAILED_PUSH.search(line)]

    def slow_commits(self, *, slow: bool) -> None:
        """Put a wait of 500 ms before each COMMIT that stores rows, or take it away."""
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            connection.execute("UPDATE faults_slowness SET seconds = %s", [0.5 if slow else 0])

    def fill_disk(self) -> None:
        """Return when PostgreSQL has said that the disk is full. Raises: TimeoutError."""
        begin = self.postgres.log_bytes
        self.disk.fill()
        _until("the full disk is felt", lambda: FULL in self.postgres.logged_since(begin))

    def step_clock(self, seconds: int) -> None:
        """Return when the database's clock is so many seconds off. Raises: TimeoutError."""
        self.postgres.step(seconds)
        with psycopg.connect(self.database.url, autocommit=True) as connection:

            def is_off() -> bool:
                (now,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone() or (0.0,)
                return abs(float(now) - time.time() - seconds) < STEP_SECONDS_MAX

            _until("the clock has been stepped", is_off)


def _until(what: str, probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + FELT_SECONDS_MAX
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {FELT_SECONDS_MAX} s in vain until {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def faulty_ground(
    blocker: Unblocking, *, seed: int, application: str = "config.asgi:application", **environment: str
) -> Iterator[FaultyGround]:
    """Start everything; two web workers, as `make run` has."""
    with ExitStack() as exits:
        folder = exits.enter_context(scratch_folder())
        postgres = exits.enter_context(SteppedPostgres(folder / "postgres"))
        valkey = exits.enter_context(Valkey(folder / "valkey"))
        to_postgres = exits.enter_context(
            Line(lambda: postgres.sockets / f".s.PGSQL.{POSTGRES_PORT}", f".s.PGSQL.{POSTGRES_PORT}")
        )
        to_valkey = exits.enter_context(Line(lambda: valkey.sockets / "valkey.sock", "valkey.sock"))
        disk = SmallDisk(folder / "disk", postgres)
        exits.callback(disk.unmount)
        database = exits.enter_context(migrated_database(postgres.url, blocker))
        if disk.is_mounted:
            disk.hold_rows_of(database)
        with database.connect() as connection:
            connection.execute(SLEEP_ON_COMMIT)
        address = f"{quote(str(to_postgres.folder), safe='')}:{POSTGRES_PORT}"
        given = {
            "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
            "DATABASE_URL": f"postgres://{USER}@{address}/{database.name}",
            "LOG_LEVEL": "ERROR",
            "FAULTS_SEED": str(seed),
            # Upkeep runs into the faults too.
            "SQUASH_AFTER_SECONDS": "5",
            "SEGMENT_ROWS_MIN": "300",
            "SEGMENT_ROWS_MAX": "600",
            "SNAPSHOT_ROWS": "500",
        }
        url = f"unix://{to_valkey.path}?db=0"
        stack = Stack(database=database, redis_url=url, count=WORKERS, application=application, **(given | environment))
        exits.enter_context(stack)
        celery = CeleryWorker(stack, folder / "celery.log")
        ground = FaultyGround(
            folder=folder,
            postgres=postgres,
            valkey=valkey,
            disk=disk,
            database=database,
            to_postgres=to_postgres,
            to_valkey=to_valkey,
            stack=stack,
            celery=celery,
        )
        exits.callback(lambda: ground.celery.stop())
        yield ground
