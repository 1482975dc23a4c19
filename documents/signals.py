"""Tells the floors above, on commit, that rights have changed. The database trigger has raised the version by then."""

from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete, post_save

from documents.models import Document, Membership
from documents.roles import rights_changed


def connect() -> None:
    post_save.connect(_membership_changed, sender=Membership)
    post_delete.connect(_membership_changed, sender=Membership)
    post_save.connect(_document_saved, sender=Document)


def _membership_changed(instance: Membership, **_: Any) -> None:
    _send_on_commit(instance.document_id)


def _document_saved(instance: Document, created: bool, update_fields: frozenset[str] | None, **_: Any) -> None:
    renamed_only = update_fields is not None and "deleted_at" not in update_fields
    if not created and not renamed_only:
        _send_on_commit(instance.pk)


def _send_on_commit(document_id: int) -> None:
    transaction.on_commit(lambda: rights_changed.send(sender=Document, document_id=document_id, user=None))
