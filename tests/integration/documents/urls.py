"""This floor's addresses alone, with stand-ins for the two pages that the floors above serve."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def a_page_above(request: HttpRequest, key: object) -> HttpResponse:
    return HttpResponse("a page of another floor")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("documents.login_urls")),
    path("", include("documents.urls")),
    path("d/<uuid:key>/", a_page_above, name="document-page"),
    path("d/<uuid:key>/history/", a_page_above, name="document-history"),
]
