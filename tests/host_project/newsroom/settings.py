"""A foreign settings module: it shares nothing with `config.settings`, and chooses otherwise wherever it can.

Users with UUID keys and no user name, automatic keys of another type, no persistent connections, a transaction around
each request, addresses under prefixes of its own, and other names for signing in."""

import json
import os
from urllib.parse import unquote, urlsplit

from celery.schedules import crontab

from realtime.queues import TASK_ROUTES

database = urlsplit(os.environ["NEWSROOM_DATABASE_URL"])
redis_url = os.environ["NEWSROOM_REDIS_URL"]
namespace = os.environ.get("NEWSROOM_NAMESPACE", "newsroom")

DEBUG = False
SECRET_KEY = "the newsroom's own, and only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "documents",
    "history",
    "realtime",
    "newsroom",  # last, so that a template of ours that bears the name of one of the host's would win
]
if "NEWSROOM_WITHOUT_ADMIN" in os.environ:
    INSTALLED_APPS.remove("django.contrib.admin")
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "newsroom.middleware.edition",
]
ROOT_URLCONF = "newsroom.urls"
ASGI_APPLICATION = "newsroom.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database.path.lstrip("/"),
        "USER": unquote(database.username or ""),
        "PASSWORD": unquote(database.password or ""),
        "HOST": unquote(database.netloc.rpartition("@")[2].partition(":")[0]),
        "PORT": str(database.port or ""),
        "ATOMIC_REQUESTS": True,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
AUTH_USER_MODEL = "newsroom.Person"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGIN_URL = "/desk/enter/"
LOGIN_REDIRECT_URL = "/desk/"
TIME_ZONE = "Asia/Kolkata"
USE_TZ = True
STATIC_URL = "/assets/"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [redis_url], "prefix": namespace, "capacity": 5000},
    }
}

PAPER_CELERY_BROKER_URL = redis_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
PAPER_CELERY_TASK_DEFAULT_QUEUE = namespace
PAPER_CELERY_TASK_ROUTES = TASK_ROUTES
PAPER_CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": f"{namespace}-"}
PAPER_CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
PAPER_CELERY_BEAT_SCHEDULE = {
    "documents-snapshots": {
        "task": "history.tasks.sweep_snapshots",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "documents-squash": {"task": "history.tasks.squash_cold_rows", "schedule": 600.0},
    "documents-verify": {"task": "history.tasks.verify_sample", "schedule": crontab(hour="2", minute="10")},
    "documents-purge": {"task": "documents.tasks.purge_deleted", "schedule": 3600.0},
}

PALIMPSEST = {
    "ROLE_FOR": "newsroom.rules.role_at_the_desk",
    "WEBSOCKET_PREFIX": "/live/paper/",
    "TICKET_SECONDS": 77,
    "HEAD_CHECK_SECONDS": 600,  # so long that what the tests see came by the channel layer
    **json.loads(os.environ.get("NEWSROOM_PALIMPSEST", "{}")),
}
