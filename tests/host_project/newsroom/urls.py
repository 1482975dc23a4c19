"""The host's addresses. The three apps are mounted under two prefixes of the host's choosing."""

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path

from newsroom import views

urlpatterns = [
    path("desk/", views.front_page, name="login-done"),
    path("desk/enter/", LoginView.as_view(), name="login"),
    path("desk/<path:name>/correct/", views.correct),
    path("desk/<path:name>/wire/", views.take_from_the_wire),
    path("desk/<path:name>/print/", views.send_to_print),
    path("desk/<path:name>/move/", views.move_to_desk),
    path("desk/<path:name>/transfer/", views.transfer),
    path("desk/<path:name>/back-to/<int:seq>/", views.back_to),
    path("paper/", include("documents.urls")),
    path("paper/", include("history.urls")),
    path("paper/", include("realtime.urls")),
]

if apps.is_installed("django.contrib.admin"):
    urlpatterns.append(path("back-office/", admin.site.urls))
