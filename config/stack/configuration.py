"""What the supervisor reads from the environment (and `.env`), checked before anything starts."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import environ
import psycopg
import redis

from config.stack.errors import StackError

PROJECT = Path(__file__).resolve().parent.parent.parent
CONNECT_SECONDS_MAX = 5
WEB_WORKERS_MAX = 256


@dataclass(frozen=True, slots=True)
class Configuration:
    """An empty URL stands for a server of our own."""

    database_url: str
    redis_url: str
    data_dir: Path
    host: str
    port: int
    web_workers: int
    debug: bool
    demo_asked: bool

    @property
    def demo(self) -> bool:
        """Demo users' passwords are printed: only where the database is our own, somebody debugs or asks for them."""
        return not self.database_url or self.debug or self.demo_asked


def read_configuration(environment: Mapping[str, str]) -> Configuration:
    """Read the settings. Raises: StackError for a value that is not one."""
    return Configuration(
        database_url=environment.get("DATABASE_URL", ""),
        redis_url=environment.get("REDIS_URL", ""),
        data_dir=PROJECT / Path(environment.get("DATA_DIR") or ".data").expanduser(),
        host=environment.get("HOST") or "127.0.0.1",
        port=_number(environment, "PORT", default=8000, low=0, high=65535),
        web_workers=_number(environment, "WEB_WORKERS", default=2, low=1, high=WEB_WORKERS_MAX),
        debug=environment.get("DEBUG", "").lower() in environ.Env.BOOLEAN_TRUE_STRINGS,
        demo_asked=environment.get("PALIMPSEST_DEMO") == "1",
    )


def load_dotenv() -> None:
    """Add the variables of `.env` that are not set, as the Django settings do: both must see the same."""
    if (PROJECT / ".env").exists():
        environ.Env.read_env(str(PROJECT / ".env"))


def check_settings(environment: Mapping[str, str]) -> None:
    """Read the Django settings as every process of the stack will. Raises: StackError with the sentence of a refusal.

    In a process of its own: settings are read once for a process, and the supervisor's lack what it is about to add."""
    command = [sys.executable, "-c", "from documents.conf import conf; conf()"]
    made_later = {"SECRET_KEY": "not made yet", "DATABASE_URL": "postgres://not-made-yet/it"}
    env = {**environment, **made_later, "DJANGO_SETTINGS_MODULE": "config.settings"}
    done = subprocess.run(command, env=env, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["The settings cannot be read."]
        raise StackError(lines[-1].rpartition("ImproperlyConfigured: ")[2])


def has_users(url: str) -> bool:
    """Whether anybody can sign in; True as well where the database does not say.

    Django's own user table: config/settings.py leaves AUTH_USER_MODEL as it is."""
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS_MAX) as connection:
            return connection.execute("SELECT 1 FROM auth_user LIMIT 1").fetchone() is not None
    except psycopg.Error:
        return True


def check_database(url: str) -> None:
    """Connect once. Raises: StackError, without the password, where that fails."""
    if not url.startswith(("postgres://", "postgresql://")):
        raise StackError("DATABASE_URL must start with postgres:// (or postgresql://).")
    try:
        psycopg.connect(url, connect_timeout=CONNECT_SECONDS_MAX).close()
    except psycopg.Error as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise StackError(f"The database of DATABASE_URL cannot be reached: {_shorten(lines[0])}.") from None


def check_redis(url: str) -> None:
    """Ping once. Raises: StackError, without the password, where that fails."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS_MAX) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise StackError(f"The server of REDIS_URL cannot be reached: {_shorten(str(error))}.") from None


def _number(environment: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise StackError(f"{name}={text} is not a whole number from {low} to {high}.")
    return int(text)


def _shorten(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300]


def base_environment() -> dict[str, str]:
    """The environment of children, less the PG* variables: what a URL leaves out must not come from there."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")}
