"""How this floor tells those above: after COMMIT, but for `restored`."""

from typing import Any

from django.dispatch import Signal

from documents.models import Document

log_appended = Signal()
"""A server-side write is in the log: `document_id`, `stored` (Stored), `update`, `actor` (a user, or None).
`realtime` shows it to open editors."""

restored = Signal()
"""A restore is in the log and not yet committed: `session` (WriteSession), `stored` (Stored). What a receiver writes is
kept exactly if the restore is, and what it raises undoes the restore."""

document_changed = Signal()
"""Public: a document has new updates. `document` (Document), `seq` (its new head), `actor` (a user, or None).

Sent at most once per batch of edits, off the path of the edit: by then readers may have seen it."""


document_copied = Signal()
"""A document was copied: `source`, `copy` (Documents), `seq` (of the source), `actor` (a user), `with_history`."""


def tell_of_change(document_id: int, *, seq: int, actor: Any | None) -> None:
    """Send `document_changed`, if the document is still there. What a receiver raises is not the sender's trouble."""
    if document_changed.has_listeners(Document):
        document = Document.objects.filter(pk=document_id).first()
        if document is not None:
            document_changed.send_robust(sender=Document, document=document, seq=seq, actor=actor)
