"""Who belongs to a document. A document that has an owner keeps at least one."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from documents.models import Document, Membership, Role
from documents.roles import User


class AlreadyMember(Exception):
    """Raised when someone is added who is a member already."""


class LastOwner(Exception):
    """Raised when an act would leave a document with members and no owner."""


def add_member(document: Document, *, user: User, role: Role) -> Membership:
    """Give `user` a role. Raises: AlreadyMember."""
    membership, created = Membership.objects.get_or_create(document=document, user=user, defaults={"role": role})
    if not created:
        raise AlreadyMember
    return membership


def change_role(membership: Membership, *, role: Role) -> None:
    """Give a member another role. Raises: LastOwner; nothing has changed then."""
    with _keeping_an_owner(membership.document):
        membership.role = role
        membership.save(update_fields=["role"])


def remove_member(membership: Membership) -> None:
    """Take someone out of the document. Raises: LastOwner; nothing has changed then."""
    with _keeping_an_owner(membership.document):
        membership.delete()


@contextmanager
def _keeping_an_owner(document: Document) -> Iterator[None]:
    """Undo what is done inside if no owner is left after it.

    Two owners may demote each other at the same moment: the trigger that raises the access version makes the second
    wait on that row, and only then does this look, so it sees what the first did."""
    with transaction.atomic():
        yield
        if not Membership.objects.filter(document=document, role=Role.OWNER).exists():
            raise LastOwner
