"""`manage.py export_document`: documents' whole history, to keep, to move or to prove elsewhere."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
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
        "Write the whole history of a document to standard output, as JSON Lines; with --to, of several or all, into a "
        "file for each. history/proof/offline_verify.py proves it, import_documents makes the document of it again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("documents", nargs="*", metavar="document", help="name or key")
        parser.add_argument("--all", action="store_true", help="every document that is not deleted")
        parser.add_argument("--to", metavar="FOLDER", help="a file for each, <key>.jsonl, written whole or not at all")
        parser.add_argument("--pseudonymous", action="store_true", help="leave out who wrote it, and from where")

    def handle(
        self, *args: Any, documents: list[str], all: bool, to: str | None, pseudonymous: bool, **options: Any
    ) -> None:
        if bool(documents) == all:
            raise CommandError("either name documents or say --all")
        if to is None and (all or len(documents) > 1):
            raise CommandError("standard output takes one document: say --to FOLDER for a file for each")
        try:
            if to is None:
                write = partial(self.stdout.write, ending="")
                self._export(document_named(documents[0]), write, pseudonymous=pseudonymous)
                return
            found = Document.objects.present().order_by("id").iterator() if all else map(document_named, documents)
            for document in found:
                self._export_to(Path(to), document, pseudonymous=pseudonymous)
        except (HistoryError, NoSuchDocument, DatabaseError, Document.DoesNotExist, OSError) as error:
            raise CommandError(f"not exported: {error}") from error

    def _export_to(self, folder: Path, document: Document, *, pseudonymous: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{document.key}.jsonl"
        part = path.with_suffix(".part")
        with part.open("w", encoding="ascii") as out:
            self._export(document, out.write, pseudonymous=pseudonymous)
        os.replace(part, path)
        self.stdout.write(f"{document.name}: {path.name}")

    def _export(self, document: Document, write: Callable[[str], object], *, pseudonymous: bool) -> None:
        record(Action.EXPORTED, document=document, detail={"of": "history", "pseudonymous": pseudonymous})
        for line in export_document(document.pk, pseudonymous=pseudonymous):
            write(line)
