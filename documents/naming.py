"""What a room may be called. A document's name is its room name; it is chosen once."""

import unicodedata
from urllib.parse import quote

from django.core.exceptions import ValidationError

from documents.conf import conf

NAME_LENGTH_MAX = 200
"""Characters of a room name."""

BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the text around it: a name that holds one reads as another, and so does what stands beside it. The marks
between letters of both directions (U+200E, U+200F, U+061C) turn nothing else and stay."""

RESERVED_PREFIXES = ("rooms/", "chat/", "notifications/")
"""Below `/ws/` these lead to other doors."""


def validate_name(name: str) -> None:
    """Refuse a name that could not be a room's.

    Raises: ValidationError with a sentence that says what to change."""
    if not name or len(name) > NAME_LENGTH_MAX:
        raise ValidationError(f"A room name has 1 to {NAME_LENGTH_MAX} characters.")
    if name != unicodedata.normalize("NFC", name):
        raise ValidationError("A room name is written in the composed Unicode form (NFC).")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise ValidationError("A room name has no control characters.")
    if not BIDI_CONTROLS.isdisjoint(name):
        raise ValidationError("A room name has no characters that turn the direction of text.")
    if name != name.strip() or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValidationError("A room name has no empty, '.' or '..' parts and no spaces around it.")
    if f"{name}/".startswith(RESERVED_PREFIXES):
        raise ValidationError(f"A room name does not start with {', '.join(RESERVED_PREFIXES)}.")


def clean_line(text: str, *, what: str, length_max: int) -> str:
    """The text in one line, composed (NFC), with single spaces.

    Raises: ValidationError for one that is empty or too long or has control characters, also such as turn the direction
    of text; it begins with `what`."""
    cleaned = unicodedata.normalize("NFC", " ".join(text.split()))
    if not cleaned or len(cleaned) > length_max or has_control_characters(cleaned):
        raise ValidationError(f"{what} has 1 to {length_max} characters, none of them a control character.")
    if not BIDI_CONTROLS.isdisjoint(cleaned):
        raise ValidationError(f"{what} has no characters that turn the direction of text.")
    return cleaned


def has_control_characters(text: str) -> bool:
    """Lone surrogates count: neither Postgres nor a page can show them."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def socket_path(name: str) -> str:
    """The path, percent-encoded, at which a stock Yjs client finds this room: `/ws/<room>` below WEBSOCKET_PREFIX."""
    return f"{conf().websocket_prefix.rstrip('/')}/ws/{quote(name)}"
