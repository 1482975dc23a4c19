"""The addresses of this floor."""

from django.urls import URLPattern, path

from history.api import audit as audit_api
from history.api import moments as api
from history.api import reading as reading_api
from history.api import undo as undo_api
from history.api import versions as versions_api
from history.api.doors import by_method
from history.pages import site

urlpatterns: list[URLPattern] = [
    *site.urlpatterns,
    path("api/v1/documents/<uuid:key>/content", api.content, name="document-content"),
    path("api/v1/documents/<uuid:key>/runs", api.runs, name="document-runs"),
    path("api/v1/documents/<uuid:key>/groups", api.groups, name="document-groups"),
    path("api/v1/documents/<uuid:key>/changes", reading_api.changes, name="document-changes"),
    path("api/v1/documents/<uuid:key>/blame", reading_api.blame, name="document-blame"),
    path("api/v1/documents/<uuid:key>/playback", reading_api.playback_steps, name="document-playback"),
    path("api/v1/documents/<uuid:key>/restore", undo_api.restore_moment, name="document-restore"),
    path("api/v1/documents/<uuid:key>/undo", undo_api.undo_edits, name="document-undo"),
    path(
        "api/v1/documents/<uuid:key>/versions",
        by_method(GET=versions_api.versions, POST=versions_api.version_naming),
        name="document-versions",
    ),
    path(
        "api/v1/documents/<uuid:key>/versions/<int:version_id>",
        by_method(PATCH=versions_api.version_changing, DELETE=versions_api.version_deleting),
        name="document-version",
    ),
    path("api/v1/documents/<uuid:key>/copies", versions_api.copies, name="document-copies"),
    path("api/v1/documents/<uuid:key>/audit", audit_api.audit, name="document-audit"),
    path("api/v1/documents/<uuid:key>/refused", api.refused, name="document-refused"),
    path(
        "api/v1/documents/<uuid:key>/refused/<int:session_id>/<slug:reason>/<int:part>",
        api.refused_updates,
        name="document-refused-updates",
    ),
]
