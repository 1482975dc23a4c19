"""What goes into the append and what comes out: updates, and what became of each."""

import enum
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from history.crdt.splits import NO_SPLITS, Splits
from history.models import Kind
from history.sessions import WriteSession


@dataclass(frozen=True, slots=True)
class Base:
    """A place that the log has been seen at: a log of another epoch, that ends before `seq`, or in which another row
    stands there, is that of a restored backup. `hash` is the row's, empty where it is not known."""

    epoch: int
    seq: int
    hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpdate:
    """One row to be: an update (as re-emitted by pycrdt, v1) of one session.

    `request_key` makes a server-side act idempotent per document and user: a second append of the same key stores
    nothing and returns the first one's seq. `expected_seq` refuses the append unless the head is there.
    `splits`: characters of the document that it cuts in two; a `split` row right before it records those that the log
    does not know yet. `clients`: those under whose ids it brings new structs. `base`: where the log stood at least when
    it was judged.
    `at`: when it was made, of what is imported into a log that begins in this transaction; the row is never of a time
    before that of the row before it, nor one that has not come yet. The database's clock says it everywhere else.
    `chain`: updates of one chain may build on earlier ones; what stands behind a refused one is refused as BEHIND."""

    session: WriteSession
    payload: bytes
    kind: Kind = Kind.SYNC
    request_key: str | None = None
    expected_seq: int | None = None
    chain: Hashable | None = None
    clients: AbstractSet[int] = frozenset()
    base: Base | None = None
    splits: Splits = NO_SPLITS
    at: datetime | None = None

    @property
    def document_id(self) -> int:
        return self.session.document_id


@dataclass(frozen=True, slots=True)
class Stored:
    """The update is in the log at `seq`, durably. `repeated`: it was there before, under the same request key.
    `split_seq`: the `split` row that stands right before it, if there is one. `hash` is the row's in the chain,
    `behind` that of the row before the first of its own; both are empty where it is `repeated`, and of what the append
    itself finds repeated `at` is the head's."""

    seq: int
    at: datetime
    epoch: int
    repeated: bool = False
    split_seq: int | None = None
    hash: bytes = b""
    behind: bytes = b""

    @property
    def first_seq(self) -> int:
        """The first of its rows: `split_seq` or `seq`."""
        return self.seq if self.split_seq is None else self.split_seq


class Reason(enum.Enum):
    """Why an update was refused. Nothing of it is in the log."""

    UNAVAILABLE = "the log of this document cannot be written now"
    BUSY = "another transaction holds the log of this document, or its author's account"
    NOT_ALLOWED = "you may not write to this document"
    GONE = "there is no such document"
    MOVED_ON = "the document is no longer at the expected seq"
    TOO_LARGE = "the update is larger than UPDATE_BYTES_MAX"
    FULL = "the document is full: it has reached DOCUMENT_BYTES_MAX, or as many root names or client ids as it may have"
    BEHIND = "an update that this one may build on was refused"
    NOT_YOURS = "it holds edits under the client id of somebody else"
    MISSING = "it builds on edits that are not here"
    ROLLED_BACK = "the log of this document was set back since the update was judged"


@dataclass(frozen=True, slots=True)
class Refused:
    reason: Reason


Fate = Stored | Refused
