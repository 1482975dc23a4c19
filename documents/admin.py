"""Documents and their members in the admin. Staff see what they may read, change what they own, and delete
recoverably; superusers see everything."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Count, Model, Q, QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from documents.acts import acting, actor_of
from documents.models import Document, Membership, Role
from documents.opening import NotRecoverable, delete_document, recover_document, recoverable_documents
from documents.roles import User, is_superuser, readable_by, role_once_recovered


class MembershipFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """Refuses to leave a document with members and no owner."""

    def clean(self) -> None:
        super().clean()
        kept = [form.cleaned_data for form in self.forms if getattr(form, "cleaned_data", None)]
        kept = [data for data in kept if not data.get("DELETE")]
        owned = any(data.get("role") == Role.OWNER for data in kept)
        had_members = self.instance.pk is not None and self.instance.memberships.exists()
        if not owned and self.instance.pk is not None and (kept or had_members):
            raise ValidationError("A document keeps at least one owner.")


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    """Whoever may change the document may change its members."""

    model = Membership
    formset = MembershipFormSet
    fields = ["user", "role", "created_at"]
    readonly_fields = ["created_at"]
    raw_id_fields = ["user"]
    extra = 0

    def _document_admin(self) -> "DocumentAdmin":
        return cast(DocumentAdmin, self.admin_site.get_model_admin(Document))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._document_admin().has_view_permission(request, cast(Document | None, obj))

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._document_admin().has_change_permission(request, cast(Document | None, obj))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if obj is None:
            return self._document_admin().has_add_permission(request)
        return self.has_change_permission(request, obj)

    has_delete_permission = has_change_permission


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("present", "present"), ("deleted", "deleted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("present", "deleted"):
            return queryset.filter(deleted_at__isnull=self.value() == "present")
        return queryset


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["title", "name", "member_count", "created_by", "created_at", "deleted_at", "history"]
    list_filter = [StateFilter, "created_at"]
    list_select_related = ["created_by"]
    date_hierarchy = "created_at"
    fields = ["title", "name", "key", "created_by", "created_at", "deleted_at"]
    readonly_fields = ["key", "created_by", "created_at", "deleted_at"]
    inlines = [MembershipInline]
    actions = ["recover"]

    # Everything that changes a document comes through one of these three; whoever is signed in does it.

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with acting(actor_of(request, door="admin")):
            return super().changeform_view(request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with acting(actor_of(request, door="admin")):
            return super().delete_view(request, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with acting(actor_of(request, door="admin")):
            return super().changelist_view(request, *args, **kwargs)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return ["title", "name", "key", f"memberships__user__{get_user_model().USERNAME_FIELD}"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        everything: QuerySet[Document] = super().get_queryset(request)
        counted = everything.annotate(members_counted=Count("memberships", distinct=True))
        user: User = request.user
        if is_superuser(user):
            return counted
        deleted = recoverable_documents().filter(memberships__user=user)
        recoverable = [each.pk for each in deleted if role_once_recovered(user, each) == Role.OWNER]
        return counted.filter(Q(pk__in=readable_by(user).values("pk")) | Q(pk__in=recoverable))

    def get_readonly_fields(self, request: HttpRequest, obj: Document | None = None) -> list[str]:
        return [*self.readonly_fields, *([] if obj is None else ["name"])]

    @admin.display(description="members", ordering="members_counted")
    def member_count(self, document: Any) -> int:
        return int(document.members_counted)

    @admin.display(description="history")
    def history(self, document: Document) -> str:
        if document.deleted_at is not None:
            return "—"
        url = reverse("admin:history_documenthistory_change", args=[document.pk])
        return format_html('<a href="{}">History</a>', url)

    def has_view_permission(self, request: HttpRequest, obj: Document | None = None) -> bool:
        return super().has_view_permission(request, obj) and self._holds(request.user, obj, Role.VIEWER)

    def has_change_permission(self, request: HttpRequest, obj: Document | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._holds(request.user, obj, Role.OWNER)

    def has_delete_permission(self, request: HttpRequest, obj: Document | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._holds(request.user, obj, Role.OWNER)

    def _holds(self, user: User, document: Document | None, role: Role) -> bool:
        """Of a deleted document only its owners know in the admin, so that they can recover it."""
        if document is None or is_superuser(user):
            return True
        held = role_once_recovered(user, document)
        return held is not None and held >= (role if document.deleted_at is None else Role.OWNER)

    def save_model(self, request: HttpRequest, obj: Document, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = cast(Any, request.user)
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change:  # a new document has an owner from its first moment: this runs in the same transaction
            memberships = form.instance.memberships
            if not memberships.filter(role=Role.OWNER).exists():
                memberships.update_or_create(user=request.user, defaults={"role": Role.OWNER})

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Only the documents themselves: Django's own answer would load every row of their history."""
        documents = list(objs)
        forbidden = {"document" for each in documents if not self.has_delete_permission(request, each)}
        return [str(each) for each in documents], {"documents": len(documents)}, forbidden, []

    def delete_model(self, request: HttpRequest, obj: Document) -> None:
        delete_document(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        for document in queryset:
            delete_document(document)

    @admin.action(description="Recover selected deleted documents", permissions=["change"])
    def recover(self, request: HttpRequest, queryset: QuerySet[Document]) -> None:
        recovered = 0
        for document in queryset.filter(deleted_at__isnull=False):
            if not self.has_change_permission(request, document):
                continue
            try:
                recover_document(document)
            except NotRecoverable:
                self.message_user(request, f"“{document}” was deleted too long ago.", messages.ERROR)
            else:
                recovered += 1
        self.message_user(request, f"Recovered: {recovered}.", messages.SUCCESS if recovered else messages.WARNING)
