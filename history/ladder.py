"""The ladder: snapshots over the whole life of a document, made where its plan says that one is missing.

Whatever is killed, run twice or raced by appends: a snapshot is the fold at its seq, whoever stores it first."""

from history.folds import compact, fold_for_rung
from history.models import Snapshot
from history.snapshots import snapshot_plan, store_rung, thin

RUNGS_MAX = 500
"""Snapshots that one call makes, each within 50 ms for 4,000 rows; the next call goes on."""

PLANS_MAX = 3


def build_ladder(document_id: int, *, rungs_max: int = RUNGS_MAX) -> int:
    """Make the snapshots that are missing, the oldest first, and delete those that have no place; return how many
    were made. Reads the rows of each gap once for each of PLANS_MAX plans, and none where nothing is missing.

    Must not run inside `atomic()`. Raises: LogHole; ValueError for what must not be stored: see `store_snapshot`."""
    if _newest(document_id) is None:
        compact(document_id)
    newest = _newest(document_id)
    if newest is None:
        return 0  # nothing was ever written
    made = 0
    for _ in range(PLANS_MAX):  # what the new ones really take may ask for another grid
        made += _make_missing(document_id, rungs_max=rungs_max - made)
    thin(document_id)
    made += _make_missing(document_id, rungs_max=rungs_max - made)  # those that went with what they differed from
    if made < rungs_max:
        Snapshot.objects.filter(document_id=document_id, seq=newest).update(ladder_built=True)
    return made


def _make_missing(document_id: int, *, rungs_max: int) -> int:
    plan = snapshot_plan(document_id)
    missing = plan.make[:rungs_max]
    for seq in missing:
        folded, claims = fold_for_rung(document_id, seq)
        store_rung(document_id, seq, folded.doc, claims=claims, base_seq=plan.bases.get(seq))
    return len(missing)


def _newest(document_id: int) -> int | None:
    seqs = Snapshot.objects.filter(document_id=document_id).order_by("-seq").values_list("seq", flat=True)
    return seqs.first()
