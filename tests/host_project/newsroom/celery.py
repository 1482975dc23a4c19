"""The host's own Celery application, under another settings prefix."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newsroom.settings")

app = Celery("newsroom")
app.config_from_object("django.conf:settings", namespace="PAPER_CELERY")
app.autodiscover_tasks()
