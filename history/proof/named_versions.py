"""Versions against the audit, which was told of each name, seq and lock: they are in no hash of their own.

What the audit never knew of (versions that came by themselves or with a copy), or no longer, is not judged."""

from dataclasses import dataclass

from history.audit.entries import AuditDifference
from history.log import consistent_read
from history.models import Action, AuditEntry, Version

LOCKS = {Action.VERSION_LOCKED: True, Action.VERSION_UNLOCKED: False}
ACTS = (Action.VERSION_NAMED, Action.VERSION_RENAMED, Action.VERSION_DELETED, *LOCKS)

ENTRIES_PER_FETCH = 1000


@dataclass(slots=True)
class _Told:
    """What the audit was told last of a version, in entry `n`. `name` is empty where it came by itself."""

    n: int
    name: str
    seq: int
    locked: bool
    deleted: bool

    def is_true(self, found: tuple[str, int, bool] | None) -> bool:
        if self.deleted or found is None:
            # One that came by itself is thinned without a word, unless it is locked.
            return found is None and (self.deleted or not (self.name or self.locked))
        return found == (self.name, self.seq, self.locked)


def differing_version(document_id: int) -> AuditDifference | None:
    """The first version that is not what the audit, which is proven before, says of it; None where all are.

    Memory goes with the versions that ever were."""
    with consistent_read():
        told = _told(document_id)
        columns = Version.objects.filter(document_id=document_id).values_list("id", "name", "seq", "locked")
        found = {version_id: (name, seq, locked) for version_id, name, seq, locked in columns}
    for version_id, last in sorted(told.items(), key=lambda each: each[1].n):
        if not last.is_true(found.get(version_id)):
            what = f"version {version_id} of seq {last.seq} is not what it says: history_version was altered"
            return AuditDifference(document_id, last.n, what)
    return None


def _told(document_id: int) -> dict[int, _Told]:
    acts = AuditEntry.objects.filter(document_id=document_id, action__in=ACTS, detail__isnull=False).order_by("n")
    told: dict[int, _Told] = {}
    for n, action, detail in acts.values_list("n", "action", "detail").iterator(chunk_size=ENTRIES_PER_FETCH):
        match detail:
            case {"version": int(version_id), "name": str(name), "seq": int(seq)}:
                before = told.get(version_id)
                locked = LOCKS.get(Action(action), before is not None and before.locked)
                told[version_id] = _Told(n, name, seq, locked, deleted=action == Action.VERSION_DELETED)
    return told
