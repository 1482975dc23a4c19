"""The names of the channel layer's groups. No room of any kind, whatever it is called, reaches the group of another.

A name that the layer takes stands in its group's as it is; one that it does not take (other characters, too long), or
that would look like a group of another kind, stands there as a digest. Source: Channels 4.3, `valid_group_name`."""

import hashlib
import re
from typing import Any

COLLAB = "collab_"
CHAT = "chat_"
NOTIFICATIONS = "notifications_"
INTERNAL = "palimpsest."
"""What processes tell each other, signed."""

HASHED = "sha256."
RESERVED = (COLLAB, CHAT, NOTIFICATIONS, INTERNAL, HASHED)
"""How no name begins that stands in a group's name as it is."""

_PLAIN = re.compile(r"[A-Za-z0-9\-_.]+", re.ASCII)
_LENGTH_MAX = 99


def group_name(room_name: str) -> str:
    """The public group of a document's room: its name, where that can be a group's."""
    return _group("", room_name)


def collab_group(room_name: str) -> str:
    """The group of a JSON room."""
    return _group(COLLAB, room_name)


def chat_group(room_name: str) -> str:
    return _group(CHAT, room_name)


def notifications_group(user_key: Any) -> str:
    """The group of one account, by its key of any type."""
    return _group(NOTIFICATIONS, str(user_key))


def mailbox_group(user_key: Any) -> str:
    """The internal group of one account: the processes that hold sockets for its notifications."""
    return _group(f"{INTERNAL}mailbox.", str(user_key))


def document_group(document_id: int) -> str:
    """The internal group of a document: one member for each process that has it open."""
    return f"{INTERNAL}document.{document_id}"


PROCESSES_GROUP = f"{INTERNAL}processes"


def _group(kind: str, name: str) -> str:
    is_plain = _PLAIN.fullmatch(name) and len(kind) + len(name) <= _LENGTH_MAX
    if is_plain and not name.startswith(RESERVED):
        return kind + name
    return f"{kind}{HASHED}{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
