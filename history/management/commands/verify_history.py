"""`manage.py verify_history [document …]`: prove that the log is what was appended, and say where it is not."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from documents.models import Document
from history.verify import Difference, verify_document


class Command(BaseCommand):
    help = "Recompute every hash, run and snapshot of documents; exit non-zero on the first difference, saying where."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("documents", nargs="*", metavar="document", help="name or key; all documents when none")

    def handle(self, *args: Any, **options: Any) -> None:
        count = 0
        for document in _documents(options["documents"]):
            self._verify(document)
            count += 1
        self.stdout.write(self.style.SUCCESS(f"{count} documents: no difference"))

    def _verify(self, document: Document) -> None:
        try:
            outcome = verify_document(document.pk, progress=lambda seq, head: self._progress(document, seq, head))
        except Document.DoesNotExist:
            return  # purged since the list was read
        if isinstance(outcome, Difference):
            raise CommandError(f"{document.name} ({document.key}): seq {outcome.seq}: {outcome.what}")
        unknown = f", {outcome.authors_unknown} sessions of unknown authors" if outcome.authors_unknown else ""
        self.stdout.write(
            f"{document.name} ({document.key}): 1..{outcome.head_seq} proven in {outcome.rows} rows and "
            f"{outcome.segments} segments, {outcome.snapshots} snapshots{unknown}"
        )

    def _progress(self, document: Document, seq: int, head: int) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r{document.name}: {seq} of {head}", ending="\r")
            self.stderr.flush()


def _documents(names: list[str]) -> Iterator[Document]:
    if not names:
        yield from Document.objects.order_by("pk").iterator(chunk_size=100)
    for name in names:
        named = Q(name=name)
        with suppress(ValueError):
            named |= Q(key=uuid.UUID(name))
        document = Document.objects.filter(named).first()
        if document is None:
            raise CommandError(f"there is no document of the name or key {name!r}")
        yield document
