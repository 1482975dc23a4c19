"""An export of this project becomes the document that it was: the same key, rows, hashes, sessions and versions.

The chain is recomputed on the way and every row passes the guard, whoever made the file. One transaction: it is there
whole or not at all. Sessions keep their commitments; `imported_authors` says whose they are here."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, connection, models, transaction
from django.utils import timezone

from documents.conf import conf
from documents.models import Document, Membership, Role
from documents.naming import NAME_LENGTH_MAX
from documents.opening import TITLE_LENGTH_MAX, NameTaken
from documents.roles import User
from history.append import INSERT_UPDATES
from history.crdt.chain import GENESIS, commitment, row_hash
from history.crdt.lib0 import Malformed
from history.crdt.splits import NO_SPLITS, Splits, decode_splits
from history.crdt.updates import MissingDependency
from history.gate import Gate, GateBroken
from history.imported_authors import match_authors
from history.imports.accounts import Accounts, Users
from history.imports.beginnings import AlreadyThere, NotImported, Wanted, begin
from history.imports.endings import compare_with_log, conclude
from history.imports.export_lines import FORMATS, BadExport, Line, lines_in
from history.imports.outcomes import Outcome, Progress, Result
from history.imports.sources import BadRow
from history.log import hash_at
from history.models import (
    VERSION_NAME_LENGTH_MAX,
    VERSION_NOTE_LENGTH_MAX,
    Client,
    Head,
    Kind,
    Request,
    Session,
    Split,
    Version,
    Via,
)
from history.sessions import SALT_BYTES, USER_AGENT_LENGTH_MAX, canonical_ip
from history.times import microseconds
from history.versions import clean_name, clean_note

ROWS_PER_BATCH = 2000
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Of one INSERT; a larger row by itself."""

USERNAME_LENGTH_MAX = 254
ACTOR_LENGTH_MAX = 64
REQUEST_KEY_LENGTH_MAX = 200
ADDRESS_LENGTH_MAX = 45
NAMES_TOLD_MAX = 10
"""Accounts that are not here and are named; the others are counted."""


def import_export(file: BinaryIO, wanted: Wanted, users: Users, progress: Progress) -> Outcome:
    """Import one document, if it is not there yet. Raises: DatabaseError, OSError; nothing of it is stored then."""
    outcome = Outcome(name="an export")
    try:
        try:
            with transaction.atomic():
                whole = _Whole(wanted, users, outcome, progress)
                for line in lines_in(file, payload_bytes_max=conf().update_bytes_max):
                    whole.take(line)
        except (IntegrityError, DataError) as error:
            raise NotImported(f"the database does not take it: {type(error.__cause__ or error).__name__}") from error
    except AlreadyThere as there:
        outcome.result, outcome.why = Result.THERE, str(there)
    except BadExport as error:
        outcome.why = "the export is not what it says to be"
        outcome.note_bad(BadRow(f"line {error.line}", error.what))
    except NotImported as error:
        outcome.why = str(error)
    else:
        outcome.result = Result.IMPORTED
        conclude(whole.document, outcome.stored)
    return outcome


@dataclass(frozen=True, slots=True)
class _Said:
    """Where the first line says that the log ends."""

    seq: int
    hash: bytes
    epoch: int


