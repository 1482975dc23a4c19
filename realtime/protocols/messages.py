"""What a room and its sockets say to each other, whatever wire it goes over.

A wire is how a kind of client is spoken to: it makes bytes of these messages, and leaves out what its clients do not
know."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from realtime.protocols.awareness import AWARENESS_ENTRIES_MAX, AwarenessEntry, encode_entry

COUNT_BYTES_MAX = 8
"""The longest encoding of a length or count (53 bits)."""


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """ "This is what I have": answered with a SyncStep2. A client's `state_vector` has been checked."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncStep2:
    """What the sender has and the receiver lacked; nothing about a client's `update` has been checked."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """A live edit; nothing about a client's `update` has been checked."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Awareness:
    entries: tuple[AwarenessEntry, ...]


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    """Asks for the awareness of everyone in the room."""


@dataclass(frozen=True, slots=True)
class PermissionDenied:
    """From the server alone: an edit was not taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Saved:
    """From the server alone: one of the client's edits is committed, or (not `applied`) will never be."""

    applied: bool


@dataclass(frozen=True, slots=True)
class Admitted:
    """From the server alone: what the client may do here, from now on."""

    may_write: bool


@dataclass(frozen=True, slots=True)
class Stateless:
    """A text of the host project's own, which nothing keeps."""

    payload: str


@dataclass(frozen=True, slots=True)
class Said:
    """What is told in JSON: `brief` is for those who asked for less, where it differs."""

    said: dict[str, Any]
    brief: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """From code of one's own alone: a message for y-websocket clients, sent on as it is."""

    payload: bytes


Message: TypeAlias = SyncStep1 | SyncStep2 | Update | Awareness | QueryAwareness
"""What a client says."""

ServerMessage: TypeAlias = (
    SyncStep1 | SyncStep2 | Update | Awareness | PermissionDenied | Saved | Admitted | Stateless | Said | Opaque
)


class Wire(Protocol):
    """How one kind of client is spoken to, at one address. Of one kind and address there is one, so that what is
    encoded for one socket serves the next.

    `is_text` says whether its frames are text; `is_shared` whether several sockets use it: what is encoded for one that
    is not is not kept."""

    @property
    def is_text(self) -> bool: ...

    @property
    def is_shared(self) -> bool: ...

    def encode(self, message: ServerMessage) -> bytes | None:
        """Return the payload of the one frame that says this; None for what these clients are not told."""


def awareness_messages(
    entries: Iterable[AwarenessEntry], *, bytes_max: int, entries_max: int = AWARENESS_ENTRIES_MAX
) -> Iterator[Awareness]:
    """Cut entries into messages of at most `entries_max` entries and about `bytes_max` bytes (one entry alone may be
    longer).

    A y-websocket client sends every entry it receives back to the server, so a frame that the server would refuse makes
    innocent clients send what closes their sockets. Numbers such as `1e20` come back up to 5 times as long: `bytes_max`
    is at most a sixth of the largest frame that the server takes."""
    batch: list[AwarenessEntry] = []
    batch_bytes = 0
    for entry in entries:
        entry_bytes = len(encode_entry(entry))
        if batch and (len(batch) == entries_max or batch_bytes + entry_bytes + 2 * COUNT_BYTES_MAX + 1 > bytes_max):
            yield Awareness(tuple(batch))
            batch, batch_bytes = [], 0
        batch.append(entry)
        batch_bytes += entry_bytes
    if batch:
        yield Awareness(tuple(batch))
