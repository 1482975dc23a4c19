"""The embedded PostgreSQL and Valkey: real data on a real disk, through every kind of end."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from config.stack.accounts import scratch_folder
from config.stack.children import working_in
from config.stack.errors import StackError
from config.stack.services import Postgres, Valkey, scratch_services
from tests.integration.running_stack import processes_of, wait_for


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch_folder() as scratch:
        place = scratch / "data dir é"
        place.mkdir()
        yield place


def value_in(postgres: Postgres) -> int:
    with psycopg.connect(postgres.url) as connection:
        row = connection.execute("SELECT number FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def keep_value(postgres: Postgres, number: int) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT %s::int AS number", [number])


def postgres_in(folder: Path) -> Postgres:
    return Postgres(folder / "postgres", syncs=False)


@pytest.mark.parametrize("syncs", [True, False])
def test_a_killed_postgres_has_what_was_committed(folder: Path, syncs: bool) -> None:
    with Postgres(folder / "postgres", syncs=syncs) as postgres:
        url = postgres.url
        keep_value(postgres, 7)
        postgres.kill()
        assert not postgres.running
        postgres.start()
        assert value_in(postgres) == 7
        assert postgres.url == url


def test_a_stopped_postgres_leaves_no_process_and_no_socket_folder(folder: Path) -> None:
    with postgres_in(folder) as postgres:
        sockets = postgres.sockets
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert processes_of(folder)
    assert not processes_of(folder)
    assert not sockets.exists()


def test_postgres_syncs_and_listens_on_its_socket_alone(folder: Path) -> None:
    with Postgres(folder / "postgres") as postgres, psycopg.connect(postgres.url) as connection:
        shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "listen_addresses")}
        assert shown == {"fsync": ("on",), "listen_addresses": ("",)}
        version = connection.info.server_version
    assert version // 10000 == 18


def test_a_postgres_that_an_earlier_supervisor_left_is_ended_first(folder: Path) -> None:
    left = postgres_in(folder)
    left.start()
    keep_value(left, 9)
    with postgres_in(folder) as postgres:
        assert postgres.pid != left.pid
        assert not left.running
        assert value_in(postgres) == 9


@pytest.fixture
def killed(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL that was killed: its lock files are still there."""
    postgres = postgres_in(folder)
    with postgres:
        keep_value(postgres, 7)
        postgres.kill()
        yield postgres


def lock_files(postgres: Postgres) -> list[Path]:
    return [postgres.cluster / "postmaster.pid", postgres.sockets / ".s.PGSQL.5432.lock"]


@pytest.fixture(params=[None, -signal.SIGKILL], ids=["lives", "is dead and nobody has waited for it"])
def stranger(request: pytest.FixtureRequest, killed: Postgres) -> Iterator["subprocess.Popen[bytes]"]:
    """Somebody else's process of the server's account."""
    with subprocess.Popen(["sleep", "600"], **killed.account.switch) as process:
        if request.param:
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process
        assert process.poll() == request.param
        process.kill()


@pytest.mark.parametrize("recorded_in", [(0, 1), (0,), (1,)])
def test_a_recorded_pid_that_is_somebody_elses_by_now_is_left_alone(
    killed: Postgres, stranger: "subprocess.Popen[bytes]", recorded_in: tuple[int, ...]
) -> None:
    for number, path in enumerate(lock_files(killed)):
        _, *rest = path.read_text().splitlines(keepends=True)
        if number in recorded_in:
            path.write_text("".join([f"{stranger.pid}\n", *rest]))
        else:
            path.unlink()
    killed.start()
    assert value_in(killed) == 7


def test_a_backend_that_outlives_its_killed_postmaster_is_ended_first(folder: Path) -> None:
    with postgres_in(folder) as postgres:
        keep_value(postgres, 7)
        with psycopg.connect(postgres.url) as connection:
            backend = connection.info.backend_pid
            os.kill(backend, signal.SIGSTOP)  # it cannot notice
            os.kill(postgres.pid, signal.SIGKILL)
            wait_for("the postmaster is dead", lambda: not postgres.running)
            assert backend in working_in(postgres.cluster, "postgres")
            postgres.start()
            assert backend not in working_in(postgres.cluster, "postgres")
            assert value_in(postgres) == 7


def test_a_cluster_that_was_left_half_made_is_made_anew(folder: Path) -> None:
    postgres = postgres_in(folder)
    postgres.account.make_folder(postgres.directory)
    half = postgres.directory / "cluster.partial"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with postgres:
        keep_value(postgres, 1)


def test_a_cluster_of_another_major_version_is_refused_in_one_sentence(folder: Path) -> None:
    postgres = postgres_in(folder)
    postgres.account.make_folder(postgres.directory)
    postgres.cluster.mkdir()
    (postgres.cluster / "PG_VERSION").write_text("16\n")
    with pytest.raises(StackError, match="was made by PostgreSQL 16"):
        postgres.start()


def test_the_modes_and_owners_of_folders_above_the_data_stay(folder: Path) -> None:
    before = [(parent.stat().st_mode, parent.stat().st_uid) for parent in (folder, *folder.parents)]
    with postgres_in(folder):
        after = [(parent.stat().st_mode, parent.stat().st_uid) for parent in (folder, *folder.parents)]
    assert after == before


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_queued_task_outlives_the_end_of_valkey(folder: Path, end: signal.Signals) -> None:
    with Valkey(folder / "valkey") as valkey, redis.Redis.from_url(valkey.url) as client:
        client.rpush("celery", "task")
        if end == signal.SIGKILL:
            valkey.kill()
        else:
            valkey.stop()
        valkey.start()
        assert client.lrange("celery", 0, -1) == [b"task"]


def test_given_urls_start_no_server() -> None:
    with scratch_services("postgres://elsewhere/db", "redis://elsewhere") as services:
        assert services.environment == {"DATABASE_URL": "postgres://elsewhere/db", "REDIS_URL": "redis://elsewhere"}
        assert services.postgres is None
        assert services.valkey is None
