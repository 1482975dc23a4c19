"""The addresses of this floor."""

from django.urls import URLPattern, path

from realtime import views
from realtime.notifications import pages

urlpatterns: list[URLPattern] = [
    path("notifications/", pages.notification_list, name="notification-list"),
    path("notifications/read/", pages.notification_read, name="notification-read"),
    path("d/<uuid:key>/", views.document_page, name="document-page"),
]
