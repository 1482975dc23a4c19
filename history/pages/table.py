"""The pages of a document's history, by name: the site and the admin mount each of them."""

from collections.abc import Mapping

from documents.models import Role
from history.pages.copying import show_copy
from history.pages.exporting import show_export
from history.pages.frame import HISTORY, Page
from history.pages.moment import show_history
from history.pages.naming import lock_version, show_forget, show_name, show_version, show_versions
from history.pages.restoring import show_restore
from history.pages.undoing import show_undo

PAGES: Mapping[str, Page] = {
    HISTORY: Page(Role.VIEWER, show_history, methods=("GET", "HEAD")),
    "restore": Page(Role.EDITOR, show_restore),
    "undo": Page(Role.EDITOR, show_undo),
    "versions": Page(Role.VIEWER, show_versions, methods=("GET", "HEAD")),
    "name": Page(Role.EDITOR, show_name),
    "version": Page(Role.EDITOR, show_version),
    "lock": Page(Role.OWNER, lock_version, methods=("POST",)),
    "forget": Page(Role.EDITOR, show_forget),
    "copy": Page(Role.VIEWER, show_copy),
    "export": Page(Role.OWNER, show_export),
}
