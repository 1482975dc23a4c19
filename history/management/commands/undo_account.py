"""`manage.py undo_account <user> --since … [--carry-out]`: undo what an account did, in all documents."""

from collections import Counter
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from history.errors import LogUnavailable, OutcomeUnknown
from history.tasks import undo_everywhere
from history.timeline import user_named
from history.undo_everywhere import AccountUndo, Line, carry_out, preview, progress_of


class Command(BaseCommand):
    help = "Undo what an account did since a moment, in all documents. Without --carry-out or --queue only a preview."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="user name of the account whose edits are undone")
        parser.add_argument("--since", required=True, help="a time such as 2026-01-31T14:00:00+01:00, included")
        parser.add_argument("--until", help="a time, included; now where not given")
        parser.add_argument("--actor", help="user name of who undoes: of their own documents only; the server without")
        parser.add_argument("--request-key", help="a name under which nothing is done twice; else one by these times")
        parser.add_argument("--carry-out", action="store_true", help="do it, here")
        parser.add_argument("--queue", action="store_true", help="have Celery do it")
        parser.add_argument("--progress", action="store_true", help="say how far it has come, and do nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = _wanted(options)
        if options["progress"]:
            progress = progress_of(wanted)
            self.stdout.write(f"undone in {progress.undone} of {progress.documents} documents")
        elif options["queue"]:
            actor_pk = None if wanted.actor is None else str(wanted.actor.pk)
            undo_everywhere.delay(
                str(wanted.user_key),
                wanted.since.isoformat(),
                wanted.until.isoformat(),
                actor_pk=actor_pk,
                request_key=wanted.request_key,
            )
            self.stdout.write(f"queued as {wanted.request_key}")
        elif options["carry_out"]:
            self._carry_out(wanted)
        else:
            self._preview(wanted)

    def _preview(self, wanted: AccountUndo) -> None:
        total: Counter[str] = Counter()
        for line in preview(wanted):
            if line.updates:
                self._tell(line, f"{line.updates} updates: {line.deleted} characters go, {line.inserted} come back")
                total += Counter(documents=1, updates=line.updates, go=line.deleted, come=line.inserted)
            elif line.problem:
                self._tell(line, line.problem)
                total["left"] += 1
        self.stdout.write(
            f"{total['documents']} documents, {total['updates']} updates, {total['go']} characters go, "
            f"{total['come']} come back; {total['left']} documents are left alone. Nothing was written."
        )

    def _carry_out(self, wanted: AccountUndo) -> None:
        done = left = 0
        try:
            for line in carry_out(wanted):
                if line.seq is not None:
                    self._tell(line, f"undone as seq {line.seq}")
                    done += 1
                elif line.problem:
                    self._tell(line, line.problem)
                    left += 1
        except (LogUnavailable, OutcomeUnknown) as error:
            raise CommandError(f"{error}; run it again with --request-key {wanted.request_key!r}") from None
        self.stdout.write(self.style.SUCCESS(f"undone in {done} documents; {left} are left alone"))

    def _tell(self, line: Line, words: str) -> None:
        self.stdout.write(f"{line.document.name} ({line.document.key}): {words}")


def _wanted(options: dict[str, Any]) -> AccountUndo:
    user = user_named(options["user"])
    actor = user_named(options["actor"]) if options["actor"] else None
    if user is None or (options["actor"] and actor is None):
        raise CommandError("there is no account of that name, or several that differ in case alone: spell it exactly")
    since = _moment(options["since"])
    until = _moment(options["until"]) if options["until"] else timezone.now()
    key = options["request_key"] or f"{user.pk} from {since.isoformat()} to {until.isoformat()}"
    return AccountUndo(user_key=user.pk, since=since, until=until, actor=actor, request_key=key)


def _moment(text: str) -> datetime:
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandError(f"{text!r} is no time with its offset, such as 2026-01-31T14:00:00+01:00")
    return moment
