"""System checks of this floor: settings that contradict each other, a manifest that would never be signed, and a key
that others can read are named."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from documents.conf import conf


def connect() -> None:
    register(check_contradictions, Tags.compatibility)
    register(check_manifests, Tags.security)


def check_contradictions(**_: Any) -> Sequence[CheckMessage]:
    """W003: no segment can have as many rows as it must, so that nothing is squashed unless it is large."""
    try:
        settings = conf()
    except (ImproperlyConfigured, AttributeError):
        return []  # documents.E001 says so
    least, most = settings.segment_rows_min, settings.segment_rows_max
    if least <= most:
        return []
    message = f"SEGMENT_ROWS_MIN, {least}, is above SEGMENT_ROWS_MAX, {most}: no log is squashed."
    return [Warning(message, id="history.W003")]


def check_manifests(**_: Any) -> Sequence[CheckMessage]:
    """W001: a key without a place, or a place without a key. W002: others may read the key."""
    try:
        settings = conf()
    except (ImproperlyConfigured, AttributeError):
        return []  # documents.E001 says so
    has_place = bool(settings.manifest_directory or settings.manifest_command)
    if bool(settings.manifest_key) != has_place:
        lacking = "MANIFEST_DIRECTORY or MANIFEST_COMMAND" if settings.manifest_key else "MANIFEST_KEY"
        return [Warning(f"No manifest is signed: {lacking} is not set.", id="history.W001")]
    return _check_who_reads(Path(settings.manifest_key)) if has_place else []


def _check_who_reads(key: Path) -> list[CheckMessage]:
    try:
        mode = key.stat().st_mode
    except OSError:
        return []  # only Celery's workers need it, and they say so where it is missing
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        hint = f"chmod 600 {key}, and make a new one where somebody may have read it."
        return [Warning("Others than its owner may read MANIFEST_KEY.", hint=hint, id="history.W002")]
    return []
