"""`make run` as a real process: it starts, answers, stops, comes back, and says in one sentence what is wrong."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config.stack.services import Postgres, Valkey, scratch_services
from realtime.queues import HOUSEKEEPING, PUSHES
from tests.integration.running_stack import (
    RunningStack,
    copy_of_project,
    free_port,
    processes_of,
    run_to_the_end,
    stack_environment,
    status_of,
    wait_for,
)


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    with copy_of_project() as copy:
        yield copy


@pytest.fixture
def data(project: Path, request: pytest.FixtureRequest) -> Path:
    return project / f"data of {request.node.name.replace('/', ' ')}"


def database_url(data: Path) -> str:
    lines = (data / "environment").read_text().splitlines()
    return next(line for line in lines if "DATABASE_URL" in line).partition("=")[2].strip("'")


def manage(project: Path, data: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "config.stack", "manage", "--", *arguments]
    env = stack_environment(DATA_DIR=str(data))
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=True).stdout


TAKEN = """
import json
from config.celery import app
taken = app.control.inspect(timeout=1).active_queues() or {}
names = {name.partition("@")[0]: sorted(queue["name"] for queue in queues) for name, queues in taken.items()}
print(json.dumps(names, sort_keys=True))
"""


def test_it_runs_from_any_folder_without_noise_and_leaves_no_process_when_it_is_told_to_stop(
    project: Path, data: Path
) -> None:
    with RunningStack(project, PORT=str(free_port()), DATA_DIR=str(data)) as stack:
        url = stack.url()
        for path, status in (("/healthz", 200), ("/login/", 200), ("/static/admin/css/base.css", 200), ("/none", 404)):
            assert status_of(f"{url}{path}") == status
        taken = json.dumps({"housekeeping": sorted(HOUSEKEEPING), "pushes": [PUSHES]})
        wait_for(
            "two workers take from their queues",
            lambda: manage(project, data, "shell", "--no-imports", "-c", TAKEN).strip() == taken,
        )
        assert stack.end(signal.SIGTERM) == 0
        assert stack.rest() == ["Stopping.\n"]
    assert not processes_of(data)


@pytest.fixture
def given_urls() -> Iterator[dict[str, str]]:
    """A database and a Valkey of somebody's own, with nothing in them."""
    with scratch_services(redis_url=os.environ.get("REDIS_URL", "")) as services:
        yield services.environment


def type_into_manage(project: Path, data: Path, *arguments: str, answers: list[str]) -> str:
    """`manage.py` at a terminal: each answer is typed once its question, a colon and a space, stands there."""
    master, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "config.stack", "manage", "--", *arguments],
        cwd=project,
        env=stack_environment(DATA_DIR=str(data)),
        preexec_fn=lambda: os.login_tty(terminal),
    ) as process:
        os.close(terminal)
        shown = ""
        with contextlib.suppress(OSError):  # how Linux says that the other side has closed
            while chunk := os.read(master, 4096).decode():
                shown += chunk
                if shown.endswith(": ") and answers:
                    os.write(master, f"{answers.pop(0)}\n".encode())
    os.close(master)
    assert process.returncode == 0, shown
    return shown


def test_on_given_urls_it_says_how_to_make_the_first_user(
    project: Path, data: Path, given_urls: dict[str, str]
) -> None:
    settings = given_urls | {"PORT": str(free_port()), "DATA_DIR": str(data), "WEB_WORKERS": "1"}
    with RunningStack(project, **settings) as stack:
        stack.line_with('^No users yet: make manage ARGS="createsuperuser"$')
        shown = type_into_manage(
            project,
            data,
            "createsuperuser",
            answers=["grace", "grace@example.org", "a long word", "a long word"],
        )
        assert "Superuser created successfully." in shown
    with RunningStack(project, **settings) as stack:
        stack.url()
        assert stack.end(signal.SIGTERM) == 0
        assert not [line for line in stack.rest() if "No users yet" in line]


def test_demo_users_are_made_on_given_urls_when_somebody_asks(
    project: Path, data: Path, given_urls: dict[str, str]
) -> None:
    """What docker-compose.yml runs: DEBUG off, no SECRET_KEY."""
    settings = given_urls | {"PORT": str(free_port()), "DATA_DIR": str(data), "WEB_WORKERS": "1", "SECRET_KEY": ""}
    with RunningStack(project, **settings, PALIMPSEST_DEMO="1", DEBUG="false") as stack:
        stack.line_with("^Demo users ")
        stack.url()
        assert (data / "secret-key").stat().st_mode & 0o777 == 0o600
        assert stack.end(signal.SIGTERM) == 0


