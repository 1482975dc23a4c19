"""Whose the sessions of an imported history are: its commitments are of the keys that accounts had where it began.

Rows up to the last one imported are of those keys, and of those alone: an account that has the same key here is another
person. `proof/verify.py` asks, exports write the keys down, copies take them along."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from documents.models import Document
from history.audit.entries import record
from history.models import Action, ImportedAuthor


@dataclass(frozen=True, slots=True)
class ImportedAuthors:
    """`matched` are (key there, primary key of the account here, None where it is gone)."""

    last_seq: int
    matched: frozenset[tuple[str, Any]]

    @classmethod
    def of(cls, document_id: int) -> "ImportedAuthors":
        """`last_seq` is 0 for a history that was written here. Reads the database."""
        rows = list(ImportedAuthor.objects.filter(document_id=document_id).values_list("key", "user_id", "last_seq"))
        return cls(
            max((last_seq for _, _, last_seq in rows), default=0), frozenset((key, user) for key, user, _ in rows)
        )

    def has_committed(self, user_id: Any, is_of: Callable[[str], bool]) -> bool:
        """Whether one of the keys of an account (None: of none that is there still) made a commitment."""
        return any(user == user_id and is_of(key) for key, user in self.matched)

    def has_standing(self, is_of: Callable[[str], bool]) -> bool:
        """Whether an account that is there still made it."""
        return any(user is not None and is_of(key) for key, user in self.matched)

    def key_of(self, user_id: Any, is_of: Callable[[str], bool]) -> str:
        """The key that a commitment is of, of those that an account has here and had there."""
        known = (str(user_id), *(key for key, user in self.matched if user == user_id))
        return next((key for key in known if is_of(key)), str(user_id))


def match_authors(document: Document, matched: Iterable[tuple[str, Any]], *, last_seq: int) -> None:
    """Write down whose keys were whose here, (key there, account here) each, and tell the audit. In a transaction."""
    for key, account in matched:
        ImportedAuthor.objects.create(document=document, key=key, user=account, last_seq=last_seq)
        detail = {"key": key, "account": None if account is None else str(account.pk), "last_seq": last_seq}
        record(Action.AUTHOR_MATCHED, document=document, detail=detail)


def copy_authors(source: Document, copy: Document, *, until: int) -> None:
    """Of a copy with rows 1..until of the source. In a transaction."""
    found = ImportedAuthor.objects.filter(document=source).select_related("user").order_by("id")
    last_seq = min(until, ImportedAuthors.of(source.pk).last_seq)
    match_authors(copy, ((author.key, author.user) for author in found), last_seq=last_seq)
