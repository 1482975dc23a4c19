"""Numbering: a batch of updates onto locked heads. Who may write is decided here, under the lock, for each of them."""

from collections.abc import Callable, Hashable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from django.db import connection

from documents.conf import conf
from documents.credentials import Standing
from history.crdt.chain import row_hash
from history.crdt.splits import Splits, encode_splits
from history.crdt.updates import Id
from history.fates import Base, Fate, PendingUpdate, Reason, Refused, Stored
from history.models import Kind
from history.sessions import WriteSession
from history.times import EPOCH, microseconds

ClientKey: TypeAlias = tuple[int, int]
"""(document id, Yjs client id)"""


@dataclass(slots=True)
class LockedHead:
    """A locked head while a batch is numbered onto it."""

    document_id: int
    key: UUID
    seq: int
    hash: bytes
    at: datetime
    epoch: int
    access_version: int
    deleted: bool
    now: datetime


@dataclass(frozen=True, slots=True)
class NewRow:
    document_id: int
    seq: int
    session_id: int
    kind: int
    at: datetime
    payload: bytes
    hash: bytes


class Rights:
    """What the sessions of one batch may do. Each admission is taken once: the event loop may replace it meanwhile.

    `doubtful` are sessions whose user's rule failed just now: they may not write, and nothing is said of later."""

    def __init__(
        self, sessions: Iterable[WriteSession], standing: Standing, *, doubtful: AbstractSet[WriteSession] = frozenset()
    ) -> None:
        self.admissions = {session: session.admission for session in sessions}
        self.standing = standing
        self.doubtful = doubtful

    def are_stale(self, session: WriteSession, head: LockedHead) -> bool:
        """Whether a right on the document, or the account or session behind it, is not what the role was read under."""
        if not session.requires_role or session in self.doubtful:
            return False
        admission = self.admissions[session]
        return admission.access_version != head.access_version or not admission.holds(session.credential, self.standing)

    def may_write(self, session: WriteSession) -> bool:
        return not session.requires_role or (session not in self.doubtful and self.admissions[session].may_write)