class _Whole:
    """Takes the lines of one export, in their order; after the last one the document is there."""

    document: Document
    said: _Said
    gate: Gate

    def __init__(self, wanted: Wanted, users: Users, outcome: Outcome, progress: Progress) -> None:
        self.wanted = wanted
        self.outcome = outcome
        self.progress = progress
        self.now = timezone.now()
        self.accounts = Accounts(users)
        self.counts: dict[str, int] = {}
        self.commitments: dict[int, bytes] = {}
        self.matched: dict[str, set[User]] = {}
        self.strangers = 0
        self.seq = 0
        self.hash = GENESIS
        self.at: datetime | None = None
        self.splits: Splits = NO_SPLITS
        self.columns: list[list[Any]] = [[] for _ in range(7)]
        self.batch_bytes = 0
        self.waiting: list[models.Model] = []

    def take(self, line: Line) -> None:
        """Raises: BadExport, NotImported, AlreadyThere."""
        if line.kind not in self.counts:
            self._flush()  # of the kind before, to which this one may refer
        self.counts[line.kind] = self.counts.get(line.kind, 0) + 1
        self.outcome.bytes += line.size
        match line.kind:
            case "document":
                self._begin(line)
            case "session":
                self._session(line)
            case "row":
                self._row(line)
            case "version":
                self._version(line)
            case "client":
                self._client(line)
            case "request":
                self._request(line)
            case "member":
                self._member(line)
            case _:
                self._end(line)

    def _begin(self, line: Line) -> None:
        if line.text("format", length_max=100) not in FORMATS:
            line.refuse("it is of a format that is not known here")
        try:
            key = UUID(line.text("document", length_max=36))
        except ValueError:
            line.refuse("document is no key")
        name = line.text("name", length_max=NAME_LENGTH_MAX)
        seq = line.integer("seq")
        self.said = _Said(seq, line.hex("hash", lengths=(32,) if seq else (0,)), line.integer("epoch", least=1))
        self.outcome.name = name
        self.outcome.name = self.wanted.name_of(name)
        title = line.text("title", length_max=TITLE_LENGTH_MAX)
        created_at = line.at("created_at_microseconds", now=self.now)
        self._look_for(key)
        document = Document(key=key, name=self.outcome.name, title=title, created_at=created_at)
        try:
            self.document = begin(document, self.wanted)
        except NameTaken as error:
            self._look_for(key)  # another one who imports may have been faster
            raise NotImported("there is another document of that name: give this one another (--rename)") from error
        self.gate = Gate.load(self.document.pk)

    def _look_for(self, key: UUID) -> None:
        """Raises: AlreadyThere, NotImported where a document has the key."""
        found = Document.objects.filter(key=key).first()
        if found is None:
            return
        if hash_at(found, self.said.seq) != self.said.hash:
            raise NotImported("there is a document of its key whose history is another one")
        told = "" if found.name == self.outcome.name else f"as {found.name}"
        raise AlreadyThere(f"{told} deleted since".strip() if found.deleted_at else told)

    def _session(self, line: Line) -> None:
        id_, via, said = line.integer("id"), line.integer("via"), line.hex("commitment", lengths=(32,))
        key, username = self._who(line)
        salt = line.hex("salt", lengths=(0, SALT_BYTES), default="")
        ip = line.text("ip", length_max=ADDRESS_LENGTH_MAX, default="")
        if id_ in self.commitments:
            line.refuse("the session is there twice")
        if via not in Via.values or ip != (canonical_ip(ip) or ""):
            line.refuse("there is no such door or address")
        is_proven = bool(salt) and commitment(salt=salt, user=key, via=via, ip=ip) == said
        if (key or username) and not (key and is_proven):
            line.refuse("who wrote it was altered: it is not what its commitment says")
        account = self.accounts.of(username)
        if account is not None:
            self.matched.setdefault(key, set()).add(account)
        self.strangers += bool(key and account is None)
        self.commitments[id_] = said
        # A salt without its account is of somebody whom nobody here is: an account here may have the same key.
        keeps_salt = is_proven and (account is not None or not key)
        self._insert(
            Session(
                document=self.document,
                id=id_,
                user=account,
                via=via,
                ip=ip or None,
                user_agent=line.text("user_agent", length_max=USER_AGENT_LENGTH_MAX, default=""),
                salt=salt if keeps_salt else b"",
                commitment=said,
                opened_at=line.at("opened_at_microseconds", now=self.now),
                detail=line.object("detail"),
            )
        )

    def _row(self, line: Line) -> None:
        seq, kind, session = line.integer("seq"), line.integer("kind"), line.integer("session")
        at = line.at("at_microseconds", now=self.now)
        payload = line.base64("payload", bytes_max=conf().update_bytes_max)
        if seq != self.seq + 1 or (self.at is not None and at < self.at):
            line.refuse(f"it is no row behind seq {self.seq}")
        if session not in self.commitments or kind not in Kind.values:
            line.refuse("there is no such session or kind")
        self.hash = row_hash(
            self.hash,
            document_key=self.document.key.bytes,
            seq=seq,
            kind=kind,
            at_microseconds=microseconds(at),
            session_commitment=self.commitments[session],
            payload=payload,
        )
        if self.hash.hex() != line.text("hash", length_max=64):
            line.refuse(f"seq {seq} was altered: it is not what its hash says")
        self._follow(line, seq, kind, payload)
        self.seq, self.at = seq, at
        self.outcome.rows = self.outcome.stored = seq
        self.outcome.note_time(at)
        row = self.document.pk, seq, session, kind, at, payload, self.hash
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)
        self.batch_bytes += len(payload)
        if len(self.columns[0]) >= ROWS_PER_BATCH or self.batch_bytes >= BATCH_BYTES_MAX:
            self._flush()
            self.progress(seq, self.outcome.bytes)

    def _follow(self, line: Line, seq: int, kind: int, payload: bytes) -> None:
        """Have the guard judge a row, and keep what it splits."""
        try:
            if kind != Kind.SPLIT:
                self.gate.follow(seq, payload, known=False, splits=self.splits)
                self.splits = NO_SPLITS
                return
            self.splits |= decode_splits(payload)
        except (Malformed, MissingDependency, GateBroken) as error:
            line.refuse(f"seq {seq} is no update that a log may hold: {error}")
        splits = [Split(document=self.document, client=client, clock=clock, seq=seq) for client, clock in self.splits]
        Split.objects.bulk_create(splits, ignore_conflicts=True)

    def _version(self, line: Line) -> None:
        seq, automatic = line.integer("seq"), line.flag("automatic")
        if seq > self.seq:
            line.refuse(f"the log has no seq {seq}")
        name = line.text("name", length_max=VERSION_NAME_LENGTH_MAX)
        note = line.text("note", length_max=VERSION_NOTE_LENGTH_MAX)
        try:
            is_one = (name == "" if automatic else clean_name(name) == name) and clean_note(note) == note
        except ValidationError:
            is_one = False
        if not is_one:
            line.refuse("no version has such a name or note")
        self._insert(
            Version(
                document=self.document,
                id=line.integer("id"),
                seq=seq,
                at=line.optional_at("at_microseconds", now=self.now),
                name=name,
                note=note,
                created_by=self.accounts.of(self._who(line)[1]),
                created_at=line.at("created_at_microseconds", now=self.now),
                locked=line.flag("locked"),
                automatic=automatic,
            )
        )

    def _client(self, line: Line) -> None:
        """A client id of somebody who is not here is nobody's: nobody else could go on under it unnoticed."""
        account = self.accounts.of(self._who(line)[1])
        if account is not None:
            self._insert(Client(document=self.document, client_id=line.integer("client"), actor=str(account.pk)))

    def _request(self, line: Line) -> None:
        key, username = self._who(line)
        seq = line.integer("seq")
        if seq > self.seq:
            line.refuse(f"the log has no seq {seq}")
        account = self.accounts.of(username)
        if account is not None or not key:
            actor = "" if account is None else str(account.pk)
            name = line.text("key", length_max=REQUEST_KEY_LENGTH_MAX)
            self._insert(Request(document=self.document, actor=actor, key=name, seq=seq))

    def _member(self, line: Line) -> None:
        roles = {role.label: role for role in Role}
        role = roles.get(line.text("role", length_max=20))
        if role is None:
            line.refuse("there is no such role")
        account = self.accounts.of(self._who(line)[1])
        if account is not None and account != self.wanted.owner:
            Membership.objects.create(document=self.document, user=account, role=role)

    def _end(self, line: Line) -> None:
        for kind in ("session", "row", "version", "client", "request", "member"):
            if line.fields.get(f"{kind}s", 0) != self.counts.get(kind, 0):
                line.refuse(f"the export should have another number of lines of the kind {kind}")
        if (self.seq, self.hash) != (self.said.seq, self.said.hash):
            line.refuse("the rows do not lead to the head that its first line tells of")
        end: dict[str, Any] = {"seq": self.seq, "hash": self.hash, "epoch": self.said.epoch}
        Head.objects.filter(document=self.document).update(**end, **({} if self.at is None else {"at": self.at}))
        matched = ((key, account) for key, accounts in self.matched.items() for account in accounts)
        match_authors(self.document, matched, last_seq=self.seq)
        compare_with_log(self.document, self.gate.intake)
        self._tell()

    def _tell(self) -> None:
        notes = self.outcome.notes
        if missing := self.accounts.missing:
            told = ", ".join(missing[:NAMES_TOLD_MAX]) + (", …" if len(missing) > NAMES_TOLD_MAX else "")
            notes.append(f"not here: {told} ({len(missing)} in all); {self.strangers} sessions are of nobody")
        elif self.strangers:
            notes.append(f"{self.strangers} sessions are of nobody here")
        if self.accounts.made:
            notes.append(f"accounts made, which cannot sign in: {', '.join(sorted(self.accounts.made))}")
        owners = Membership.objects.filter(document=self.document, role=Role.OWNER)
        if not owners.exists():
            notes.append("nobody owns it: give it an owner in the admin")

    def _who(self, line: Line) -> tuple[str, str]:
        """The account's key where the export was made, and its user name; empty for nobody."""
        key = line.text("user", length_max=ACTOR_LENGTH_MAX, default="")
        return key, line.text("username", length_max=USERNAME_LENGTH_MAX, default="")

    def _insert(self, row: models.Model) -> None:
        self.waiting.append(row)
        if len(self.waiting) >= ROWS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        """Insert what waits: rows of the log, or models of one kind."""
        if self.columns[0]:
            with connection.wrap_database_errors:
                psycopg.Cursor(connection.connection).execute(INSERT_UPDATES, self.columns, binary=True)
            self.columns, self.batch_bytes = [[] for _ in range(7)], 0
        if self.waiting:
            type(self.waiting[0])._default_manager.bulk_create(self.waiting)  # noqa: SLF001 (public, despite its name)
            self.waiting = []
