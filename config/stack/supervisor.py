"""The whole stack under one process: services, schema, demo data, web workers, Celery; stopped in reverse order.

Signals only set a flag, which every wait looks at: nothing is interrupted half-way through starting a child.
"""

import contextlib
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

from config.stack.accounts import services_folder
from config.stack.backoff import Backoff
from config.stack.children import Child
from config.stack.configuration import (
    PROJECT,
    Configuration,
    base_environment,
    check_database,
    check_redis,
    check_settings,
    has_users,
)
from config.stack.errors import StackError, Stopped
from config.stack.folder import DataFolder
from config.stack.services import Postgres, Service, Valkey
from config.stack.web import WebWorkers, listen
from realtime.queues import HOUSEKEEPING, PUSHES

WATCH_SECONDS = 0.1
HEALTHY_SECONDS_MAX = 30.0
TASK_SECONDS_MAX = 10.0  # a task that is cut off is delivered again: acks_late
SAME_REQUEST_SECONDS = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


class StopRequest:
    """What the signals have asked for: stop; and with a Ctrl-C after a while, now.

    One request may come twice at the same moment: a terminal, `make` and `timeout` each pass signals on."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self._hurry = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
        elif number == signal.SIGINT and now - self.asked_at > SAME_REQUEST_SECONDS:
            self._hurry = True

    @property
    def asked(self) -> bool:
        return self.asked_at is not None

    def tick(self) -> None:
        """For the waits of the start. Raises: Stopped."""
        if self.asked:
            raise Stopped

    def hurry(self) -> bool:
        return self._hurry


class Kept:
    """A child that is started again when it ends, after a growing delay."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._backoff = Backoff()
        self.child: Child | None = start()

    def tend(self) -> None:
        now = time.monotonic()
        if self.child is None:
            if self._backoff.over(now):
                self.child = self._start()
        elif not self.child.running:
            self.child.kill()
            delay = self._backoff.ended(now)
            say(f"The {self.child.name} ended ({self.child.exit_code}); it starts again in {delay:.1f} s.")
            self.child = None

    def stop(self, hurry: Callable[[], bool]) -> None:
        if self.child is not None:
            self.child.stop(hurry)


