"""The addresses of this floor; `/d/<key>/` itself is the writing page, which `realtime` serves.

Signing in is not among them: a host project has doors of its own, and the names `login` and `logout` are its own."""

from django.urls import URLPattern, path

from documents import api, views

urlpatterns: list[URLPattern] = [
    path("", views.document_list, name="document-list"),
    path("documents/new/", views.document_create, name="document-create"),
    path("d/<uuid:key>/rename/", views.document_rename, name="document-rename"),
    path("d/<uuid:key>/delete/", views.document_delete, name="document-delete"),
    path("d/<uuid:key>/recover/", views.document_recover, name="document-recover"),
    path("d/<uuid:key>/members/", views.document_members, name="document-members"),
    path("d/<uuid:key>/members/<int:membership_id>/role/", views.member_role, name="document-member-role"),
    path("d/<uuid:key>/members/<int:membership_id>/remove/", views.member_remove, name="document-member-remove"),
    path("api/v1/tickets", api.ticket_create, name="ticket-create"),
    path("healthz", api.healthz, name="healthz"),
]
