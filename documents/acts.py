"""What people do with a document besides editing it, told to the floors above within the transaction of the act.

`history` writes it down (the audit). Saving and deleting is told, whoever's code does it; what sends no signals is not:
`QuerySet.update`, `bulk_create`, raw SQL. Who acts is said around the act, by `acting`; else it is the server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from ipaddress import ip_address
from typing import Any, TypeVar, cast

from django.db.models import QuerySet
from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import Signal
from django.http import HttpRequest

from documents.models import Document, Membership, Role
from documents.roles import User

acted = Signal()
"""`document` (Document), `act` (a word of below), `detail` (a small object of JSON, never content), sent before the act
is committed and in its transaction: what a receiver raises undoes the act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, through which door (a name of `history.models.Via`, in small letters) and from which address."""

    user: User | None = None
    door: str = "task"
    ip: str | None = None


SERVER = Actor()

_acting: ContextVar[Actor] = ContextVar("documents.acting", default=SERVER)

View = TypeVar("View", bound=Callable[..., Any])


def current_actor() -> Actor:
    return _acting.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Everything inside is done by `actor`."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def actor_of(request: HttpRequest, *, door: str) -> Actor:
    user = getattr(request, "user", None)
    return Actor(user=user if user is not None and user.is_authenticated else None, door=door, ip=address_of(request))


def acting_through(door: str) -> Callable[[View], View]:
    """A view whose acts are those of whoever asks."""

    def wrap(view: View) -> View:
        @wraps(view)
        def acting_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            with acting(actor_of(request, door=door)):
                return view(request, *args, **kwargs)

        return cast(View, acting_view)

    return wrap


def address_of(request: HttpRequest) -> str | None:
    """The address that the request came from; None behind a server that knows none, such as a unix socket's."""
    try:
        return str(ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return None


def connect() -> None:
    pre_save.connect(_about_to_save, sender=Document)
    post_save.connect(_document_saved, sender=Document)
    post_delete.connect(_document_deleted, sender=Document)
    pre_save.connect(_about_to_save, sender=Membership)
    post_save.connect(_membership_saved, sender=Membership)
    post_delete.connect(_membership_deleted, sender=Membership)


def _tell(document: Document, act: str, **detail: str | bool) -> None:
    acted.send(sender=Document, document=document, act=act, detail=detail)


def _about_to_save(sender: type[Document | Membership], instance: Document | Membership, raw: bool, **_: Any) -> None:
    """Keep what the row holds, locked until the save: what an object held when it was read may be out of date."""
    if raw or instance.pk is None:
        return
    row = sender._base_manager.select_for_update(no_key=True).filter(pk=instance.pk)  # noqa: SLF001 (public, despite its name)
    instance.__dict__["_before"] = row.values().first()


def _changes(instance: Document | Membership) -> dict[str, Any]:
    """What each field that the save has changed held before. Fields that it left out are as they were."""
    before = instance.__dict__.pop("_before", None) or {}
    row: Any = type(instance)._base_manager.filter(pk=instance.pk)  # noqa: SLF001
    after: dict[str, Any] = row.values().get()
    return {name: was for name, was in before.items() if was != after[name]}


def _document_saved(instance: Document, created: bool, raw: bool, **_: Any) -> None:
    if raw:
        return
    if created:
        _tell(instance, "created", name=instance.name, title=instance.title)
        return
    changed = _changes(instance)
    if "title" in changed:
        _tell(instance, "renamed", title=instance.title, was=changed["title"])
    if "deleted_at" in changed and (instance.deleted_at is None or changed["deleted_at"] is None):
        _tell(instance, "recovered" if instance.deleted_at is None else "deleted")
    if "open_to_all" in changed:
        _tell(instance, "opened_to_all" if instance.open_to_all else "closed_to_all")


def _document_deleted(instance: Document, **_: Any) -> None:
    _tell(instance, "erased", name=instance.name, title=instance.title)


def _membership_saved(instance: Membership, created: bool, raw: bool, **_: Any) -> None:
    if raw:
        return
    changed = {} if created else _changes(instance)
    member, role = str(instance.user_id), Role(instance.role).label
    if "user_id" in changed:
        _tell(instance.document, "member_removed", member=str(changed["user_id"]))
    if created or "user_id" in changed:
        _tell(instance.document, "member_added", member=member, role=role)
    elif "role" in changed:
        _tell(instance.document, "role_changed", member=member, role=role, was=Role(changed["role"]).label)


def _membership_deleted(instance: Membership, origin: Any = None, **_: Any) -> None:
    cause = origin.model if isinstance(origin, QuerySet) else type(origin)
    if issubclass(cause, Document):
        return  # the whole document goes, which is told as one
    if origin is None or issubclass(cause, Membership):
        _tell(instance.document, "member_removed", member=str(instance.user_id))
    else:
        _tell(instance.document, "member_removed", member=str(instance.user_id), account_deleted=True)
