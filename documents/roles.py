"""The one gate: what may this user do with this document?

Every door (socket, page, API, admin, and the append itself) asks `role_for` and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F, Q
from django.dispatch import Signal
from django.http import Http404
from django.utils.module_loading import import_string

from documents.conf import conf
from documents.models import Access, Document, DocumentQuerySet, Membership, Role

User: TypeAlias = Any
"""An instance of AUTH_USER_MODEL, or AnonymousUser: the host project's own type."""

RoleRule: TypeAlias = Callable[[User, Document], Role | None]

MEMBERSHIP_RULE = "documents.roles.membership_role"
"""The path of the default rule, which lists can ask in SQL."""

rights_changed = Signal()
"""Sent on commit with `document_id`: somebody's right on it is no longer what it was."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A role, and the version of the document's rights under which it was given."""

    role: Role
    access_version: int


def role_for(user: User, document: Document) -> Role | None:
    """The user's role, or None: a deleted document gives nobody any. Reads the database at each call."""
    return None if document.deleted_at is not None else role_once_recovered(user, document)


def role_once_recovered(user: User, document: Document) -> Role | None:
    """The role that the user has, or would have again if the document were not deleted: who may recover it."""
    rule = cast(RoleRule, import_string(conf().role_for))
    return rule(user, document)


def membership_role(user: User, document: Document) -> Role | None:
    """The default rule: superusers own everything, others have the role of their membership.

    Under OPEN_ROOMS a document that was created on first use is open to anyone, signed in or not."""
    if user.is_authenticated:
        if is_superuser(user):
            return Role.OWNER
        role = Membership.objects.filter(document=document, user=user).values_list("role", flat=True).first()
        if role is not None:
            return Role(role)
    if conf().open_rooms and document.open_to_all:
        return Role.EDITOR
    return None


def is_superuser(user: User) -> bool:
    """False for user models of the host's that know no superusers."""
    return bool(getattr(user, "is_superuser", False))


def admit(user: User, document: Document) -> Admission | None:
    """The role together with its version. The version is read first: a change in between is then noticed later."""
    version = document.access_version
    role = role_for(user, document)
    return None if role is None else Admission(role, version)


def readmit(user: User, document: Document) -> Admission | None:
    """As `admit`, for a user object that a socket has held since it came: the account is read anew, because a rule may
    go by what has changed in it. None also for one that is gone or no longer active."""
    if not user.is_authenticated:
        return admit(user, document)
    account = get_user_model()._default_manager.filter(pk=user.pk).first()  # noqa: SLF001  (any user model has it)
    return None if account is None or not account.is_active else admit(account, document)


def document_for(user: User, *, role: Role = Role.VIEWER, **lookup: Any) -> Document:
    """The document that `lookup` (`key=…` or `name=…`) names, if the user has at least `role` on it.

    Raises: Http404 for one that does not exist and, identically, for one that the user may not see;
    PermissionDenied for one that the user may see but not use in this way."""
    document = Document.objects.present().filter(**lookup).first()
    held = None if document is None else role_for(user or AnonymousUser(), document)
    if document is None or held is None:
        raise Http404("There is no such document, or you may not see it.")
    if held < role:
        raise PermissionDenied(f"You are {held.label} of this document; this takes {role.label}.")
    return document


def listed_for(user: User) -> DocumentQuerySet:
    """What a list of one's own documents is made of, deleted ones included: those that the user is a member of, or
    under a rule of your own (`ROLE_FOR`), which knows no members, all on which the user has a role."""
    everything = Document.objects.all()
    if not user.is_authenticated:
        return everything.none()
    if conf().role_for == MEMBERSHIP_RULE:
        return everything.filter(memberships__user=user)
    readable = [each.pk for each in everything.iterator() if role_once_recovered(user, each) is not None]
    return everything.filter(pk__in=readable)


def readable_by(user: User) -> DocumentQuerySet:
    """The documents on which the user has any role, as a queryset for lists; deleted ones are left out.

    The membership rule is asked in SQL. A rule of your own (`ROLE_FOR`) is asked for each document."""
    present = Document.objects.present()
    if conf().role_for != MEMBERSHIP_RULE:
        return present.filter(pk__in=[each.pk for each in present.iterator() if role_for(user, each) is not None])
    if user.is_authenticated and is_superuser(user):
        return present
    readable = Q(pk__in=[])
    if user.is_authenticated:
        readable |= Q(pk__in=Membership.objects.filter(user=user).values("document"))
    if conf().open_rooms:
        readable |= Q(open_to_all=True)
    return present.filter(readable)


def access_changed(document: Document, user: User | None = None) -> None:
    """Say that a rule of your own (`ROLE_FOR`) now answers differently for `document`.

    Raises its access version, so that appends already in line are checked again; `user` is for the reader of logs."""
    with transaction.atomic():
        Access.objects.filter(document=document).update(version=F("version") + 1)
        transaction.on_commit(lambda: rights_changed.send(sender=Document, document_id=document.pk, user=user))
