"""What the database says of the days on which manifests were published, where that cannot be so, or is too long ago.

A row for a day that is still to come would keep that day's manifest from being made, and nobody would hear of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db.models import F
from django.db.models.functions import TruncDate

from documents.conf import conf
from history.models import Manifest
from history.proof.claims import CLOCKS_APART_MAX

STALE_AFTER = timedelta(days=2)
"""A day that is missed for a broken disk or command is made up for within it."""


def false_days(*, now: datetime) -> Iterator[str]:
    """The days that `history_manifest` has no business to have, as sentences, the first 100."""
    today = (now + CLOCKS_APART_MAX).astimezone(UTC).date()
    for day in Manifest.objects.filter(day__gt=today).order_by("day").values_list("day", flat=True)[:100]:
        yield f"a manifest of {day} is said to be published, a day that has not come: history_manifest was altered"
    made_on = TruncDate("created_at", tzinfo=UTC)
    others = Manifest.objects.filter(day__lte=today).annotate(made_on=made_on).exclude(made_on=F("day"))
    for day in others.order_by("day").values_list("day", flat=True)[:100]:
        yield f"the manifest of {day} is said to be made on another day: history_manifest was altered"


def overdue(*, now: datetime) -> str | None:
    """Where MANIFEST_KEY is set: that the newest manifest is older than STALE_AFTER, as a sentence."""
    if not conf().manifest_key:
        return None
    newest = Manifest.objects.filter(day__lte=now.astimezone(UTC).date()).order_by("-day").first()
    if newest is None:
        return "no manifest was ever published, though MANIFEST_KEY is set"
    if now - newest.created_at > STALE_AFTER:
        return f"the newest manifest is of {newest.day}, though MANIFEST_KEY is set: publishing has stopped"
    return None
