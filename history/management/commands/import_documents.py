"""`manage.py import_documents`: documents from other servers' stores, and from exports of this project."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from documents.acts import Actor, acting
from documents.roles import User
from history.errors import HistoryError
from history.imports.accounts import Users
from history.imports.beginnings import Wanted
from history.imports.compression import COMPRESSIONS
from history.imports.foreign import import_foreign
from history.imports.hocuspocus import DEFAULT_TABLE
from history.imports.opening import FOREIGN_FORMATS, OWN_FORMAT, open_exports, open_foreign
from history.imports.outcomes import Outcome
from history.imports.sources import SourceError
from history.imports.telling import Telling
from history.imports.whole import import_export

STAYS = "What was imported stays. Run it again to go on."


class Command(BaseCommand):
    help = (
        "Import documents with the times of their updates. What is there already is left alone, so that an import "
        "that was interrupted is simply run again. docs/importing.md tells of each format."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("format", choices=(*FOREIGN_FORMATS, OWN_FORMAT))
        parser.add_argument("sources", nargs="+", metavar="source", help="a file or folder; a Postgres URL; - is stdin")
        parser.add_argument("--owner", help="user name of who is to own the documents")
        parser.add_argument("--open", action="store_true", help="anyone may open them while OPEN_ROOMS is on")
        parser.add_argument("--prefix", default="", help="goes before every name, as in team/")
        parser.add_argument(
            "--rename", nargs=2, action="append", default=[], metavar=("FROM", "TO"), help="another name"
        )
        parser.add_argument("--skip-bad", action="store_true", help="leave bad rows out; else the document is")
        parser.add_argument("--compressed", choices=COMPRESSIONS, help="how a pycrdt store was told to compress")
        parser.add_argument("--table", default=DEFAULT_TABLE, help="of Hocuspocus; documents")
        parser.add_argument(
            "--users",
            choices=[each.value for each in Users],
            default=Users.MATCH.value,
            help="whose an export's edits are: of who has that user name here; make accounts; nobody's",
        )
        parser.add_argument("--time-column", help="a column of that table that says when a document was stored")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = _wanted(options)
        telling = Telling(self.stdout, self.stderr)
        try:
            with acting(Actor(user=wanted.owner, door="import")):
                for where in options["sources"]:
                    outcomes = _of_exports if options["format"] == OWN_FORMAT else _of_foreign
                    for outcome in outcomes(options, where, wanted, telling):
                        telling.finish(outcome)
        except (SourceError, HistoryError, DatabaseError) as error:
            telling.conclude()
            has_begun = bool(telling.summary.results)
            raise CommandError(f"{error}\n{STAYS}" if has_begun else str(error)) from error
        except KeyboardInterrupt:
            telling.conclude()
            raise CommandError(f"interrupted. {STAYS}", returncode=130) from None
        telling.conclude()
        if telling.summary.failed:
            raise CommandError(f"{telling.summary.failed} documents were not imported")


def _of_exports(options: dict[str, Any], where: str, wanted: Wanted, telling: Telling) -> Iterator[Outcome]:
    with open_exports(where) as (count, exports):
        telling.expect(count)
        for size, file in exports:
            yield import_export(file, wanted, Users(options["users"]), partial(telling.reading, where, size))


def _of_foreign(options: dict[str, Any], where: str, wanted: Wanted, telling: Telling) -> Iterator[Outcome]:
    asked = {name: options[name] for name in ("compressed", "table", "time_column")}
    with closing(open_foreign(options["format"], where, **asked)) as source:
        telling.expect(source.count())
        for document in source.documents():
            progress = partial(telling.reading, document.name, document.bytes)
            yield import_foreign(source.kind, document, wanted, progress)


def _wanted(options: dict[str, Any]) -> Wanted:
    owner = _account(options["owner"]) if options["owner"] else None
    if owner is None and not options["open"] and options["format"] != OWN_FORMAT:
        raise CommandError("say whose the documents are to be: --owner USERNAME, or --open for anyone's")
    if options["skip_bad"] and options["format"] == OWN_FORMAT:
        raise CommandError("an export is imported as it is or not at all: its hashes cover every row")
    return Wanted(
        owner=owner,
        open_to_all=options["open"],
        prefix=options["prefix"],
        renamed=dict(options["rename"]),
        skip_bad=options["skip_bad"],
    )


def _account(username: str) -> User:
    model: Any = get_user_model()
    account: User | None = model.objects.filter(**{model.USERNAME_FIELD: username}).first()
    if account is None:
        raise CommandError(f"there is no account of the name {username!r}")
    return account
