"""All settings, read once from the environment; safe for production where nothing is set."""

from dataclasses import fields
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import environ
from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured

from documents.conf import Conf
from realtime.queues import QUEUES, REST, TASK_ROUTES

BASE_DIR = Path(__file__).resolve().parent.parent


class Env(environ.Env):  # type: ignore[misc]  # it has no types
    """django-environ, with one sentence for a value that is not of its kind."""

    def get_value(self, var: str, cast: Any = None, **options: Any) -> Any:
        try:
            return super().get_value(var, cast=cast, **options)
        except ValueError:
            kind = getattr(cast, "__name__", "another kind")
            raise ImproperlyConfigured(f"{var} must be of type {kind}, not {self.ENVIRON.get(var)!r}.") from None


env = Env()
if (BASE_DIR / ".env").exists():
    env.read_env(str(BASE_DIR / ".env"))

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")  # `make run` keeps one of its own under DATA_DIR
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured("Set SECRET_KEY to a long random string, or start with `make run`, which makes one.")
    SECRET_KEY = "insecure-only-for-debug"
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data")))

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "channels",
    "documents",
    "history",
    "realtime",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "config.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # The error pages: here, not in an app, so that they never stand before those of a host project.
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.db_url("DATABASE_URL", default="postgres://localhost/palimpsest")}
# libpq writes a socket's folder into the host, percent-encoded: postgres://user@%2Fvar%2Frun%2Fpostgresql/name
DATABASES["default"]["HOST"] = unquote(DATABASES["default"]["HOST"])
DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE_SECONDS", default=60)
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# A database that the network has swallowed is given up; libpq leaves out what a Unix socket does not have.
_silence_seconds = env.int("DATABASE_SILENCE_SECONDS", default=10)
DATABASES["default"].setdefault("OPTIONS", {}).update(
    connect_timeout=_silence_seconds,
    tcp_user_timeout=_silence_seconds * 1000,
    keepalives_idle=_silence_seconds,
    keepalives_interval=2,
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="redis://localhost:6379/0")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # One channel carries all hints of a process: the library's 100 would overflow in a busy second.
        "CONFIG": {"hosts": [REDIS_URL], "capacity": 5000, "expiry": 30},
    }
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
# What a worker had in hand when it was killed with its children comes to another one after this many seconds: an hour
# where nothing is said. Above the longest time limit of a task (120 s), or tasks that still run would be run again.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 150}
CELERY_TASK_ROUTES = TASK_ROUTES
CELERY_TASK_QUEUES = {name: {"exchange": name, "routing_key": name} for name in QUEUES}  # of a worker without `-Q`
CELERY_TASK_CREATE_MISSING_QUEUES = False  # a task for a queue of any other name is refused: no worker would take it
CELERY_TASK_DEFAULT_QUEUE = CELERY_TASK_DEFAULT_EXCHANGE = CELERY_TASK_DEFAULT_ROUTING_KEY = REST
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False


def _every(seconds: float, task: str) -> dict[str, Any]:
    """A turn that still waits when the next one is due is dropped: however long no worker was there, one is left."""
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


def _every_night(at_time: str, task: str) -> dict[str, Any]:
    """At a time of day, so that a beat which is started anew each day has its turn too."""
    try:
        at = time.fromisoformat(at_time)
    except ValueError:
        raise ImproperlyConfigured(f"VERIFY_AT must be a time of day such as 03:30, not {at_time!r}.") from None
    return {
        "task": task,
        "schedule": crontab(hour=str(at.hour), minute=str(at.minute)),
        "options": {"expires": 24 * 3600.0},
    }


_PURGE_SECONDS = env.float("PURGE_SECONDS", default=3600.0)
CELERY_BEAT_SCHEDULE = {
    "snapshot-sweep": _every(env.float("SNAPSHOT_SWEEP_SECONDS", default=60.0), "history.tasks.sweep_snapshots"),
    "ladders": _every(env.float("LADDER_SECONDS", default=600.0), "history.tasks.build_ladders"),
    "squash": _every(env.float("SQUASH_SECONDS", default=600.0), "history.tasks.squash_cold_rows"),
    "versions": _every(env.float("VERSIONS_SECONDS", default=600.0), "history.tasks.keep_versions"),
    "verify": _every_night(env.str("VERIFY_AT", default="03:30"), "history.tasks.verify_sample"),
    # One a day is published; a turn that failed is made up for by the next.
    "manifest": _every(env.float("MANIFEST_SECONDS", default=3600.0), "history.tasks.sign_manifest"),
    "purge": _every(_PURGE_SECONDS, "documents.tasks.purge_deleted"),
    "purge-refused": _every(_PURGE_SECONDS, "history.tasks.purge_refused"),
    "purge-audit": _every(_PURGE_SECONDS, "history.tasks.purge_audit"),
    "purge-notifications": _every(_PURGE_SECONDS, "realtime.tasks.purge_notifications"),
    "purge-chat": _every(_PURGE_SECONDS, "realtime.tasks.purge_chat"),
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "document-list"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # no collectstatic step: the few built files are committed

# Behind a proxy that ends TLS, HTTPS=true marks cookies as secure and redirects plain HTTP.
HTTPS = env.bool("HTTPS", default=False)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# Whose X-Forwarded-For says where a socket comes from: addresses or networks of proxies, never of clients.
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=[])
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
_SELF = ["'self'"]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": _SELF,
        "style-src": _SELF,
        "img-src": _SELF,
        "font-src": _SELF,
        "connect-src": _SELF,
        "form-action": _SELF,
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
if LOG_LEVEL not in LOG_LEVELS:
    raise ImproperlyConfigured(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {LOG_LEVEL!r}.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": LOG_LEVEL},  # Django's own handlers say each line again
        # A refusal (4xx) is an ordinary answer, and Django logs each 403 with its traceback: a fault (5xx) is ERROR.
        "django.request": {"level": "DEBUG" if LOG_LEVEL == "DEBUG" else "ERROR"},
    },
}

# Every field of documents.conf.Conf can be set by an environment variable of its name in capitals.
PALIMPSEST = {}
for _name, _kind in ((field.name.upper(), type(field.default)) for field in fields(Conf)):
    if _name in env.ENVIRON:
        PALIMPSEST[_name] = env.get_value(_name, cast=_kind)
if PALIMPSEST.get("OPEN_ROOMS") and not DEBUG and not env.bool("OPEN_ROOMS_IN_PRODUCTION", default=False):
    raise ImproperlyConfigured(
        "OPEN_ROOMS lets anyone write: with DEBUG off it also wants OPEN_ROOMS_IN_PRODUCTION=true, or unset OPEN_ROOMS."
    )
