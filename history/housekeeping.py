"""How housekeeping goes, for the admin: what runs, what waits, how each task last went and what verification found."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import crontab, maybe_schedule
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q
from django.utils import timezone

from documents.conf import conf
from documents.models import Chore, Document
from documents.opening import recoverable_since
from documents.roles import User, readable_by
from history.due import cold_documents, due_tails, squash_older_than, unbuilt_ladders
from history.models import Manifest, Refusal
from history.undo_everywhere import AccountUndo, Progress, progress_of
from history.versions import documents_due_for_a_version

VERIFY = "history.tasks.verify_sample"
UNDO = "history.tasks.undo_everywhere"
TASKS = {
    "history.tasks.sweep_snapshots": "snapshots",
    "history.tasks.build_ladders": "older snapshots: made and thinned",
    "history.tasks.squash_cold_rows": "squash",
    VERIFY: "verification of a sample",
    "history.tasks.sign_manifest": "manifest",
    "history.tasks.keep_versions": "versions",
    "history.tasks.purge_refused": "purge of refused updates",
    "history.tasks.purge_audit": "purge of old audit entries",
    "documents.tasks.purge_deleted": "purge of deleted documents",
    "realtime.tasks.purge_notifications": "purge of read notifications",
    "realtime.tasks.purge_chat": "purge of chat messages",
    UNDO: "undo of an account's edits",
}
"""What people call each task that keeps house."""

WAITING_MAX = 1000
"""Documents that are counted of each kind of work; more are "1000 or more"."""

UNDOINGS_MAX = 5

_HALF_A_MINUTE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Waiting:
    what: str
    count: int

    @property
    def is_more(self) -> bool:
        return self.count >= WAITING_MAX


@dataclass(frozen=True, slots=True)
class TaskLine:
    """How a task last went, and when it last had trouble; None: never, as far as turns are kept. `due` says when beat
    starts it, and is empty where it does not."""

    name: str
    due: str
    last: Any | None
    troubled: Any | None


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One difference. `document` is there for who may read it."""

    document_id: int
    document: Document | None
    table: str
    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class UndoLine:
    turn: Any
    progress: Progress


def running() -> Sequence[Any]:
    """The turns that go on now, the longest first."""
    turns: Any = Chore.objects.with_state()
    return list(turns.filter(state="running").order_by("id"))


def waiting() -> list[Waiting]:
    """What the next turns will find. Each is a query over the heads of all documents, as the tasks themselves make."""
    now = timezone.now()
    refused = Refusal.objects.filter(last_at__lt=now - timedelta(days=conf().refused_days))
    lines = [
        Waiting("documents whose tail is due for a snapshot", len(due_tails(limit=WAITING_MAX))),
        Waiting("documents whose older snapshots are not in their places", len(unbuilt_ladders(limit=WAITING_MAX))),
        Waiting(
            "documents with cold rows for a segment",
            len(cold_documents(older_than=squash_older_than(), limit=WAITING_MAX)),
        ),
        Waiting("documents due for a version", len(documents_due_for_a_version(now=now, limit=WAITING_MAX))),
        Waiting(
            "deleted documents that nobody can recover any more",
            Document.objects.filter(deleted_at__lt=recoverable_since())[:WAITING_MAX].count(),
        ),
        Waiting("refused updates kept for long enough", refused[:WAITING_MAX].count()),
    ]
    if conf().manifest_key:
        published = Manifest.objects.filter(day=now.astimezone(UTC).date()).exists()
        lines.append(Waiting("manifest of today", int(not published)))
    return lines


def task_lines() -> list[TaskLine]:
    """Each task, and those that have never had a turn too: it may be that no worker takes from their queue."""
    turns: Any = Chore.objects.with_state().order_by("task", "-id").distinct("task")
    last = {turn.task: turn for turn in turns}
    troubled = {turn.task: turn for turn in turns.filter(Q(troubles__gt=0) | Q(found__gt=0) | Q(state="lost"))}
    due = _due()
    return [TaskLine(label, due.get(name, ""), last.get(name), troubled.get(name)) for name, label in TASKS.items()]


def _due() -> dict[str, str]:
    """When each task has its turns, by the schedule of these settings."""
    entries = getattr(settings, "CELERY_BEAT_SCHEDULE", {}).values()
    return {entry["task"]: _in_words(maybe_schedule(entry["schedule"])) for entry in entries}


def _in_words(when: Any) -> str:
    if not isinstance(when, crontab):
        return f"every {when.seconds / 60:g} min"
    now = timezone.now()
    at = now + when.remaining_estimate(now) + _HALF_A_MINUTE  # by another clock than `now` it may be a moment too early
    return f"next at {timezone.localtime(at):%-d %b, %H:%M}"


def last_verification() -> Any | None:
    """The last turn of the verification that came to its end."""
    return Chore.objects.filter(task=VERIFY).exclude(ended_at=None).order_by("-id").first()


def found_lines(turn: Chore, user: User) -> list[FoundLine]:
    """What a turn found."""
    ids = {finding["document"] for finding in turn.findings}
    documents = {document.pk: document for document in readable_by(user).filter(pk__in=ids)}
    return [
        FoundLine(each["document"], documents.get(each["document"]), each["table"], each["seq"], each["what"])
        for each in turn.findings
    ]


def undoings() -> list[UndoLine]:
    """The last undoings of accounts' edits, and how far each has come by what the logs hold; see `progress_of`."""
    lines: dict[str, UndoLine] = {}
    turns: Any = Chore.objects.with_state().filter(task=UNDO).order_by("-id")
    for turn in turns:
        key = turn.about.get("request_key")
        wanted = None if key is None or key in lines else _wanted(turn.about)
        if wanted is not None:
            lines[key] = UndoLine(turn, progress_of(wanted))
        if len(lines) == UNDOINGS_MAX:
            break
    return list(lines.values())


def _wanted(about: dict[str, Any]) -> AccountUndo | None:
    """None where whoever undid is gone."""
    users = get_user_model()._default_manager  # noqa: SLF001
    actor = None if about["actor"] is None else users.filter(pk=about["actor"]).first()
    if actor is None and about["actor"] is not None:
        return None
    return AccountUndo(
        user_key=about["user"],
        since=datetime.fromisoformat(about["since"]),
        until=datetime.fromisoformat(about["until"]),
        actor=actor,
        request_key=about["request_key"],
    )
