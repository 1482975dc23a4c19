"""System checks: a misspelt or unusable setting is named when the process starts, not when somebody connects."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from documents.conf import conf


def connect() -> None:
    register(check_settings, Tags.compatibility)
    register(check_open_rooms, Tags.security, deploy=True)


def check_settings(**_: Any) -> Sequence[CheckMessage]:
    """E001: an unknown key, or a value of the wrong type or out of range. E002: ROLE_FOR names nothing to call."""
    given = getattr(settings, "PALIMPSEST", {})
    if not isinstance(given, dict):
        return [Error(f"PALIMPSEST must be a dict, not {type(given).__name__}.", id="documents.E001")]
    try:
        in_force = conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="documents.E001")]
    found: list[CheckMessage] = []
    if not in_force.websocket_prefix.startswith("/"):
        message = f"PALIMPSEST['WEBSOCKET_PREFIX'] must begin with a slash, and is {in_force.websocket_prefix!r}."
        found.append(Error(message, id="documents.E001"))
    return found + _check_role_rule(in_force.role_for)


def _check_role_rule(path: str) -> list[CheckMessage]:
    hint = "It takes the dotted path of a function (user, document) -> documents.models.Role | None."
    try:
        rule = import_string(path)
    except ImportError as error:
        return [Error(f"PALIMPSEST['ROLE_FOR'] cannot be imported: {error}.", hint=hint, id="documents.E002")]
    if not callable(rule):
        return [Error(f"PALIMPSEST['ROLE_FOR'] names {path}, which is no function.", hint=hint, id="documents.E002")]
    return []


def check_open_rooms(**_: Any) -> Sequence[CheckMessage]:
    """W001: with OPEN_ROOMS anyone who reaches the server may write."""
    if not isinstance(getattr(settings, "PALIMPSEST", {}), dict) or not conf().open_rooms:
        return []
    return [Warning("OPEN_ROOMS lets anyone read and write every room that nobody owns.", id="documents.W001")]
