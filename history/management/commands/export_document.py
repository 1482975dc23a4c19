"""`manage.py export_document`: a document's whole history, to keep, to move or to prove elsewhere."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from documents.models import Document
from documents.opening import NoSuchDocument, document_named
from history.audit.entries import record
from history.errors import HistoryError
from history.models import Action
from history.proof.exports import export_document


class Command(BaseCommand):
    help = (
        "Write the whole history of a document to standard output, as JSON Lines; "
        "history/proof/offline_verify.py proves it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("document", help="name or key")
        parser.add_argument("--pseudonymous", action="store_true", help="leave out who wrote it, and from where")

    def handle(self, *args: Any, document: str, pseudonymous: bool, **options: Any) -> None:
        try:
            found = document_named(document)
            record(Action.EXPORTED, document=found, detail={"of": "history", "pseudonymous": pseudonymous})
            for line in export_document(found.pk, pseudonymous=pseudonymous):
                self.stdout.write(line, ending="")
        except (HistoryError, NoSuchDocument, DatabaseError, Document.DoesNotExist) as error:
            raise CommandError(f"not exported: {error}") from error
