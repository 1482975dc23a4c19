"""What an act would do, before it is done: how much, in words, what would change where, and what would then be said."""

from dataclasses import dataclass

from documents.models import Document
from history.crdt.wording import in_words
from history.pages.changing import shown_changes
from history.pages.rendering import ShownContent, shown_content
from history.undoing import Plan, content_after, what_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What `history/_preview.html` shows of a plan: `changed` is the difference, `shown` the content with it. Without
    an update there is nothing of either."""

    plan: Plan
    words: str = ""
    changed: ShownContent | None = None
    shown: ShownContent | None = None

    @property
    def is_change(self) -> bool:
        return self.plan.update is not None


def preview_of(document: Document, plan: Plan) -> Preview:
    """Raises: ContentTooDeep."""
    if plan.taken_back is None or plan.update is None:
        return Preview(plan=plan)
    changes = what_changes(plan)
    return Preview(
        plan=plan,
        words=in_words(changes),
        changed=shown_changes(changes, plan.taken_back.after()),
        shown=shown_content(content_after(document.pk, plan)),
    )
