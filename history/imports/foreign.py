"""A document of another server's store becomes one of ours: each update through the gate and the append, in the order
of the store and at its time, in one transaction. It is there whole or not at all."""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from django.db import transaction
from django.utils import timezone

from documents.conf import conf
from documents.models import Document
from documents.opening import NameTaken
from history.append import append
from history.crdt.lib0 import Malformed
from history.crdt.parts import pieces_of
from history.crdt.updates import MissingDependency
from history.fates import PendingUpdate, Refused, Stored
from history.gate import Gate, GateBroken, NotTaken
from history.imports.beginnings import AlreadyThere, NotImported, Wanted, begin, mark, taken
from history.imports.compression import looks_compressed
from history.imports.endings import compare_with_log, conclude
from history.imports.outcomes import Outcome, Progress, Result
from history.imports.sources import BadRow, SourceDocument, SourceRow
from history.models import Kind, Via
from history.sessions import WriteSession

BATCH_ROWS_MAX = 2000
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Of one append; a larger row by itself."""

WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Updates of one document that stand in the store before what they build on, and wait for it in memory."""

STRUCT_BYTES_MIN = 2
"""A struct or a deleted range has at least these: a short update cannot have too many of them."""


def import_foreign(kind: str, source: SourceDocument, wanted: Wanted, progress: Progress) -> Outcome:
    """Import one document, if it is not there yet. Raises: SourceError, DatabaseError, LogUnavailable; then nothing of
    it is stored, and it may be asked for again."""
    outcome = Outcome(name=source.name)
    try:
        outcome.name = wanted.name_of(source.name)
        document = _made(kind, source, wanted, outcome, progress)
    except AlreadyThere as there:
        outcome.result, outcome.why = Result.THERE, str(there)
    except NotImported as error:
        outcome.why = str(error)
    else:
        outcome.result = Result.IMPORTED
        conclude(document, outcome.stored)
    return outcome


def _made(kind: str, source: SourceDocument, wanted: Wanted, outcome: Outcome, progress: Progress) -> Document:
    for _ in range(2):
        found = taken(outcome.name, kind, source)
        if found is not None:
            raise found
        try:
            with transaction.atomic():
                document = begin(Document(name=outcome.name), wanted)
                _Intake(document, kind, source, outcome, progress).take_all(skip_bad=wanted.skip_bad)
                mark(document, kind, source)
                return document
        except NameTaken:
            continue  # another one who imports was faster: what it has brought is looked at
    raise NotImported("another document of that name comes and goes meanwhile")