def test_a_kill_of_the_supervisor_leaves_no_process_and_the_next_start_has_the_data(project: Path, data: Path) -> None:
    settings = {"PORT": str(free_port()), "DATA_DIR": str(data), "WEB_WORKERS": "1"}
    with RunningStack(project, **settings) as stack:
        stack.url()
        with psycopg.connect(database_url(data)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        key = (data / "secret-key").read_text()
        stack.end(signal.SIGKILL)
    with RunningStack(project, **settings) as stack:
        assert status_of(f"{stack.url()}/healthz") == 200
        with psycopg.connect(database_url(data)) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        assert (data / "secret-key").read_text() == key
        assert stack.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for("the kernel and the servers ended all that was left", lambda: not processes_of(data))
    for sockets in (Postgres(data / "postgres").sockets, Valkey(data / "valkey").sockets):
        shutil.rmtree(sockets)


def test_a_second_start_is_refused_and_dead_parts_come_back(project: Path, data: Path) -> None:
    port = str(free_port())
    with RunningStack(project, PORT=port, DATA_DIR=str(data), WEB_WORKERS="1") as stack:
        url = stack.url()
        code, output = run_to_the_end(project, PORT=str(free_port()), DATA_DIR=str(data))
        assert (code, output.count("\n")) == (1, 1)
        assert f"already runs from {data} at {url} (process {stack.pid})" in output

        before = stack.children()
        assert len(before) == 5
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        wait_for(
            "every part runs again",
            lambda: set(stack.children()) == set(before) and not set(stack.children().values()) & set(before.values()),
        )
        wait_for("it answers again", lambda: answers(f"{url}/healthz"))
        assert stack.end(signal.SIGINT) == 0
    assert not processes_of(data)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        return status_of(url) == 200
    return False


def refusal(project: Path, **settings: str) -> str:
    """The one sentence of a stack that cannot start."""
    code, output = run_to_the_end(project, **({"PORT": str(free_port())} | settings))
    assert code == 1
    assert output.count("\n") == 1, output
    return output


def test_a_taken_port_is_said_in_one_sentence(project: Path, data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} on 127.0.0.1 is taken" in refusal(project, PORT=str(port), DATA_DIR=str(data))


def test_an_unreachable_database_is_said_in_one_sentence_without_its_password(project: Path, data: Path) -> None:
    url = f"postgres://someone:password@127.0.0.1:{free_port()}/db"
    said = refusal(project, DATABASE_URL=url, REDIS_URL="redis://127.0.0.1:1", DATA_DIR=str(data))
    assert "database of DATABASE_URL cannot be reached" in said
    assert "password" not in said


def test_an_unreachable_valkey_is_said_in_one_sentence(project: Path, data: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    database = os.environ["DATABASE_URL"]
    assert "REDIS_URL cannot be reached" in refusal(project, REDIS_URL=url, DATABASE_URL=database, DATA_DIR=str(data))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPEN_ROOMS", "true"),
        ("TICKET_SECONDS", "soon"),
        ("TICKET_SECONDS", "-4"),
        ("SQUASH_SECONDS", "often"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_refused_setting_is_said_in_one_sentence_before_anything_starts(
    project: Path, data: Path, name: str, value: str
) -> None:
    said = refusal(project, **{name: value, "DEBUG": "false", "DATA_DIR": str(data)})
    assert said.startswith((name, f"PALIMPSEST['{name}']"))
    assert not data.exists()


def test_the_command_line_says_a_refused_setting_in_one_sentence(project: Path) -> None:
    env = stack_environment(SECRET_KEY="key", TICKET_SECONDS="soon")
    command = [sys.executable, "manage.py", "migrate"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "TICKET_SECONDS must be of type int, not 'soon'.\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("WEB_WORKERS", "0"),
        ("HOST", "no.such.host.invalid"),
        ("HOST", "192.0.2.1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_said_in_one_sentence(
    project: Path, data: Path, name: str, value: str
) -> None:
    assert value in refusal(project, **{name: value, "DATA_DIR": str(data)})


def test_a_disk_with_no_room_for_the_first_file_is_said_in_one_sentence(project: Path, data: Path) -> None:
    data.mkdir()
    (data / "lock").symlink_to("/dev/full")  # the kernel answers every write with ENOSPC
    assert "The disk is full" in refusal(project, DATA_DIR=str(data))


def private_file_system() -> list[str]:
    """The start of a command that may mount where nobody else sees it; empty where the machine forbids that."""
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    command = ["unshare", *own_user, "--mount"]
    tried = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return command if tried.returncode == 0 else []


def test_a_disk_that_fills_up_under_initdb_is_said_in_one_sentence(project: Path, data: Path) -> None:
    """A disk of 8 MiB; where nothing may be mounted, a limit of 8 MiB for each file."""
    data.mkdir(mode=0o755)
    env = stack_environment(DATA_DIR=str(data), PORT=str(free_port()))
    unshare = private_file_system()
    fill = 'mount -t tmpfs -o size=8m,mode=755 tmpfs "$0"' if unshare else "ulimit -f 16384"
    command = [*unshare, "sh", "-c", f'{fill} && exec "$@"', str(data), sys.executable, "-m", "config.stack", "run"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr == "The disk is full: PostgreSQL could not write its files.\n"
    assert not processes_of(data)
