"""Who may do what: by desk, from the host's own tables."""

from typing import Any

from documents.models import Document, Role
from newsroom.models import Article


def role_at_the_desk(user: Any, document: Document) -> Role | None:
    """The desk writes its articles until they go to print, and reads them afterwards; nobody else sees them."""
    article = Article.objects.filter(document=document).first()
    if article is None or not user.is_authenticated or user.desk_id != article.desk_id:
        return None
    if user.is_staff:
        return Role.OWNER
    return Role.VIEWER if article.gone_to_print else Role.EDITOR
