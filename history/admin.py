"""History in the admin: each document's history pages, the audit, and how housekeeping goes.

Staff see the history of exactly those documents that they may read (`documents.roles`); model permissions play no
part, and nothing can be added, changed or deleted here: a restore appends."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache

from documents.acts import actor_of
from documents.models import Chore, Document, Role
from documents.roles import User, document_for, is_superuser, readable_by, role_for
from history.audit.entries import record
from history.audit.export import FORMS, export_response
from history.audit.filters import AuditFilterForm, audit_list_context, trail_filter, visible_to
from history.housekeeping import (
    TASKS,
    found_lines,
    last_verification,
    running,
    task_lines,
    undoings,
    waiting,
)
from history.models import Action, DocumentHistory, Edit, Via
from history.pages.frame import HISTORY, Frame, answer
from history.pages.table import PAGES


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """For all staff to look at; which documents they see is the queryset's matter."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(DocumentHistory)
class DocumentHistoryAdmin(ReadOnlyAdmin):
    """The documents that the user may read; behind each one, the history page."""

    list_display = ["title", "name", "head_seq", "last_edit_at"]
    list_select_related = ["head"]
    search_fields = ["title", "name", "key"]
    ordering = ["-head__at"]
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        everything: QuerySet[Any] = super().get_queryset(request)
        return everything.filter(pk__in=readable_by(cast(User, request.user)).order_by().values("pk"))

    @admin.display(description="updates", ordering="head__seq")
    def head_seq(self, document: Any) -> int:
        return int(document.head.seq)

    @admin.display(description="last edit", ordering="head__at")
    def last_edit_at(self, document: Any) -> Any:
        return document.head.at if document.head.seq else None

    def get_urls(self) -> list[URLPattern]:
        pages = [
            path(f"<int:document_id>/{name}/", self._signed_in(name), name=_route_name(name))
            for name in PAGES
            if name != HISTORY
        ]
        return [*pages, *super().get_urls()]

    def _signed_in(self, page: str) -> Callable[..., HttpResponseBase]:
        """The view of a page. A form that is sent when the session has ended leads on to the history page: at the
        form's own address nothing would say any more which moment it was of."""
        shown = self.admin_site.admin_view(never_cache(partial(self.page_view, page=page)))

        @transaction.non_atomic_requests
        def view(request: HttpRequest, document_id: int) -> HttpResponseBase:
            if request.method == "POST" and not self.admin_site.has_permission(request):
                home = reverse(f"admin:{_route_name(HISTORY)}", args=[document_id])
                return redirect_to_login(home, reverse("admin:login"))
            return shown(request, document_id=document_id)

        return view

    @transaction.non_atomic_requests  # pages make their own
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The history page in the admin's frame; the one address that the admin gives a document."""
        return cast(HttpResponse, never_cache(self.page_view)(request, object_id, page=HISTORY))

    def page_view(self, request: HttpRequest, document_id: int | str, *, page: str) -> HttpResponseBase:
        wanted = PAGES[page]
        if request.method not in wanted.methods:
            return HttpResponseNotAllowed(wanted.methods)
        document = self._document(request, str(document_id), role=wanted.role)
        role = role_for(request.user, document) or wanted.role
        return answer(wanted, request, document, self._frame(request, document, role))

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Django's own log of changes in the admin knows nothing of these: the page itself is the history."""
        document = self._document(request, object_id, role=Role.VIEWER)
        return HttpResponseRedirect(reverse("admin:history_documenthistory_change", args=[document.pk]))

    def _document(self, request: HttpRequest, object_id: str, *, role: Role) -> Document:
        pk = int(object_id) if object_id.isascii() and object_id.isdigit() and len(object_id) <= 18 else 0
        return document_for(request.user, role=role, pk=pk)

    def _frame(self, request: HttpRequest, document: Document, role: Role) -> Frame:
        return Frame(
            template="admin/history/frame.html",
            role=role,
            via=Via.ADMIN,
            urls={name: reverse(f"admin:{_route_name(name)}", args=[document.pk]) for name in PAGES},
            context={
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "edits_url": reverse("admin:history_edit_changelist"),
            },
        )


