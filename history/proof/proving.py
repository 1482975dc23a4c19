"""Verification of many documents: in the order of their keys, as manifests are written, over several processes, and
recorded as it goes, so that a verification that was killed goes on where it was.

Memory is bounded by the documents that are under way; nothing is skipped but what the record says was looked at."""

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from uuid import UUID

from documents.models import Document
from history.audit.entries import AuditDifference
from history.errors import HistoryError
from history.proof.claims import Claim
from history.proof.told import verify_told
from history.proof.verify import Difference, Progress, Verdict, verify_document
from history.proof.workers import begin

DOCUMENTS_PER_FETCH = 500

UNDER_WAY_PER_JOB = 32
"""Documents handed out to each process ahead of the one whose outcome is waited for: a large one holds up no other."""

RECORD_FORMAT = "palimpsest-verification-1"


@dataclass(frozen=True, slots=True)
class Subject:
    """A document to verify. `document_id` is None for one that manifests know and the database does not."""

    key: UUID
    document_id: int | None
    name: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such document any more. `since` is the manifest that published it as deleted, and None where none
    ever did: then nobody deleted it by the doors of this project, which keep it for DELETED_DOCUMENT_DAYS."""

    last: Claim | None
    since: datetime | None

    @property
    def differs(self) -> bool:
        return self.last is not None and self.since is None


Outcome = Verdict | Difference | AuditDifference | Gone


def subjects(
    claims: Iterable[tuple[UUID, Sequence[Claim]]] = (), *, keys: Collection[UUID] = (), after: UUID | None = None
) -> Iterator[Subject]:
    """Every document, or those of `keys`, with what is claimed of it, and every document that is only claimed; in the
    order of their keys, from the first behind `after` on. `claims` come in that order."""
    chosen = frozenset(keys)
    wanted = ((key, of_it) for key, of_it in claims if (not chosen or key in chosen) and (after is None or key > after))
    waiting = next(wanted, None)
    for document_id, key, name in _documents(chosen, after):
        while waiting is not None and waiting[0] < key:
            yield Subject(waiting[0], None, "", tuple(waiting[1]))
            waiting = next(wanted, None)
        of_it: Sequence[Claim] = ()
        if waiting is not None and waiting[0] == key:
            of_it = waiting[1]
            waiting = next(wanted, None)
        yield Subject(key, document_id, name, tuple(of_it))
    while waiting is not None:
        yield Subject(waiting[0], None, "", tuple(waiting[1]))
        waiting = next(wanted, None)


def _documents(keys: Collection[UUID], after: UUID | None) -> Iterator[tuple[int, UUID, str]]:
    """By pages: a verification may take hours, and holds no cursor and no transaction meanwhile."""
    documents = Document.objects.filter(key__in=keys) if keys else Document.objects.all()
    while True:
        behind = documents if after is None else documents.filter(key__gt=after)
        page = list(behind.order_by("key").values_list("pk", "key", "name")[:DOCUMENTS_PER_FETCH])
        yield from page
        if len(page) < DOCUMENTS_PER_FETCH:
            return
        after = page[-1][1]


def prove(subject: Subject, progress: Progress | None = None) -> Outcome:
    """Verify one document, its log first, then its audit and the names and versions that it tells of."""
    if subject.document_id is not None:
        try:
            outcome = verify_document(subject.document_id, claims=subject.claims, progress=progress)
            if not isinstance(outcome, Verdict):
                return outcome
            audit = verify_told(subject.document_id)
            if isinstance(audit, AuditDifference):
                return audit
            return replace(outcome, acts_unknown=audit.authors_unknown, details_erased=audit.details_erased)
        except Document.DoesNotExist:
            pass  # purged since the list was read
    last = max(subject.claims, key=lambda claim: claim.created_at, default=None)
    return Gone(last, last.created_at if last is not None and last.head.is_deleted else None)


def prove_all(
    subjects: Iterable[Subject], *, jobs: int = 1, progress: Callable[[Subject], Progress] | None = None
) -> Iterator[tuple[Subject, Outcome]]:
    """Verify them over so many processes, each with a database connection of its own; outcomes come in the order given.

    With one job it is this process, which tells `progress` how far it is within each. Raises: BrokenProcessPool when
    one of them died."""
    if jobs == 1:
        for subject in subjects:
            yield subject, prove(subject, None if progress is None else progress(subject))
        return
    under_way: deque[tuple[Subject, Future[Outcome]]] = deque()
    # Not forked: a child would share the parent's connection to the database.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin) as pool:
        try:
            for subject in subjects:
                under_way.append((subject, pool.submit(prove, subject)))
                if len(under_way) >= jobs * UNDER_WAY_PER_JOB:
                    first, outcome = under_way.popleft()
                    yield first, outcome.result()
            while under_way:
                first, outcome = under_way.popleft()
                yield first, outcome.result()
        finally:
            pool.shutdown(cancel_futures=True)


class RecordRefused(HistoryError):
    """A file cannot be gone on from."""


class Record:
    """A file that says what was looked at, and with what outcome: JSON Lines, one for each document in their order.

    It may be killed at any byte: half a line at the end is dropped, and its document looked at again."""

    def __init__(self, path: Path, *, manifests: Iterable[bytes]) -> None:
        """Begin a record, or go on with one. `manifests` are the sha256 of what documents are held to.

        Raises: RecordRefused where it is of other manifests, of a verification that ended, or no record; OSError."""
        self._path = path
        header = {"format": RECORD_FORMAT, "manifests": sorted(each.hex() for each in manifests)}
        self.after: UUID | None = None
        self.differences: list[str] = []
        """What was found earlier, as sentences."""
        self.looked_at = 0
        self._file: BinaryIO = path.open("a+b")
        try:
            end = self._read(header)
        except RecordRefused:
            self._file.close()
            raise
        self._file.truncate(end)
        if end == 0:
            self._write(header)

    def add(self, subject: Subject, outcome: Outcome, difference: str | None) -> None:
        """Say what was found: the head that is proven, or the difference as a sentence."""
        line: dict[str, Any] = {"document": str(subject.key)}
        if difference is not None:
            line["difference"] = difference
        elif isinstance(outcome, Verdict):
            line |= {"seq": outcome.head_seq, "hash": outcome.head_hash.hex()}
        self._write(line)

    def finish(self) -> None:
        self._write({"ended": True})

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def _read(self, header: dict[str, Any]) -> int:
        """Read what is there; return where its last whole line ends."""
        self._file.seek(0)
        end = 0
        for data in self._file:
            if not data.endswith(b"\n"):
                break
            try:
                line = json.loads(data)
                if end == 0 and line != header:
                    raise RecordRefused(f"{self._path} is not the record of a verification with these manifests")
                if line.get("ended"):
                    raise RecordRefused(f"{self._path} is of a verification that has ended; name a new file")
                if end:
                    self._take(line)
            except (ValueError, AttributeError, KeyError):
                raise RecordRefused(f"{self._path} is not the record of a verification") from None
            end += len(data)
        return end

    def _take(self, line: dict[str, Any]) -> None:
        self.after = UUID(line["document"])
        self.looked_at += 1
        if "difference" in line:
            self.differences.append(str(line["difference"]))
