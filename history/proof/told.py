"""A document's audit, and what it was told of the document's names, versions and imported authors: proven
together.

Room name and title are in no hash of their own. Acts of before there was an audit, or that retention took, judge
nothing."""

import hashlib

from documents.models import Document
from history.audit.entries import (
    AuditDifference,
    AuditVerdict,
    canonical_detail,
    storable,
    verify_audit,
)
from history.log import consistent_read
from history.models import Action, AuditEntry
from history.proof.matched_authors import differing_author
from history.proof.named_versions import differing_version


def verify_told(document_id: int) -> AuditVerdict | AuditDifference:
    """The audit as `verify_audit` proves it, or the first thing that is not what it says."""
    outcome = verify_audit(document_id)
    if isinstance(outcome, AuditDifference):
        return outcome
    named = differing_name(document_id) or differing_version(document_id)
    return named or differing_author(document_id) or outcome


def differing_name(document_id: int) -> AuditDifference | None:
    """The entry that says another room name or title than the document has; None where none does."""
    with consistent_read():
        columns = Document.objects.filter(pk=document_id).values_list("name", "title").first()
        named = AuditEntry.objects.filter(document_id=document_id, action__in=(Action.CREATED, Action.RENAMED))
        created = named.filter(action=Action.CREATED).order_by("n").first()
        last = named.order_by("-n").first()
    if columns is None:
        return None
    name, title = map(storable, columns)
    if created is not None and created.detail is not None and created.detail.get("name") != name:
        return _altered(created, "room name")
    if last is not None and not _says_title(last, name, title):
        return _altered(last, "title")
    return None


def _says_title(entry: AuditEntry, name: str, title: str) -> bool:
    if entry.detail is not None:
        return bool(entry.detail.get("title") == title)
    if entry.action == Action.RENAMED:
        return True  # what it was before was erased with it, and is in the digest too
    return hashlib.sha256(canonical_detail({"name": name, "title": title})).digest() == bytes(entry.detail_sha256)


def _altered(entry: AuditEntry, what: str) -> AuditDifference:
    return AuditDifference(
        entry.document_id, entry.n, f"the {what} is not what it says: documents_document was altered"
    )
