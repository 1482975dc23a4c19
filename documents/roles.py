"""The one gate: what may this user do with this document?

Every door (socket, page, API, admin, and the append itself) asks `role_for` and nothing else."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import DatabaseError, transaction
from django.db.models import F, Q
from django.dispatch import Signal
from django.http import Http404
from django.utils.module_loading import import_string

from documents.conf import conf
from documents.credentials import Credential, Standing, read_accounts, read_standing
from documents.models import Access, Document, DocumentQuerySet, Membership, Role

logger = logging.getLogger(__name__)

User: TypeAlias = Any
"""An instance of AUTH_USER_MODEL, or AnonymousUser: the host project's own type."""

RoleRule: TypeAlias = Callable[[User, Document], Role | None]

MEMBERSHIP_RULE = "documents.roles.membership_role"
"""The path of the default rule, which lists can ask in SQL."""

NO_SUCH_DOCUMENT = "There is no such document, or you may not see it."

rights_changed = Signal()
"""Sent on commit with `document_id`: somebody's right on it is no longer what it was."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What somebody was found to be allowed, and under what: it holds until one of these changes.

    `role` is None for whoever may do nothing here, `signed_in` false where that is because the credential ended;
    `account_stamp` is None where there is no account."""

    role: Role | None
    access_version: int
    account_stamp: int | None = None
    signed_in: bool = True

    @property
    def may_write(self) -> bool:
        return self.role is not None and self.role >= Role.EDITOR

    def holds(self, credential: Credential, standing: Standing) -> bool:
        """Whether the account and the session are what they were; the document's access version is for its reader."""
        if credential.user_key is None:
            return True
        if standing.stamps.get(credential.user_key) != self.account_stamp:
            return False
        return not self.signed_in or standing.has_session(credential)


UNADMITTED = Admission(None, 0)


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks to be let in: by what they came with, and by a rule of the door's own where it has one."""

    credential: Credential
    rule: RoleRule | None = None


def role_for(user: User, document: Document, *, rule: RoleRule | None = None) -> Role | None:
    """The user's role, or None: a deleted document gives nobody any, whatever `rule`, which one door may have instead
    of ROLE_FOR, would say. Reads the database at each call."""
    return None if document.deleted_at is not None else (rule or role_once_recovered)(user, document)


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


def admit(
    user: User, document: Document, *, credential: Credential | None = None, rule: RoleRule | None = None
) -> Admission:
    """The user's role, and under what it was given. The account is read anew: a user object may be as old as the socket
    that holds it, and a rule may go by what has changed in it. Reads the database; raises whatever the rule raises."""
    applicant = Applicant(credential or Credential.of(user), rule)
    return _Register(document, {applicant}).admission(applicant, user)


def admit_again(users: Mapping[Applicant, User], document: Document) -> dict[Applicant, Admission]:
    """As `admit`, for many at once; a rule is asked once for each account, however many credentials it has here.

    Those for whom the rule fails are left out: what they may do is not known. Raises: DatabaseError."""
    register = _Register(document, users.keys())
    admissions: dict[Applicant, Admission] = {}
    for applicant, user in users.items():
        try:
            admissions[applicant] = register.admission(applicant, user)
        except DatabaseError:
            raise
        except Exception:  # a host's rule may fail for one: the others are asked all the same
            logger.exception("no role can be read: document=%s", document.pk)
    return admissions


class _Register:
    """What the database holds of a document's rights and of some accounts. The version is read first, then the document
    itself, and each role after the account that it is given to: a change in between is then noticed later."""

    def __init__(self, document: Document, applicants: Collection[Applicant]) -> None:
        credentials = {each.credential for each in applicants}
        self.version = document.access_version
        # Anew: closed to all since it was read, it would give a role of before under the version of after, for ever.
        self.document = Document.objects.filter(pk=document.pk).first() or document
        self.accounts = read_accounts(credentials)
        self.standing = read_standing(credentials, accounts=False)
        self.roles: dict[tuple[Any, RoleRule | None], Role | None] = {}

    def admission(self, applicant: Applicant, user: User) -> Admission:
        credential, key = applicant.credential, applicant.credential.user_key
        account = self.accounts.get(key)
        stamp = None if account is None else account.stamp
        if account is not None:
            user = account.user
        if key is not None and not (account and account.lets_in(credential) and self.standing.has_session(credential)):
            return Admission(None, self.version, stamp, signed_in=False)
        asked = key, applicant.rule
        if asked not in self.roles:
            self.roles[asked] = role_for(user, self.document, rule=applicant.rule)
            if self.roles[asked] is None and account is not None and not read_accounts({credential}):
                del self.accounts[key]  # it went, and its memberships with it, after it was read
                return self.admission(applicant, user)
        return Admission(self.roles[asked], self.version, stamp)


def document_for(user: User, *, role: Role = Role.VIEWER, **lookup: Any) -> Document:
    """The document that `lookup` (`key=…` or `name=…`) names, if the user has at least `role` on it.

    Raises: Http404 for one that does not exist and, identically, for one that the user may not see;
    PermissionDenied for one that the user may see but not use in this way."""
    document = Document.objects.present().filter(**lookup).first()
    held = None if document is None else role_for(user or AnonymousUser(), document)
    if document is None or held is None:
        raise Http404(NO_SUCH_DOCUMENT)
    if held < role:
        raise PermissionDenied(f"You are {held.label} of this document; this takes {role.label}.")
    return document


@contextmanager
def gone_is_404(document: Document) -> Iterator[None]:
    """For what is done behind the gate: a document that is erased meanwhile, with all that is of it, was never there.

    Raises: Http404 then, in place of the DoesNotExist of whatever was read."""
    try:
        yield
    except ObjectDoesNotExist:
        if Document.objects.filter(pk=document.pk).exists():
            raise
        raise Http404(NO_SUCH_DOCUMENT) from None


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
