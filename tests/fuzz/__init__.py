"""Hostile input, without sockets and without a database; only the gate's limits are read from the settings."""

import os

import django
from django.apps import apps

if not apps.ready:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("SECRET_KEY", "fuzz")
    django.setup()
