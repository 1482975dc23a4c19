"""The application with the write gate taken out: what a client sends goes into the log as it came.

For one test, which must then fail."""

from typing import Any
from unittest.mock import patch

from config.asgi import application
from history.crdt.updates import decode_update
from history.gate import Gate, Taken

__all__ = ["application"]


def _take(self: Any, update: bytes, *_: Any, **__: Any) -> Taken:
    return Taken(update, {struct.client for struct in decode_update(update).structs})


def _follow(self: Any, seq: int, update: bytes, **_: Any) -> None:
    self.seq = max(self.seq, seq)


patch.object(Gate, "take", _take).start()
patch.object(Gate, "follow", _follow).start()
