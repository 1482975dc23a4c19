"""What is answered to a client of a JSON door whose message is not done; its socket stays."""

from typing import Any


class MessageRefused(Exception):
    """Raised for a message that is not done: its client is told `code` and `message`, which holds no content."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def shown(self) -> dict[str, Any]:
        return {"type": "error", "code": self.code, "message": self.message}
