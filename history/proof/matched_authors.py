"""Whose keys were whose in an imported history, against the audit, which was told of each: no hash covers them.

What the audit no longer knows of is not judged."""

from typing import Any, TypeAlias

from django.contrib.auth import get_user_model

from history.audit.entries import AuditDifference
from history.log import consistent_read
from history.models import Action, AuditEntry, AuditHead, ImportedAuthor

_Match: TypeAlias = tuple[str, str | None, int]
"""(key there, primary key here as text, last seq)."""


def differing_author(document_id: int) -> AuditDifference | None:
    """The first account that is said to be another author than the audit was told; None where none is."""
    with consistent_read():
        rows = ImportedAuthor.objects.filter(document_id=document_id).values_list("key", "user_id", "last_seq")
        found: set[_Match] = {(key, None if user is None else str(user), last_seq) for key, user, last_seq in rows}
        entries = AuditEntry.objects.filter(document_id=document_id, action=Action.AUTHOR_MATCHED).order_by("n")
        told: dict[_Match, int] = {}
        forgets = AuditHead.objects.filter(document_id=document_id, removed_n__gt=0).exists()
        for n, detail in entries.values_list("n", "detail"):
            match detail:
                case {"key": str(key), "account": str() | None as account, "last_seq": int(last_seq)}:
                    told[key, account, last_seq] = n
                case _:
                    forgets = True
        for told_match, n in told.items():
            if told_match not in found and not _is_of_a_gone_account(told_match, found):
                return _altered(document_id, n)
        untold = [match for match in found - told.keys() if not _was_told(match, told)]
        return _altered(document_id, max(told.values(), default=0)) if untold and not forgets else None


def _altered(document_id: int, n: int) -> AuditDifference:
    what = "whose an imported history is, is not what the audit was told: history_importedauthor was altered"
    return AuditDifference(document_id, n, what)


def _is_of_a_gone_account(told: _Match, found: set[_Match]) -> bool:
    key, account, last_seq = told
    if account is None or (key, None, last_seq) not in found:
        return False
    model: Any = get_user_model()
    return not model._base_manager.filter(pk=account).exists()  # noqa: SLF001 (public, despite its name)


def _was_told(found: _Match, told: dict[_Match, int]) -> bool:
    """Of one whose account is gone, as it was told of while it was there."""
    key, account, last_seq = found
    return account is None and any((each[0], each[2]) == (key, last_seq) for each in told)
