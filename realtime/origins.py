"""Which web pages may connect with a visitor's session cookie."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_same_origin(scope: dict[str, Any]) -> bool:
    """Whether the handshake's Origin (scheme, host, port) is the server's own or one of CSRF_TRUSTED_ORIGINS.

    Browsers always send one; a client that sends none has no visitor's cookie to abuse. `null` is never ours."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    if origin is None:
        return True
    text = origin.decode("latin-1")
    if text in settings.CSRF_TRUSTED_ORIGINS:
        return True
    secure = scope.get("scheme") == "wss" or _is_forwarded_https(headers)
    host = headers.get(b"host", b"").decode("latin-1")
    own = _parts(f"{'https' if secure else 'http'}://{host}")
    return own is not None and _parts(text) == own  # neither `null` nor a Host that cannot be read has parts


def _is_forwarded_https(headers: dict[bytes, bytes]) -> bool:
    if not settings.SECURE_PROXY_SSL_HEADER:
        return False
    name, value = settings.SECURE_PROXY_SSL_HEADER[:2]
    header = name.removeprefix("HTTP_").replace("_", "-").lower().encode()
    return headers.get(header, b"").decode("latin-1").split(",")[0].strip() == value


def _parts(url: str) -> tuple[str, str, int] | None:
    try:
        split = urlsplit(url)
        port = split.port or _DEFAULT_PORTS[split.scheme]
    except (ValueError, KeyError):
        return None
    return (split.scheme, split.hostname, port) if split.hostname else None
