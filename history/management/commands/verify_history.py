"""`manage.py verify_history`: is what the database says what was appended, and what was published?"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone

from documents.opening import NoSuchDocument, document_named
from history.audit.entries import AuditDifference, audits_of_no_document, verify_audit
from history.errors import HistoryError
from history.proof.claims import Claim
from history.proof.proving import Gone, Outcome, Record, Subject, prove_all, subjects
from history.proof.published_audits import contradictions
from history.proof.published_days import false_days, overdue
from history.proof.verify import Difference, Progress

if TYPE_CHECKING:
    from history.proof.manifests import ManifestFile

DIFFERS, INCOMPLETE = 1, 2
"""Exit codes, beside 0: something differs; or it could not be said of all that was asked for."""


class Command(BaseCommand):
    help = """Recompute every hash, run, snapshot and audit of documents; hold them to manifests that were published.

Exit codes: 0 nothing differs; 1 something does, the first difference of each document is named; 2 it could not all be
verified."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("documents", nargs="*", metavar="document", help="name or key; all documents when none")
        parser.add_argument("--manifest", type=Path, action="append", nargs="+", default=[], metavar="FILE")
        parser.add_argument(
            "--public-key", type=Path, action="append", default=[], metavar="FILE", help="whose manifests to believe"
        )
        parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that verify at the same time")
        parser.add_argument(
            "--resume", type=Path, metavar="FILE", help="record what was looked at, and go on from there when run again"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            differ, count = self._verify(**options)
        except (HistoryError, DatabaseError, BrokenProcessPool, OSError) as error:
            raise CommandError(f"not all could be verified: {error}", returncode=INCOMPLETE) from error
        if differ:
            raise CommandError(f"{differ} of {count} documents differ", returncode=DIFFERS)
        self.stdout.write(self.style.SUCCESS(f"{count} documents: no difference"))

    def _verify(
        self,
        *,
        documents: list[str],
        manifest: list[list[Path]],
        public_key: list[Path],
        jobs: int,
        resume: Path | None,
        **_: Any,
    ) -> tuple[int, int]:
        """How many differ, of how many."""
        if jobs < 1:
            raise CommandError("--jobs takes a number from 1 on", returncode=INCOMPLETE)
        if resume is not None and documents:
            raise CommandError("--resume is for all documents", returncode=INCOMPLETE)
        try:
            keys = [document_named(name).key for name in documents]
        except NoSuchDocument as error:
            raise CommandError(str(error), returncode=INCOMPLETE) from None
        manifests, claims = self._manifests([path for paths in manifest for path in paths], public_key)
        differ = count = 0
        with ExitStack() as stack:
            record = None
            if resume is not None:
                record = stack.enter_context(Record(resume, manifests=[each.sha256 for each in manifests]))
                differ, count = len(record.differences), record.looked_at
                for earlier in record.differences:
                    self._say_difference(earlier)
            each = subjects(claims, keys=keys, after=None if record is None else record.after)
            for subject, outcome in prove_all(each, jobs=jobs, progress=self._progress):
                difference = self._report(subject, outcome)
                if record is not None:
                    record.add(subject, outcome, difference)
                differ += difference is not None
                count += 1
                self._tell(f"{count} documents")
            if record is not None:
                record.finish()
        differ += self._contradicted_audits(manifests, keys)
        return differ + (0 if keys else self._differing_audits() + self._false_days()), count

    def _false_days(self) -> int:
        """How many days of manifests cannot be; that none was published of late is no difference, and is said."""
        now = timezone.now()
        days = list(false_days(now=now))
        for what in days:
            self._say_difference(f"{what} [history_manifest]")
        if late := overdue(now=now):
            self.stderr.write(self.style.WARNING(late))
        return len(days)

    def _contradicted_audits(self, manifests: "Sequence[ManifestFile]", keys: Collection[UUID]) -> int:
        """Hold the audits, or those of `keys`, to what was published of them; how many documents' differ."""
        if not manifests:
            return 0
        from history.proof.manifests import audit_claims

        claims = (claim for claim in audit_claims(manifests) if not keys or claim.audit.key in keys)
        differing = -1  # claims of one document follow each other, and the first that does not hold is named
        differ = 0
        for claim, what in contradictions(claims, now=timezone.now()):
            if claim.audit.document_id != differing:
                self._say_difference(f"audit of {claim.audit.key}: {what} [history_audithead]")
                differing = claim.audit.document_id
                differ += 1
        return differ

    def _differing_audits(self) -> int:
        """Prove the audits that outlive their documents, and that of acts on no one document; how many differ."""
        differ = 0
        for document_id in audits_of_no_document():
            outcome = verify_audit(document_id)
            if isinstance(outcome, AuditDifference):
                named = f"audit of {f'document {document_id}, which is gone' if document_id else 'no one document'}"
                self._say_difference(f"{named}: entry {outcome.n}: {outcome.what} [history_auditentry]")
                differ += 1
        return differ

    def _manifests(
        self, paths: Sequence[Path], public_keys: Sequence[Path]
    ) -> "tuple[list[ManifestFile], Iterable[tuple[UUID, list[Claim]]]]":
        if not paths:
            return [], []
        # Who holds nothing to manifests need not load the library that checks signatures.
        from history.proof.manifests import claims_by_document, missing_links, open_manifest
        from history.proof.signing import load_public_key

        if not public_keys:
            raise CommandError("--manifest needs --public-key: who signed them?", returncode=INCOMPLETE)
        keys = [load_public_key(path) for path in public_keys]
        manifests = [open_manifest(path, keys=keys) for path in paths]
        for earlier, later in missing_links(manifests):
            what = f"{later.name} does not follow {earlier.name}: one between them is not given, or was replaced"
            self.stderr.write(self.style.WARNING(what))
        return manifests, claims_by_document(manifests)

    def _report(self, subject: Subject, outcome: Outcome) -> str | None:
        """Print what was found; return it where it is a difference."""
        named = f"{subject.name} ({subject.key})" if subject.name else str(subject.key)
        match outcome:
            case Difference():
                difference = f"{named}: seq {outcome.seq}: {outcome.what} [history_{outcome.table}]"
            case AuditDifference():
                difference = f"{named}: entry {outcome.n} of the audit: {outcome.what} [history_auditentry]"
            case Gone(last=None):
                return None
            case Gone(last=Claim() as last, since=None):
                difference = f"{named}: missing; {last.manifest} published seq {last.head.seq}, and not as deleted"
            case Gone():
                self.stdout.write(f"{named}: purged; it was deleted by {outcome.since:%Y-%m-%d %H:%M} UTC")
                return None
            case _:
                counts = {
                    "sessions of unknown authors": outcome.authors_unknown,
                    "entries of the audit of unknown authors": outcome.acts_unknown,
                    "entries of the audit without detail": outcome.details_erased,
                }
                unknown = "".join(f", {count} {what}" for what, count in counts.items() if count)
                agree = f", as {outcome.manifests} manifests say" if outcome.manifests else ""
                self.stdout.write(
                    f"{named}: 1..{outcome.head_seq} proven in {outcome.rows} rows and "
                    f"{outcome.segments} segments, {outcome.snapshots} snapshots{unknown}{agree}"
                )
                return None
        self._say_difference(difference)
        return difference

    def _say_difference(self, difference: str) -> None:
        self.stdout.write(self.style.ERROR(difference))

    def _progress(self, subject: Subject) -> Progress:
        return lambda seq, head: self._tell(f"{subject.name}: {seq} of {head}")

    def _tell(self, what: str) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r\x1b[K{what}", ending="\r")
            self.stderr.flush()
