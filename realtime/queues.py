"""Which queue each Celery task stands in. Nothing that a person waits for stands behind what keeps house.

The names are ours alone, so that they may lie in one broker with a host project's own. A test compares the routes with
all tasks that there are."""

PUSHES = "palimpsest.pushes"
SNAPSHOTS = "palimpsest.snapshots"
LADDERS = "palimpsest.ladders"
SQUASH = "palimpsest.squash"
MANIFESTS = "palimpsest.manifests"
VERIFY = "palimpsest.verify"
REST = "palimpsest.rest"

HOUSEKEEPING = (SNAPSHOTS, LADDERS, SQUASH, MANIFESTS, VERIFY, REST)
"""What one worker can do besides another one for PUSHES; it takes from each in turn."""

QUEUES = (PUSHES, *HOUSEKEEPING)

TASK_ROUTES = {
    "realtime.tasks.push_document_update": {"queue": PUSHES},
    "history.tasks.sweep_snapshots": {"queue": SNAPSHOTS},
    "history.tasks.build_ladders": {"queue": LADDERS},
    "history.tasks.squash_cold_rows": {"queue": SQUASH},
    "history.tasks.sign_manifest": {"queue": MANIFESTS},
    "history.tasks.verify_sample": {"queue": VERIFY},
    "history.tasks.keep_versions": {"queue": REST},
    "history.tasks.undo_everywhere": {"queue": REST},
    "history.tasks.purge_refused": {"queue": REST},
    "history.tasks.purge_audit": {"queue": REST},
    "documents.tasks.purge_deleted": {"queue": REST},
    "realtime.tasks.purge_notifications": {"queue": REST},
    "realtime.tasks.purge_chat": {"queue": REST},
}
"""For Celery's setting `task_routes`."""
