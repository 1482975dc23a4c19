"""What an act would do, before it is done: how much, in words, and what the document would say then."""

from dataclasses import dataclass

from documents.models import Document
from history.crdt.wording import in_words
from history.pages.rendering import ShownContent, shown_content
from history.undoing import Plan, content_after, what_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What `history/_preview.html` shows of a plan, which was made on the document at `head_seq`."""

    plan: Plan
    words: str
    shown: ShownContent

    @property
    def is_change(self) -> bool:
        return self.plan.update is not None


def preview_of(document: Document, plan: Plan) -> Preview:
    """Raises: ContentTooDeep."""
    return Preview(
        plan=plan,
        words=in_words(what_changes(plan)),
        shown=shown_content(content_after(document.pk, plan)),
    )