def _route_name(page: str) -> str:
    """The history page has the address that the admin gives every object."""
    return f"history_documenthistory_{'change' if page == HISTORY else page}"


@admin.register(Edit)
class AuditAdmin(ReadOnlyAdmin):
    """Who did what: edits and acts, in all documents that the user may read; for superusers in those that are gone too.
    As a list, and as files of all that the filters let through."""

    def get_urls(self) -> list[URLPattern]:
        listing = self.admin_site.admin_view(never_cache(self.changelist_view))
        export = self.admin_site.admin_view(self.export_view)
        return [
            path("", listing, name="history_edit_changelist"),
            path("export.<slug:form>", export, name="history_edit_export"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            **audit_list_context(request),
            "opts": self.opts,
            "title": "Audit: who did what",
            "forms_of_file": FORMS,
            "time_zone": timezone.get_current_timezone_name(),
        }
        return render(request, "admin/history/audit.html", context)

    def export_view(self, request: HttpRequest, form: str) -> HttpResponseBase:
        filters = AuditFilterForm(request.GET)
        if form not in FORMS or not filters.is_valid():
            raise Http404("There is no such file.")
        query = request.GET.urlencode()
        actor = actor_of(request, door="admin")
        record(Action.EXPORTED, document=None, actor=actor, detail={"of": "audit", "format": form, "filters": query})
        wanted = trail_filter(filters, visible_to(request.user))
        return export_response(request, wanted, form=form, name=f"audit-{timezone.now():%Y-%m-%d}")


class TaskFilter(admin.SimpleListFilter):
    title = "task"
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(TASKS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(task=self.value()) if self.value() else queryset


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in ("running", "lost", "failed", "done")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(Chore)
class HousekeepingAdmin(ReadOnlyAdmin):
    """What runs, what waits, how each task last went, and the turns that are kept. Documents are named to who may read
    them, undoings of accounts to superusers."""

    change_list_template = "admin/history/housekeeping.html"
    list_display = ["what", "state", "started_at", "took", "progress", "made", "troubles", "error", "found"]
    list_display_links = ["what"]
    list_filter = [TaskFilter, StateFilter]
    list_per_page = 50
    ordering = ["-id"]
    actions = None
    fields = (
        *("what", "state", "started_at", "seen_at", "ended_at", "took", "worker"),
        *("progress", "made", "document_id", "troubles", "error", "found", "differences"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        turns: QuerySet[Any] = Chore.objects.with_state()
        return turns

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        verified = last_verification()
        context = {
            "title": "Housekeeping",
            "running": [(TASKS.get(str(turn.task), str(turn.task)), turn) for turn in running()],
            "waiting": waiting(),
            "tasks": task_lines(),
            "verified": verified,
            "differences": [] if verified is None else found_lines(verified, cast(User, request.user)),
            "undoings": undoings() if is_superuser(cast(User, request.user)) else [],
        }
        return super().changelist_view(request, context)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.fields, "about") if is_superuser(cast(User, request.user)) else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)

    @admin.display(description="task", ordering="task")
    def what(self, turn: Any) -> str:
        return TASKS.get(str(turn.task), str(turn.task))

    @admin.display(ordering="state")
    def state(self, turn: Any) -> str:
        return "lost: its worker is gone" if turn.state == "lost" else str(turn.state)

    @admin.display(description="took (s)")
    def took(self, turn: Any) -> str:
        return f"{((turn.ended_at or turn.seen_at) - turn.started_at).total_seconds():.1f}"

    @admin.display(description="documents")
    def progress(self, turn: Any) -> str:
        return f"{turn.done}" if turn.total is None else f"{turn.done} of {turn.total}"

    @admin.display
    def differences(self, turn: Any) -> str:
        told = "document {document} at {seq}: {what} [history_{table}]"
        return "\n".join(told.format(**finding) for finding in turn.findings) or "none"
