"""The foreign project of `tests/host_project`, running: its own database, its own namespace in Valkey, its web
processes on a plain uvicorn, its Celery worker. Everything goes when the context ends."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from realtime.queues import QUEUES
from tests.integration.running_stack import free_port

HOST_PROJECT = Path(__file__).resolve().parent.parent / "host_project"
DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.02

PLAIN = ("--ws", "websockets")
"""uvicorn as a project runs it that never heard of our protocol class, compression and all."""
FASTER = (
    "--ws",
    "realtime.uvicorn_protocol:SharedFrameProtocol",
    "--ws-per-message-deflate",
    "false",
    "--http",
    "realtime.uvicorn_http:PunctualHttpProtocol",
)
"""What docs/your-own-project.md advises."""


class Host:
    """The running project. `ports` are those of its web processes; `database` reads its tables, autocommitting."""

    def __init__(self, folder: Path, *, database_url: str, redis_url: str) -> None:
        self.folder = folder
        self.namespace = f"newsroom-{secrets.token_hex(4)}"
        self.ports = [free_port(), free_port()]
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE")
        } | {
            "NEWSROOM_DATABASE_URL": database_url,
            "NEWSROOM_REDIS_URL": redis_url,
            "NEWSROOM_NAMESPACE": self.namespace,
            "PYTHONPATH": str(HOST_PROJECT.parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.database: psycopg.Connection[Any] = psycopg.connect(database_url, autocommit=True)
        self._redis_url = redis_url
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def manage(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the host's manage.py to its end; the caller looks at the exit code."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=HOST_PROJECT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def start_worker(self) -> None:
        """One worker for the host's own queue and all of ours."""
        queues = ",".join((self.namespace, *QUEUES))
        command = ("-m", "celery", "-A", "newsroom", "worker", "--pool", "solo", "--loglevel", "INFO", "-Q", queues)
        self._start("worker", *command)

    def start_web(self, place: int, arguments: tuple[str, ...] = PLAIN) -> None:
        """Start one web process without waiting for it."""
        port = str(self.ports[place])
        self._start(f"web{place}", "-m", "uvicorn", "newsroom.asgi:application", "--port", port, *arguments)

    def wait_until_served(self, place: int) -> None:
        process = self._processes[f"web{place}"]
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < deadline, self.log(f"web{place}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url(place)}/paper/healthz", timeout=DEADLINE_SECONDS).close()
                return
            time.sleep(POLL_SECONDS)

    def end_web(self, place: int, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to one web process and wait for its end; return its exit code."""
        process = self._processes.pop(f"web{place}")
        process.send_signal(number)
        return process.wait(DEADLINE_SECONDS)

    def url(self, place: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[place]}"

    def socket_url(self, place: int = 0, door: str = "paper/ws") -> str:
        """What a stock provider is given as its server; the room follows."""
        return f"ws://127.0.0.1:{self.ports[place]}/live/{door}"

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.database.execute(query, parameters).fetchall()

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}\n{self.log('web0')}\n{self.log('worker')}"
            time.sleep(POLL_SECONDS)

    def log(self, name: str) -> str:
        return f"{name}:\n{(self.folder / name).read_text()[-6000:]}"

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        self.database.close()
        with redis.Redis.from_url(self._redis_url) as client:
            for key in client.scan_iter(f"*{self.namespace}*"):
                client.delete(key)

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *arguments], cwd=HOST_PROJECT, env=self.environment, stdout=log, stderr=log
            )


@contextlib.contextmanager
def running_host(folder: Path, *articles: str) -> Iterator[Host]:
    """The host on an empty database of its own, beside the one of DATABASE_URL, with those articles."""
    server = os.environ["DATABASE_URL"]
    name = f"newsroom_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        host = None
        try:
            host = Host(
                folder,
                database_url=urlunsplit(urlsplit(server)._replace(path=f"/{name}")),
                redis_url=os.environ["REDIS_URL"],
            )
            for command in (("migrate", "--verbosity", "0"), ("open_the_paper", *articles)):
                done = host.manage(*command)
                assert done.returncode == 0, done.stderr
            host.start_web(0)
            host.start_web(1)
            host.start_worker()
            host.wait_until_served(0)
            host.wait_until_served(1)
            yield host
        finally:
            if host is not None:
                host.stop()
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class Browser:
    """A person's browser, without JavaScript; signed in through the host's own door."""

    def __init__(self, host: Host, email: str = "") -> None:
        self.host = host
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))
        if email:
            self.get("/desk/enter/")
            status, _, _ = self.post("/desk/enter/", username=email, password="secret")
            assert status == 200

    def get(self, path: str) -> tuple[int, str, str]:
        """Status, final address and text."""
        return self._open(urllib.request.Request(self.host.url() + path))

    def post(self, path: str, data: bytes | None = None, /, **fields: str) -> tuple[int, str, str]:
        token = next((cookie.value for cookie in self._cookies if cookie.name == "csrftoken"), None) or ""
        body = urllib.parse.urlencode(fields).encode() if data is None else data
        return self._open(
            urllib.request.Request(self.host.url() + path, data=body, headers={"X-CSRFToken": token}, method="POST")
        )

    def links(self, path: str) -> list[str]:
        return re.findall(r'(?:href|src|action)="([^"]+)"', self.get(path)[2])

    def _open(self, request: urllib.request.Request) -> tuple[int, str, str]:
        try:
            with self._opener.open(request, timeout=DEADLINE_SECONDS) as answer:
                return answer.status, answer.url, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.url, error.read().decode(errors="replace")
