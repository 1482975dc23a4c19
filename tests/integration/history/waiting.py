"""Waiting for what another connection does, by asking Postgres, with a deadline."""

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from django.db import connection, transaction

DEADLINE_SECONDS = 30


def backend_waiting_for_a_lock(*, other_than: int = 0) -> int:
    """The process id of a backend of this database that waits for a lock."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> %s",
                [other_than],
            )
            found = cursor.fetchone()
        if found is not None:
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError("no backend waits for a lock")


def until_gone(pid: int) -> None:
    """Return when that backend is no more."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
            if cursor.fetchone() is None:
                return
        time.sleep(0.01)
    raise AssertionError(f"backend {pid} is still there")


def kill_where_it_first_writes(program: str, argument: object, *, table: str) -> None:
    """Run a Python program in a process of its own and SIGKILL it when it first writes to `table`; return once the
    database has let go of it."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")  # reads pass, the next write does not
        with subprocess.Popen(
            [sys.executable, "-c", program, str(argument)],
            env={**os.environ, "DATABASE_URL": database_dsn(), "DJANGO_SETTINGS_MODULE": "config.settings"},
            cwd=Path(__file__).resolve().parents[3],
        ) as process:
            try:
                backend = backend_waiting_for_a_lock()
            finally:
                process.kill()
    until_gone(backend)


def database_dsn() -> str:
    """The test database as a URL, for connections and processes of one's own."""
    at = connection.settings_dict
    user, password, host = (quote(at[part] or "", safe="") for part in ("USER", "PASSWORD", "HOST"))
    password = f":{password}" if password else ""
    port = f":{at['PORT']}" if at["PORT"] else ""
    return f"postgres://{user}{password}@{host}{port}/{at['NAME']}"
