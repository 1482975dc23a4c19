"""What clients of the JSON doors say, read, and what is answered where it is not done; the socket stays."""

import json
from typing import Any


class MessageRefused(Exception):
    """Raised for a message that is not done: its client is told `code` and `message`, which holds no content."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def shown(self) -> dict[str, Any]:
        return {"type": "error", "code": self.code, "message": self.message}


def read_object(text: str) -> dict[str, Any]:
    """What one frame says, an object. Raises: MessageRefused."""
    try:
        said = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise MessageRefused("malformed", "this is no JSON") from None
    if not isinstance(said, dict):
        raise MessageRefused("malformed", "a message is an object")
    return said


def _no_constant(name: str) -> None:
    """NaN and Infinity are no JSON, whatever Python reads."""
    raise ValueError(name)
