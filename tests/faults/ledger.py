"""What the log of some documents holds, read as it grows and judged: order, authors, and what others had seen.

It reads on a connection of its own through `history.log`, rows and segments alike, and trusts nothing that a worker
says."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from history.crdt.updates import Id, Kind, Struct, advance, decode_update, missing_dependency
from history.log import LogRow, consistent_read, head_of, read_log
from history.models import Kind as RowKind
from history.models import Session
from tests.clients.stack import Database

TOKEN = re.compile(r"(\d+|task)\.\d+", re.ASCII)
WRONG_MAX = 20
"""Findings that are kept; a broken log would fill the memory with them."""


@dataclass(slots=True)
class RoomLog:
    """One document's log up to `seq`. `writers` are the users under whose sessions a client's new structs came."""

    room: str
    document_id: int
    seq: int = 0
    clocks: dict[int, int] = field(default_factory=dict)
    writers: defaultdict[int, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    tokens: dict[str, Id] = field(default_factory=dict)
    copied_structs: int = 0
    rows: int = 0
    users: dict[int, int | None] = field(default_factory=dict)
    """The user of each session."""

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
        user = self.users[row.session_id]
        for struct in update.structs:
            if struct.clock + struct.length > self.clocks.get(struct.client, 0):
                self.writers[struct.client].add(user)
            else:
                self.copied_structs += 1
            self._take_tokens(row.seq, struct, wrong)
        advance(self.clocks, update)

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
            for client, users in self.logs[room].writers.items():
                owner = self.owners[room].get(client, "nobody that is known")
                if users != {owner}:
                    self._say(f"{room}: structs of client {client}, of user {owner}, came first from users {users}")

    def _read(self, logs: Iterable[RoomLog]) -> None:
        wrong: list[str] = []
        for log in logs:
            with consistent_read():
                head = head_of(log.document_id)
                rows = list(read_log(log.document_id, after=log.seq, until=head.seq))
                unknown = {row.session_id for row in rows} - log.users.keys()
                sessions = Session.objects.filter(document_id=log.document_id, id__in=unknown)
                log.users.update(sessions.values_list("id", "user_id"))
            for row in rows:
                log.take(row, wrong)
        for finding in wrong:
            self._say(finding)

    def _say(self, finding: str) -> None:
        if len(self.wrong) < WRONG_MAX and finding not in self.wrong:
            self.wrong.append(finding)