class _Intake:
    """Takes the rows of one document, which is empty and nobody else sees yet."""

    def __init__(
        self, document: Document, kind: str, source: SourceDocument, outcome: Outcome, progress: Progress
    ) -> None:
        self.document = document
        self.source = source
        self.outcome = outcome
        self.progress = progress
        self.session = WriteSession(
            document_id=document.pk,
            user=None,
            via=Via.IMPORT,
            opened_at=timezone.now(),
            requires_role=False,  # it brings what was written under anybody's client ids
            detail={"source": kind, **source.detail},
        )
        self.gate = Gate.load(document.pk)
        self.batch: list[PendingUpdate] = []
        self.batch_bytes = 0
        self.at = source.at
        self.waiting: dict[int, list[tuple[int, int, SourceRow]]] = {}
        """By the client whose unit is missing: a heap of (its clock, when the row came to wait, the row)."""
        self.waiting_bytes = 0
        self.waits = count()

    def take_all(self, *, skip_bad: bool) -> None:
        """Raises: NotImported where a row is bad and is not to be left out, or all are; all have been read then."""
        outcome = self.outcome
        for row in self.source.rows():
            if isinstance(row, BadRow):
                outcome.note_bad(row)
                continue
            outcome.rows += 1
            outcome.bytes += len(row.update)
            self._offer(row)
            if outcome.rows % BATCH_ROWS_MAX == 0:
                self.progress(outcome.rows, outcome.bytes)
        left = sorted((number, row.place) for heap in self.waiting.values() for _, number, row in heap)
        for _, place in left:
            outcome.note_bad(BadRow(place, "it builds on updates that the store does not have"))
        if outcome.bad and not skip_bad:
            raise NotImported(
                f"{outcome.bad} rows are bad, so that nothing of it was imported; --skip-bad leaves them out"
            )
        self._flush()
        if outcome.bad and not outcome.stored:
            raise NotImported("all of it is bad; a document that holds nothing would stand in a mended one's way")
        compare_with_log(self.document, self.gate.intake)

    def _offer(self, row: SourceRow) -> None:
        """Take a row, and all that has waited for it."""
        ready = deque((row,))
        while ready:
            row = ready.popleft()
            try:
                clients = self._take(row)
            except MissingDependency as missing:
                self._wait(row, missing)
            except NotTaken as error:
                self.outcome.note_bad(BadRow(row.place, error.reason.value))
            except (Malformed, GateBroken) as error:
                self.outcome.note_bad(BadRow(row.place, _words(error, row.update)))
                if isinstance(error, GateBroken):
                    self._flush()
                    self.gate = Gate.load(self.document.pk)
            else:
                for client in clients:
                    ready.extend(self._freed(client))

    def _wait(self, row: SourceRow, missing: MissingDependency) -> None:
        if self.waiting_bytes + len(row.update) > WAITING_BYTES_MAX:
            self.outcome.note_bad(BadRow(row.place, "it stands too far before what it builds on"))
            return
        self.waiting_bytes += len(row.update)
        heappush(self.waiting.setdefault(missing.client, []), (missing.clock, next(self.waits), row))

    def _freed(self, client: int) -> Iterator[SourceRow]:
        heap = self.waiting.get(client, [])
        while heap and heap[0][0] < self.gate.guard.known.get(client, 0):
            row = heappop(heap)[2]
            self.waiting_bytes -= len(row.update)
            yield row

    def _take(self, row: SourceRow) -> set[int]:
        """The clients under whose ids it brought something new.

        Raises: what `Gate.take` does; but for NotTaken, nothing of it is in the document then."""
        if row.at is None:
            self.outcome.untimed += 1
        self.at = row.at or self.at
        clients: set[int] = set()
        for update in self._pieces(row.update):
            taken = self.gate.take(update, self.session)
            if taken is not None:
                clients |= taken.clients
                self.batch.append(
                    PendingUpdate(
                        session=self.session,
                        payload=taken.update,
                        kind=Kind.IMPORT,
                        splits=taken.splits,
                        at=self.at or self.session.opened_at,
                    )
                )
                self.batch_bytes += len(taken.update)
        if len(self.batch) >= BATCH_ROWS_MAX or self.batch_bytes >= BATCH_BYTES_MAX:
            self._flush()
        return clients

    def _pieces(self, update: bytes) -> Iterator[bytes]:
        """The update itself, or what it is in rows that a log may have."""
        bytes_max, parts_max = conf().update_bytes_max, conf().update_structs_max
        if len(update) <= min(bytes_max, parts_max * STRUCT_BYTES_MIN):
            yield update
            return
        # Half, as pycrdt may write a little more than it was given.
        known = dict(self.gate.guard.known)
        for piece in pieces_of(update, known, bytes_max=bytes_max // 2, parts_max=parts_max // 2):
            if len(piece) > bytes_max:
                raise Malformed("one piece of it is larger than UPDATE_BYTES_MAX")
            yield piece

    def _flush(self) -> None:
        """Raises: NotImported, LogUnavailable."""
        if not self.batch:
            return
        for fate in append(self.batch):
            match fate:
                case Refused(reason):
                    raise NotImported(reason.value)
                case Stored():
                    self.outcome.stored = fate.seq
                    self.outcome.note_time(fate.at)
        self.batch, self.batch_bytes = [], 0


def _words(error: Exception, update: bytes) -> str:
    compression = looks_compressed(update)
    if isinstance(error, Malformed) and compression is not None:
        return f"{error} (it begins as what is compressed with {compression}: --compressed {compression})"
    return str(error)
