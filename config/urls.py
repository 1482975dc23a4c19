"""Every address of the project: each floor brings its own."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    # What browsers ask for where a page names no icon: the admin's and the API's.
    path("favicon.ico", RedirectView.as_view(url=static("documents/icon.svg"))),
    path("admin/", admin.site.urls),
    path("", include("documents.login_urls")),
    path("", include("documents.urls")),
    path("", include("history.urls")),
    path("", include("realtime.urls")),
]