class Sequencer:
    """Numbers and hashes a batch onto locked heads; collects what is to be inserted."""

    def __init__(
        self,
        heads: dict[int, LockedHead],
        held: set[int],
        rights: "Rights",
        *,
        set_back: AbstractSet[tuple[int, Base]],
        owners: dict[ClientKey, str],
        find_request: Callable[[PendingUpdate], int | None],
        find_splits: Callable[[PendingUpdate], Splits],
    ) -> None:
        """`set_back` has, by document, the bases that this log does not have; `owners` the actor of every client id of
        the batch that is bound already, see `unclaimed`."""
        self.heads = heads
        self.rights = rights
        self.held = held
        self.set_back = set_back
        self.owners = owners
        self.find_request = find_request
        self.find_splits = find_splits
        self.rows: list[NewRow] = []
        self.splits: dict[int, dict[Id, int]] = {}
        """By document, the seq of the row that records each new split."""
        self.requests: dict[tuple[int, str, str], int] = {}
        self.new_sessions: dict[int, WriteSession] = {}
        self.moved: dict[int, LockedHead] = {}
        self.claims: dict[ClientKey, str] = {}
        self.claimed: list[tuple[WriteSession, AbstractSet[int]]] = []
        self.rolled_back: set[int] = set()
        self.broken_chains: set[Hashable] = set()

    def place(self, item: PendingUpdate) -> Fate:
        if item.document_id in self.held:
            return Refused(Reason.BUSY)
        head = self.heads.get(item.document_id)
        if head is None or head.deleted:
            return Refused(Reason.GONE)
        reason = self._refusal(item, head)
        if reason is not None:
            self.broken_chains.add(item.chain)
            return Refused(reason)
        if item.chain is not None and item.chain in self.broken_chains:
            return Refused(Reason.BEHIND)
        name = (item.document_id, item.session.actor, item.request_key or "")
        if item.request_key is not None:
            seq = self.requests.get(name) or self.find_request(item)
            if seq is not None:
                return Stored(seq, head.at, head.epoch, repeated=True)
        if item.expected_seq is not None and item.expected_seq != head.seq:
            return Refused(Reason.MOVED_ON)
        stored = self._store(item, head)
        if item.request_key is not None:
            self.requests[name] = stored.seq
        return stored

    def _refusal(self, item: PendingUpdate, head: LockedHead) -> Reason | None:
        if item.base is not None and (item.document_id, item.base) in self.set_back:
            if item.base.epoch == head.epoch:
                self.rolled_back.add(head.document_id)
            return Reason.ROLLED_BACK
        if self.rights.are_stale(item.session, head):
            return Reason.UNAVAILABLE
        if not self.rights.may_write(item.session) or not self._is_known(item.session):
            return Reason.NOT_ALLOWED
        if len(item.payload) > conf().update_bytes_max:
            return Reason.TOO_LARGE
        if not all(item.session.owns(self._owner_of(item, client)) for client in unclaimed(item)):
            return Reason.NOT_YOURS
        return None

    def _owner_of(self, item: PendingUpdate, client: int) -> str | None:
        key = item.document_id, client
        return self.claims.get(key, self.owners.get(key))

    def _claim(self, item: PendingUpdate) -> None:
        """Bind the client ids of an update that is stored to its user, for ever; nobody's may pass to somebody."""
        if not item.session.requires_role:
            return  # the server's own are fresh for each act
        for client in unclaimed(item):
            if not self._owner_of(item, client):
                self.claims[item.document_id, client] = item.session.actor
        if item.session.actor:  # nobody's may pass to somebody at any time
            self.claimed.append((item.session, item.clients))

    def _is_known(self, session: WriteSession) -> bool:
        """Whether a new session's account is still there: its row would else fail the COMMIT of everybody's edits."""
        if session.user is None or session.stored or session.id in self.new_sessions:
            return True
        return _hold_account(session.user)

    def _store(self, item: PendingUpdate, head: LockedHead) -> Stored:
        """Number the update, and right before it what it splits: the log knows of a split exactly when it has the edit
        that splits."""
        split_seq, behind = None, head.hash
        recorded = self.splits.setdefault(item.document_id, {}) if item.splits else {}
        new = item.splits - recorded.keys()
        if new and (new := new - self.find_splits(item)):
            self._number(item, head, kind=Kind.SPLIT, payload=encode_splits(new))
            split_seq = head.seq
            recorded.update(dict.fromkeys(new, split_seq))
        self._number(item, head, kind=item.kind, payload=item.payload)
        return Stored(head.seq, head.at, head.epoch, split_seq=split_seq, hash=head.hash, behind=behind)

    def _number(self, item: PendingUpdate, head: LockedHead, *, kind: Kind, payload: bytes) -> None:
        session = item.session
        self._claim(item)
        # An empty log's time is that of its document's making, behind which no imported row would come.
        head.at = max(min(item.at or head.now, head.now), head.at if head.seq or item.at is None else EPOCH)
        head.seq += 1
        head.hash = row_hash(
            head.hash,
            document_key=head.key.bytes,
            seq=head.seq,
            kind=kind,
            at_microseconds=microseconds(head.at),
            session_commitment=session.commitment,
            payload=payload,
        )
        self.rows.append(NewRow(head.document_id, head.seq, session.id, kind, head.at, payload, head.hash))
        self.moved[head.document_id] = head
        if not session.stored:
            self.new_sessions[session.id] = session


def unclaimed(item: PendingUpdate) -> AbstractSet[int]:
    """The client ids of an update of which it is not known yet that they are its user's. Where clients may relay what
    others wrote, an id says nothing of who writes under it, and belongs to nobody."""
    return frozenset() if conf().relays else item.clients - item.session.claims


def _hold_account(user: Any) -> bool:
    """Whether the account exists; if so, it cannot be deleted before the COMMIT. The lock is the one that the foreign
    key takes anyway, and like there it comes after the head's."""
    meta = user._meta  # noqa: SLF001  (Django documents it)
    table, column = connection.ops.quote_name(meta.db_table), connection.ops.quote_name(meta.pk.column)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {table} WHERE {column} = %s FOR KEY SHARE",
            [meta.pk.get_db_prep_value(user.pk, connection)],
        )
        return cursor.fetchone() is not None
