"""Every address of the project: each floor brings its own."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("documents.login_urls")),
    path("", include("documents.urls")),
    path("", include("history.urls")),
    path("", include("realtime.urls")),
]