class Supervisor:
    """`run` returns when it was asked to stop and nothing of the stack is left."""

    def __init__(self, configuration: Configuration, *, celery: bool = True) -> None:
        self.configuration = configuration
        self.celery = celery
        self.request = StopRequest()
        self.env = base_environment()
        self._services: list[tuple[Service, Backoff]] = []
        self._kept: list[Kept] = []

    def run(self) -> None:
        """Start all, watch, stop all. Raises: StackError where the start fails; all that ran is stopped by then."""
        for number in STOP_SIGNALS:
            signal.signal(number, self.request)
        check_settings(self.env)
        folder = DataFolder(self.configuration.data_dir)
        with contextlib.suppress(Stopped), folder.locked(), contextlib.ExitStack() as stack:
            try:
                self._start_and_watch(folder, stack)
            finally:  # a start in the same folder that comes from now on waits instead of refusing
                folder.note(state="stopping")

    def _start_and_watch(self, folder: DataFolder, stack: contextlib.ExitStack) -> None:
        """Start in order, leaving on `stack` how to stop; the address first, because it is the likeliest to fail."""
        listener = stack.enter_context(listen(self.configuration.host, self.configuration.port))
        self._start_services(folder, stack)
        stack.callback(folder.forget_environment)
        self._prepare()
        web = WebWorkers(self.env, self.configuration.web_workers, listener=listener)
        stack.callback(self._stop_kept)
        stack.callback(web.stop, self.request.hurry)
        web.start(tick=self.request.tick)
        self._start_celery()
        self._wait_healthy(web)
        folder.note(state="running", url=web.url)
        say(f"Palimpsest is ready at {web.url}  (Ctrl-C stops it)")
        if not has_users(self.env["DATABASE_URL"]):
            say('No users yet: make manage ARGS="createsuperuser"')
        self._watch(web)

    def _start_services(self, folder: DataFolder, stack: contextlib.ExitStack) -> None:
        configuration = self.configuration
        self.env |= {
            "DATA_DIR": str(folder.path),
            "SECRET_KEY": os.environ.get("SECRET_KEY") or folder.secret_key(),
            "DATABASE_URL": configuration.database_url,
            "REDIS_URL": configuration.redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        if configuration.database_url:
            check_database(configuration.database_url)
        if configuration.redis_url:
            check_redis(configuration.redis_url)
        if not (configuration.database_url and configuration.redis_url):
            place = services_folder(folder.path)
            if place != folder.path:
                say(f"The servers' account cannot reach {folder.path}: their data is in {place}.")
            if not configuration.database_url:
                self.env["DATABASE_URL"] = self._start_service(Postgres(place / "postgres"), stack)
            if not configuration.redis_url:
                self.env["REDIS_URL"] = self._start_service(Valkey(place / "valkey"), stack)
        folder.write_environment(
            {key: self.env[key] for key in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DATA_DIR")}
        )

    def _start_service(self, service: Service, stack: contextlib.ExitStack) -> str:
        stack.callback(service.stop)
        service.start(tick=self.request.tick)
        self._services.append((service, Backoff()))
        return service.url

    def _prepare(self) -> None:
        """Bring the schema up to date, and make the demo's users and document once."""
        self._manage("migrate", "--noinput", "--verbosity", "0")
        if self.configuration.demo:
            self._manage("demo", PALIMPSEST_DEMO="1")

    def _manage(self, *arguments: str, **settings: str) -> None:
        step = Child(
            f"`manage.py {arguments[0]}`",
            [sys.executable, "manage.py", *arguments],
            env=self.env | settings,
            cwd=PROJECT,
        )
        try:
            step.wait(tick=self.request.tick)
        finally:
            step.stop()
        if step.exit_code:
            raise StackError(f"{step.name} failed: its last lines above say why.")

    def _start_celery(self) -> None:
        if self.celery:
            self._kept.append(Kept(partial(self._celery_worker, "pushes", PUSHES)))
            self._kept.append(Kept(partial(self._celery_worker, "housekeeping", *HOUSEKEEPING)))
            self._kept.append(Kept(self._celery_beat))

    def _celery_worker(self, name: str, *queues: str) -> Child:
        # The tasks are bounded by the processor and few: one process each. The warning about root is no news here.
        quiet = ["-W", "ignore:You're running the worker"]
        command = [sys.executable, *quiet, "-m", "celery", "-A", "config", "--quiet", "worker", "--concurrency", "1"]
        taken = ["--queues", ",".join(queues), "--hostname", f"{name}@%h"]
        return Child(
            f"Celery worker for {name}",
            [*command, *taken, "--loglevel", "WARNING", "--without-gossip", "--without-mingle"],
            env=self.env,
            cwd=PROJECT,
            stop_seconds=TASK_SECONDS_MAX,
            silent=True,  # its log goes to standard error; this is a bare line about each signal
        )

    def _celery_beat(self) -> Child:
        schedule = self.configuration.data_dir / "celerybeat-schedule"
        command = [sys.executable, "-m", "celery", "-A", "config", "--quiet", "beat", "--loglevel", "WARNING"]
        return Child("Celery beat", [*command, "--schedule", schedule, "--pidfile="], env=self.env, cwd=PROJECT)

    def _wait_healthy(self, web: WebWorkers) -> None:
        deadline = time.monotonic() + HEALTHY_SECONDS_MAX
        answer = ""
        while time.monotonic() < deadline:
            self.request.tick()
            answer = _health(web.url, self.env)
            if answer == "200":
                return
            time.sleep(WATCH_SECONDS)
        raise StackError(f"The web workers run but GET /healthz does not answer 200: {answer}.")

    def _watch(self, web: WebWorkers) -> None:
        while not self.request.asked:
            for service, backoff in self._services:
                self._tend_service(service, backoff)
            web.tend(say)
            for kept in self._kept:
                kept.tend()
            time.sleep(WATCH_SECONDS)
        say("Stopping.")

    def _tend_service(self, service: Service, backoff: Backoff) -> None:
        if service.running or not backoff.over(time.monotonic()):
            return
        say(f"{service.name} ended; starting it again.")
        try:
            service.start(tick=self.request.tick)
        except StackError as error:
            backoff.ended(time.monotonic())
            say(str(error))

    def _stop_kept(self) -> None:
        for kept in reversed(self._kept):
            kept.stop(self.request.hurry)


def _health(url: str, env: dict[str, str]) -> str:
    """The status of GET /healthz, or what went wrong, in a word. Asked as an allowed host that came by TLS."""
    hosts = [host.strip().lstrip(".") for host in env.get("ALLOWED_HOSTS", "").split(",")]
    host = next((host for host in hosts if host and host != "*"), "localhost")
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/healthz", headers={"Host": host, "X-Forwarded-Proto": "https"})
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
