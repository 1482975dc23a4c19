"""The pages of a document's history, by name: the site and the admin mount each of them."""

from collections.abc import Mapping

from documents.models import Role
from history.pages.frame import HISTORY, Page
from history.pages.moment import show_history
from history.pages.restoring import show_restore

PAGES: Mapping[str, Page] = {
    HISTORY: Page(Role.VIEWER, show_history, methods=("GET", "HEAD")),
    "restore": Page(Role.EDITOR, show_restore),
}
