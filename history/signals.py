"""How this floor tells those above, always after COMMIT."""

from django.dispatch import Signal

log_appended = Signal()
"""A server-side write is in the log: `document_id`, `epoch`, `seq`, `update`. `realtime` takes it to open editors."""

document_changed = Signal()
"""Public: a document has new updates. `document` (Document), `seq` (its new head), `actor` (a user, or None).

Sent at most once per batch of edits, off the path of the edit: by then readers may have seen it."""
