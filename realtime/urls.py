"""The addresses of this floor."""

from django.urls import URLPattern, path

from realtime import views

urlpatterns: list[URLPattern] = [
    path("d/<uuid:key>/", views.document_page, name="document-page"),
]
