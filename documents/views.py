"""The pages about documents: whose they are, who else is in them, and how they come and go.

Every page asks the gate (`document_for`) for the role it takes; what one may not see answers 404."""

from dataclasses import dataclass
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from documents.acts import acting_through
from documents.conf import conf
from documents.forms import NewDocumentForm, NewMemberForm, RoleForm, TitleForm
from documents.members import AlreadyMember, LastOwner, add_member, change_role, remove_member
from documents.models import Document, Membership, Role
from documents.opening import (
    NameTaken,
    NotRecoverable,
    create_document,
    delete_document,
    recover_document,
    recoverable_documents,
    rename_document,
)
from documents.roles import User, document_for, listed_for, role_for, role_once_recovered

DOCUMENTS_PER_PAGE = 50
OTHERS_SHOWN_MAX = 5
"""Names of other members in one line of the list."""

require_form = require_http_methods(["GET", "HEAD", "POST"])


@dataclass(frozen=True, slots=True)
class Line:
    """One document as its owner, editor or viewer sees it in the list."""

    document: Document
    role: Role
    others: list[str]
    others_more: int

    @property
    def is_owned(self) -> bool:
        return self.role >= Role.OWNER

    @property
    def is_editable(self) -> bool:
        return self.role >= Role.EDITOR


@require_safe
@never_cache
@login_required
def document_list(request: HttpRequest) -> HttpResponse:
    user: User = request.user
    listed = listed_for(user)
    mine = listed.present().prefetch_related("memberships__user")
    page = Paginator(mine, DOCUMENTS_PER_PAGE).get_page(request.GET.get("page"))
    lines = [line for document in page if (line := _line(user, document)) is not None]
    deleted = recoverable_documents().filter(pk__in=listed.values("pk"))
    recoverable = [each for each in deleted if role_once_recovered(user, each) == Role.OWNER]
    context = {
        "page": page,
        "lines": lines,
        "recoverable": recoverable,
        "deleted_document_days": conf().deleted_document_days,
    }
    return render(request, "documents/list.html", context)


def _line(user: User, document: Document) -> Line | None:
    role = role_for(user, document)
    if role is None:
        return None  # the host's own rule may say otherwise than the membership
    others = sorted(each.user.get_username() for each in document.memberships.all() if each.user_id != user.pk)
    return Line(document, role, others[:OTHERS_SHOWN_MAX], max(0, len(others) - OTHERS_SHOWN_MAX))


@require_form
@never_cache
@login_required
@acting_through("page")
def document_create(request: HttpRequest) -> HttpResponse:
    form = NewDocumentForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            title, name = form.cleaned_data["title"], form.cleaned_data["name"] or None
            return redirect(create_document(request.user, title=title, name=name))
        except NameTaken:
            form.add_error("name", "This room name is taken.")
    return render(request, "documents/create.html", {"form": form})


@require_form
@never_cache
@login_required
@acting_through("page")
def document_rename(request: HttpRequest, key: UUID) -> HttpResponse:
    document = document_for(request.user, role=Role.EDITOR, key=key)
    form = TitleForm(request.POST or None, initial={"title": document.title})
    if request.method == "POST" and form.is_valid():
        rename_document(document, title=form.cleaned_data["title"])
        messages.success(request, f"Renamed to “{document.title}”.")
        return redirect("document-list")
    return render(request, "documents/rename.html", {"form": form, "document": document})


@require_form
@never_cache
@login_required
@acting_through("page")
def document_delete(request: HttpRequest, key: UUID) -> HttpResponse:
    document = document_for(request.user, role=Role.OWNER, key=key)
    if request.method == "POST":
        delete_document(document)
        messages.success(request, f"Deleted “{document.title}”.")
        return redirect("document-list")
    context = {"document": document, "deleted_document_days": conf().deleted_document_days}
    return render(request, "documents/delete.html", context)


@require_POST
@never_cache
@login_required
@acting_through("page")
def document_recover(request: HttpRequest, key: UUID) -> HttpResponse:
    document = get_object_or_404(Document, key=key, deleted_at__isnull=False)
    if role_once_recovered(request.user, document) != Role.OWNER:
        raise Http404("There is no such document, or you may not see it.")
    try:
        recover_document(document)
    except NotRecoverable:
        messages.error(request, f"“{document.title}” was deleted too long ago.")
    else:
        messages.success(request, f"“{document.title}” is back.")
    return redirect("document-list")


@require_form
@never_cache
@login_required
@acting_through("page")
def document_members(request: HttpRequest, key: UUID) -> HttpResponse:
    document = document_for(request.user, role=Role.OWNER, key=key)
    form = NewMemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.cleaned_data["username"]
        try:
            add_member(document, user=user, role=form.cleaned_data["role"])
        except AlreadyMember:
            form.add_error("username", f"{user.get_username()} is a member already.")
        else:
            messages.success(request, f"Added {user.get_username()}.")
            return redirect("document-members", key)
    members = document.memberships.select_related("user").order_by("-role", "created_at")
    rows = [(membership, RoleForm(initial={"role": membership.role}, auto_id=False)) for membership in members]
    return render(request, "documents/members.html", {"form": form, "document": document, "rows": rows})


@require_POST
@never_cache
@login_required
@acting_through("page")
def member_role(request: HttpRequest, key: UUID, membership_id: int) -> HttpResponse:
    membership = _membership(request.user, key, membership_id)
    form = RoleForm(request.POST)
    if form.is_valid():
        try:
            change_role(membership, role=form.cleaned_data["role"])
        except LastOwner:
            messages.error(request, "A document keeps at least one owner.")
        else:
            messages.success(request, f"{membership.user.get_username()} is {membership.get_role_display()} now.")
    else:
        messages.error(request, "There is no such role.")
    return _back_to_members(request, membership.document)


@require_POST
@never_cache
@login_required
@acting_through("page")
def member_remove(request: HttpRequest, key: UUID, membership_id: int) -> HttpResponse:
    membership = _membership(request.user, key, membership_id)
    try:
        remove_member(membership)
    except LastOwner:
        messages.error(request, "A document keeps at least one owner.")
    else:
        messages.success(request, f"Removed {membership.user.get_username()}.")
    return _back_to_members(request, membership.document)


def _membership(user: User, key: UUID, membership_id: int) -> Membership:
    document = document_for(user, role=Role.OWNER, key=key)
    return get_object_or_404(Membership.objects.select_related("user", "document"), pk=membership_id, document=document)


def _back_to_members(request: HttpRequest, document: Document) -> HttpResponse:
    """To the members' page, or to the list for an owner who has just taken that role from himself."""
    if role_for(request.user, document) == Role.OWNER:
        return redirect("document-members", document.key)
    return redirect("document-list")
