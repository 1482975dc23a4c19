"""A newspaper's project that mounts Palimpsest's three apps: a foreign house in which they must work."""

from newsroom.celery import app as celery_app

__all__ = ["celery_app"]
