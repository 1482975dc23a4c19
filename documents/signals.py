"""Tells the floors above, on commit, that rights or accounts have changed, which the database shows by then.

Nothing listens to sessions: Django would load every row that `clearsessions` deletes. The watch finds those that went
without a logout."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_delete, post_save

from documents.credentials import accounts_changed, decides
from documents.models import Document, Membership
from documents.roles import rights_changed


def connect() -> None:
    post_save.connect(_membership_changed, sender=Membership)
    post_delete.connect(_membership_changed, sender=Membership)
    post_save.connect(_document_saved, sender=Document)
    # Any sender: a proxy of the user model, or a model that inherits from it, sends under its own name.
    post_save.connect(_account_saved)
    post_delete.connect(_account_deleted, sender=settings.AUTH_USER_MODEL)
    user_logged_out.connect(_logged_out)


def _membership_changed(instance: Membership, **_: Any) -> None:
    _send_on_commit(instance.document_id)


def _document_saved(instance: Document, created: bool, update_fields: frozenset[str] | None, **_: Any) -> None:
    decides_rights = update_fields is None or not update_fields.isdisjoint({"deleted_at", "open_to_all"})
    if not created and decides_rights:
        _send_on_commit(instance.pk)


def _send_on_commit(document_id: int) -> None:
    transaction.on_commit(lambda: rights_changed.send(sender=Document, document_id=document_id, user=None))


def _account_saved(instance: Any, created: bool, update_fields: frozenset[str] | None, **_: Any) -> None:
    model = get_user_model()
    if isinstance(instance, model) and not created and decides(model, update_fields):
        _send_account_on_commit(instance.pk)


def _account_deleted(instance: Any, **_: Any) -> None:
    _send_account_on_commit(instance.pk)


def _logged_out(user: Any, **_: Any) -> None:
    if user is not None:
        _send_account_on_commit(user.pk)


def _send_account_on_commit(user_key: Any) -> None:
    transaction.on_commit(lambda: accounts_changed.send(sender=get_user_model(), user_key=user_key))
