"""What the log of some documents holds, read as it grows and judged: order, authors, and what others had seen.

It reads on a connection of its own through `history.log`, rows and segments alike, and trusts nothing that a worker
says."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pycrdt import Doc

from history.crdt.updates import Id, Kind, Struct, advance, decode_update, missing_dependency
from history.log import LogRow, consistent_read, head_of, read_log, read_splits, read_updates
from history.models import Kind as RowKind
from history.models import Session
from tests.clients.stack import Database

AGENT = re.compile(r"crowd (\d+) (\d+)", re.ASCII)
"""How a client of the crowd presents each connection of its: its client id, and the how manieth it is."""
TOKEN = re.compile(r"(\d+|task)\.\d+", re.ASCII)
UNKNOWN = -1
"""Nobody that is known: no user has this key."""
WRONG_MAX = 20
"""Findings that are kept; a broken log would fill the memory with them."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote under a session: a user, on the n-th connection of one client; no client where it was no socket's."""

    user: int | None
    client: int | None = None
    connection: int = 0

    @classmethod
    def of(cls, user: int | None, user_agent: str) -> Self:
        found = AGENT.fullmatch(user_agent)
        return cls(user) if found is None else cls(user, int(found[1]), int(found[2]))


@dataclass(slots=True)
class RoomLog:
    """One document's log up to `seq`. `writers` are those under whose sessions a client's new structs came: its own
    connections, in their order, and nobody else's. On which of them a struct was made no client says: what was sent on
    one that broke, and was not stored, is the next one's."""

    room: str
    document_id: int
    seq: int = 0
    clocks: dict[int, int] = field(default_factory=dict)
    writers: defaultdict[int, set[tuple[int | None, int | None]]] = field(default_factory=lambda: defaultdict(set))
    """By client: user and client of the sessions."""
    connections: dict[int, int] = field(default_factory=dict)
    tokens: dict[str, Id] = field(default_factory=dict)
    copied_structs: int = 0
    copied_rows: set[int] = field(default_factory=set)
    """Seqs of rows in which all is a copy and nothing is deleted: the log says the same without them."""
    rows: int = 0
    authors: dict[int, Author] = field(default_factory=dict)
    """Who each session is."""

    def take(self, row: LogRow, wrong: list[str]) -> None:
        """Judge the next row and take it in."""
        self.seq = row.seq
        self.rows += 1
        if row.kind == RowKind.SPLIT:
            return
        update = decode_update(row.payload)
        missing = missing_dependency(update, self.clocks)
        if missing is not None:
            wrong.append(f"{self.room}@{row.seq} is not in causal order: it needs {missing}")
        author = self.authors[row.session_id]
        for struct in update.structs:
            if not self._is_copy(struct):
                self.writers[struct.client].add((author.user, author.client))
                if author.connection < self.connections.get(struct.client, 0):
                    wrong.append(f"{self.room}@{row.seq} is of a connection before the last of client {struct.client}")
                self.connections[struct.client] = author.connection
            else:
                self.copied_structs += 1
            self._take_tokens(row.seq, struct, wrong)
        if update.structs and not update.deletes and all(map(self._is_copy, update.structs)):
            self.copied_rows.add(row.seq)
        advance(self.clocks, update)

    def _is_copy(self, struct: Struct) -> bool:
        return struct.clock + struct.length <= self.clocks.get(struct.client, 0)

    def _take_tokens(self, seq: int, struct: Struct, wrong: list[str]) -> None:
        if struct.kind is not Kind.ANY or not isinstance(struct.content, list):
            return
        for place, token in enumerate(struct.content, struct.clock):
            if isinstance(token, str) and TOKEN.fullmatch(token):
                first = self.tokens.setdefault(token, (struct.client, place))
                if first != (struct.client, place):
                    wrong.append(f"{self.room}@{seq} holds {token} a second time, as {struct.client, place}")


class Ledger:
    """All documents of a run. `wrong` collects, in words, whatever must not be."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.logs: dict[str, RoomLog] = {}
        self.wrong: list[str] = []
        self.seen: dict[str, set[str]] = {}
        self.owners: dict[str, dict[int, int | None]] = {}
        """By room: the user of each client id, as those who made the edits say."""

    def add(self, room: str, document_id: int) -> None:
        self.logs[room] = RoomLog(room, document_id)
        self.seen[room] = set()
        self.owners[room] = {}

    @property
    def seen_count(self) -> int:
        return sum(len(tokens) for tokens in self.seen.values())

    def note(self, room: str, *, tokens: Iterable[str], users: Mapping[int, int | None]) -> int:
        """Others have seen these tokens, and these users have these client ids; return how many were new."""
        before = len(self.seen[room])
        self.seen[room].update(tokens)
        self.owners[room].update(users)
        return len(self.seen[room]) - before

    async def read(self, rooms: Iterable[str]) -> None:
        """Read what the log holds now, and judge its order."""
        await self._database.run(self._read, [self.logs[room] for room in rooms])

    async def compare(self, rooms: Iterable[str]) -> None:
        """As `read`; and all that was noted as seen is in it, under whom it is said to be. Nobody writes meanwhile."""
        await self.read(rooms)
        for room in rooms:
            lost = self.seen[room] - self.logs[room].tokens.keys()
            if lost:
                self._say(f"{room}: {len(lost)} edits that others saw are not in the log: {sorted(lost)[:5]}")
            for client, writers in self.logs[room].writers.items():
                owner = self.owners[room].get(client, UNKNOWN)
                if writers != {(owner, None if owner is None else client)}:
                    self._say(f"{room}: structs of client {client}, of user {owner}, came first from {writers}")

    async def without_copies(self, room: str) -> bytes:
        """What the log folds to, as far as it has been read, where the rows that only copy others are left out."""
        return await self._database.run(self._fold_without_copies, self.logs[room])

    def _fold_without_copies(self, log: RoomLog) -> bytes:
        doc: Doc[Any] = Doc(skip_gc=True)
        with consistent_read():
            splits = read_splits(log.document_id, until=log.seq)
            for row in read_updates(log.document_id, after=0, until=log.seq, splits=splits):
                if row.seq not in log.copied_rows:
                    doc.apply_update(row.payload)
        return doc.get_update()

    def _read(self, logs: Iterable[RoomLog]) -> None:
        wrong: list[str] = []
        for log in logs:
            with consistent_read():
                head = head_of(log.document_id)
                rows = list(read_log(log.document_id, after=log.seq, until=head.seq))
                unknown = {row.session_id for row in rows} - log.authors.keys()
                sessions = Session.objects.filter(document_id=log.document_id, id__in=unknown)
                for session_id, user, user_agent in sessions.values_list("id", "user_id", "user_agent"):
                    log.authors[session_id] = Author.of(user, user_agent)
            for row in rows:
                log.take(row, wrong)
        for finding in wrong:
            self._say(finding)

    def _say(self, finding: str) -> None:
        if len(self.wrong) < WRONG_MAX and finding not in self.wrong:
            self.wrong.append(finding)
