"""The messages of a JSON room: what its clients say, read strictly, and what they are told. Every one is a JSON object
with a `type`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from history.crdt.delta import BadDelta, Step, read_delta
from history.crdt.values import BadValue, checked
from realtime.message_errors import MessageRefused, read_object
from realtime.protocols.identities import Identity
from realtime.protocols.messages import PermissionDenied, Said, ServerMessage

DEFAULT_COLOR = "#3B82F6"
COLOR_LENGTH_MAX = 64
"""Characters of a colour."""
POSITION_BYTES_MAX = 4096
"""A cursor's position, which is whatever JSON its clients agree on."""
EDIT_ID_LENGTH_MAX = 128
"""Characters of the name that a client gives an edit."""
STEPS_MAX = 10_000
"""Steps of one delta."""

Words: TypeAlias = dict[str, Any]
"""One message, decoded."""
EditId: TypeAlias = str | int | None
"""The name that a client gives an edit, as it came: clients look for what they sent. 7 and "7" are one name."""


class BadMessage(MessageRefused):
    """Raised for a message that is not understood, or an edit that is not made; `edit_id` where it names an edit."""

    def __init__(self, code: str, message: str, *, edit_id: EditId = None) -> None:
        super().__init__(code, message)
        self.edit_id = edit_id

    def shown(self) -> Words:
        return {**super().shown(), "id": self.edit_id}


@dataclass(frozen=True, slots=True)
class CursorUpdate:
    position: Any
    color: str


@dataclass(frozen=True, slots=True)
class DocumentEdit:
    """Either `steps`, made on what the document said at `base`, or, where those are None, whole `content`."""

    id: EditId
    base: int | None
    steps: Sequence[Step] | None
    content: Any


def read_message(text: str) -> Words:
    """One frame. Raises: MessageRefused."""
    said = read_object(text)
    if not isinstance(said.get("type"), str):
        raise BadMessage("malformed", "a message is an object with a type")
    return said


def read_cursor(said: Words) -> CursorUpdate:
    """Raises: BadMessage."""
    color = said.get("color", DEFAULT_COLOR)
    if not isinstance(color, str) or not 0 < len(color) <= COLOR_LENGTH_MAX:
        raise BadMessage("malformed", f"a color is a text of at most {COLOR_LENGTH_MAX} characters")
    try:
        position = checked(said.get("position"))
        checked(color)
    except BadValue as error:
        raise BadMessage("malformed", f"position: {error}") from None
    if len(json.dumps(position)) > POSITION_BYTES_MAX:
        raise BadMessage("malformed", f"a position has at most {POSITION_BYTES_MAX} bytes")
    return CursorUpdate(position, color)


def read_edit(said: Words) -> DocumentEdit:
    """Raises: BadMessage."""
    edit_id = _id_of(said)
    base = said.get("base")
    if base is not None and (not isinstance(base, int) or isinstance(base, bool) or base < 0):
        raise BadMessage("malformed", "a base is the seq that the edit was made on", edit_id=edit_id)
    if ("delta" in said) == ("content" in said):
        raise BadMessage("malformed", "an edit has either a delta or whole content", edit_id=edit_id)
    try:
        if "content" in said:
            return DocumentEdit(edit_id, base, None, checked(said["content"]))
        if base is None:
            raise BadMessage("malformed", "a delta names the base that it was made on", edit_id=edit_id)
        return DocumentEdit(edit_id, base, read_delta(said["delta"], steps_max=STEPS_MAX), None)
    except (BadDelta, BadValue) as error:
        raise BadMessage("malformed", str(error), edit_id=edit_id) from None


def _id_of(said: Words) -> EditId:
    """Printable, so that the log's names of requests can hold it. Raises: BadMessage."""
    match said.get("id"):
        case None:
            return None
        case str() as edit_id if 0 < len(edit_id) <= EDIT_ID_LENGTH_MAX and edit_id.isprintable():
            return edit_id
        case int() as number if not isinstance(number, bool) and len(str(number)) <= EDIT_ID_LENGTH_MAX:
            return number
        case _:
            raise BadMessage("malformed", f"an id is a whole number or a text of 1 to {EDIT_ID_LENGTH_MAX} characters")


def person(identity: Identity) -> Words:
    """Somebody, as the others are told: `user_id` is an account's key as text, null for nobody's."""
    return {"user_id": identity.user or None, "username": identity.name or ""}


def encode(said: Words) -> bytes:
    """A message as it is sent: UTF-8, no spaces. Raises: ValueError, TypeError for what no JSON says."""
    return json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class CollabWire:
    """How a client of a JSON room is spoken to; `is_brief` is one that asked for deltas alone."""

    is_brief: bool
    is_text = True
    is_shared = True

    def encode(self, message: ServerMessage) -> bytes | None:
        match message:
            case Said(said, brief):
                return encode(brief if self.is_brief and brief is not None else said)
            case PermissionDenied(reason):
                return encode(BadMessage("not_allowed", reason).shown())
            case _:
                return None
