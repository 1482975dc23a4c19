"""The list of a history page: runs, and the versions at their places among them."""

from dataclasses import dataclass

from documents.models import Document
from history.authors import Author, author_of
from history.log import head_of
from history.models import Version
from history.timeline import RunLine, RunPage

VERSIONS_PER_PAGE_MAX = 100
"""Versions that one page of runs shows; of one very long run the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A run or a version; `author` is a run's, or who named the version."""

    seq: int
    author: Author
    line: RunLine | None = None
    version: Version | None = None


def entries_of(document: Document, page: RunPage, *, before: int | None) -> list[Entry]:
    """The runs of a page and the versions behind each of them, newest first: each version is on one page of all. Those
    behind the head, which a log that was set back has lost, are on none."""
    until = head_of(document.pk).seq if before is None else before - 1
    versions = Version.objects.filter(document=document, seq__lte=until).select_related("created_by")
    if page.next_before is not None:
        versions = versions.filter(seq__gte=page.next_before)
    entries = [Entry(seq=line.run.last_seq, author=line.author, line=line) for line in page.lines]
    entries += [
        Entry(seq=version.seq, author=author_of(version.created_by), version=version)
        for version in versions.order_by("-seq", "-id")[:VERSIONS_PER_PAGE_MAX]
    ]
    # What was named is what stood there when the run had ended, so that it comes above it.
    return sorted(entries, key=lambda entry: (entry.seq, entry.version is not None), reverse=True)
